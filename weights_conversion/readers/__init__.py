"""Files and folders of tensors -> LazyTensors, without torch and without running code."""

from __future__ import annotations

import stat
from pathlib import Path

from weights_conversion.errors import CheckpointError, listed, quoted, shown
from weights_conversion.readers import sniff
from weights_conversion.readers.archive import open_archive
from weights_conversion.readers.common import MAX_TENSORS, Checkpoint, parsed
from weights_conversion.readers.npz import read_npz
from weights_conversion.readers.safetensors import read_safetensors
from weights_conversion.readers.torch_files import read_torch_legacy, read_torch_zip
from weights_conversion.tensors import LazyTensor

__all__ = ["Checkpoint", "open_checkpoint"]

SAFETENSORS = ("model.safetensors", "open_clip_model.safetensors")
BINS = ("pytorch_model.bin", "open_clip_pytorch_model.bin")
INDEX = ".index.json"
SAFETENSORS_INDEXES = ("model.safetensors.index.json", "open_clip_model.safetensors.index.json")
BIN_INDEXES = ("pytorch_model.bin.index.json", "open_clip_pytorch_model.bin.index.json")
# what is looked for in a folder, in this order: safetensors wherever it has both, as nothing in it can do harm
STAGES = (
    SAFETENSORS_INDEXES,
    SAFETENSORS,
    ("*.safetensors",),
    BIN_INDEXES,
    BINS,
    ("*.pt", "*.pth", "*.pth.tar", "*.ckpt", "*.npz"),
)
MAX_INDEX_BYTES = 4 << 20  # 10,000 names with their shards take 1.3 MB
MAX_SHARDS = 256  # the largest published checkpoints have about 190


def open_checkpoint(path: str | Path) -> Checkpoint:
    """A safetensors, torch or npz file, told by its content; or a folder with one, or with shards and their index.

    Raises CheckpointError for what is not there, cannot be read, is damaged, or could do harm.
    """
    path = Path(path).expanduser()
    try:
        mode = path.stat().st_mode
        return _open_folder(path) if stat.S_ISDIR(mode) else _open_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"no checkpoint at {shown(error.filename or path)}; pass a file of weights or a folder that holds one"
        ) from error
    except CheckpointError:  # a ValueError too, and says what is wrong already
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"{shown(path)} cannot be opened: {reason}; check the path and its permissions"
        ) from error


def _open_file(path: Path) -> Checkpoint:
    try:
        kind = sniff.container(path)
        if kind == sniff.SAFETENSORS:
            return Checkpoint(path, *read_safetensors(path))
        return _open_zip(path) if kind == sniff.ZIP else read_torch_legacy(path)
    except CheckpointError as error:
        raise CheckpointError(f"{shown(path)} {error}") from error


def _open_zip(path: Path) -> Checkpoint:
    archive = open_archive(path)
    root = sniff.torch_root(archive)
    if root is not None:
        return read_torch_zip(path, archive, root)
    if any(name.endswith(".npy") for name in archive.members):
        return read_npz(path, archive)
    raise CheckpointError(sniff.unknown_zip(archive))


def _open_folder(folder: Path) -> Checkpoint:
    for patterns in STAGES:
        found = sorted(
            file for pattern in patterns for file in folder.glob(pattern) if file.is_file()
        )
        # of two that are equally likely none is taken silently
        if len(found) > 1:
            names = listed(file.name for file in found)
            raise CheckpointError(
                f"{shown(folder)} has {len(found)} checkpoints ({names}); pass the one to read"
            )
        if found and found[0].name.endswith(INDEX):
            return _open_sharded(found[0])
        if found:
            return _open_file(found[0])
    raise CheckpointError(f"{shown(folder)} {sniff.unknown_folder(folder)}")


def _open_sharded(index: Path) -> Checkpoint:
    """All tensors of all shards: one that the index leaves out is in the checkpoint as well, to be accounted for."""
    owners = _owners(index)
    tensors: dict[str, LazyTensor] = {}
    found: dict[str, str] = {}  # tensor -> the shard that holds it
    for name in sorted(set(owners.values())):
        shard = _whole_names(_open_file(index.parent / name))
        twice = sorted(tensors.keys() & shard.keys())
        if twice:
            raise CheckpointError(
                f"{shown(index)} has shards that both hold {listed(twice)}; which is meant is unclear"
            )
        if len(tensors) + len(shard) > MAX_TENSORS:
            raise CheckpointError(
                f"{shown(index)} has shards of more than {MAX_TENSORS:,} tensors together"
            )
        tensors |= shard
        found |= dict.fromkeys(shard, name)
    missing = [key for key, name in owners.items() if found.get(key) != name]
    if missing:
        raise CheckpointError(
            f"{shown(index)} promises tensors that their shards do not hold: {listed(missing)}"
        )
    return Checkpoint(index.parent, tensors, {})


def _owners(index: Path) -> dict[str, str]:
    """Tensor -> the file beside the index that holds it."""
    try:
        if index.stat().st_size > MAX_INDEX_BYTES:
            raise ValueError(f"more than {MAX_INDEX_BYTES:,} bytes")
        owners = parsed(index.read_bytes())["weight_map"]
        if not all(isinstance(name, str) for name in owners.values()):
            raise ValueError("a shard that is no name")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{shown(index)} is not an index of shards: {error}") from error
    shards = sorted(set(owners.values()))
    if len(shards) > MAX_SHARDS:
        raise CheckpointError(
            f"{shown(index)} names {len(shards):,} shards; {MAX_SHARDS} are read at most"
        )
    # an index may come from anywhere, and must not lead to other files of this machine
    outside = [name for name in shards if not _is_inside(name)]
    if outside:
        raise CheckpointError(
            f"{shown(index)} names the shard {quoted(outside[0])}, outside its own folder"
        )
    return owners


def _is_inside(name: str) -> bool:
    """Whether a shard's name is that of a file beside its index."""
    return Path(name).name == name and name != ".." and name.isprintable()


def _whole_names(shard: Checkpoint) -> dict[str, LazyTensor]:
    """The tensors under the names that they have in the file, as an index gives them."""
    prefix = f"{shard.wrapper}." if shard.wrapper else ""
    return {prefix + name: tensor for name, tensor in shard.tensors.items()}
