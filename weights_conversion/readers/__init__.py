"""Files and folders of tensors -> LazyTensors, without torch and without running code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from weights_conversion.errors import CheckpointError
from weights_conversion.readers.safetensors import read_safetensors
from weights_conversion.tensors import LazyTensor

FILENAMES = ("model.safetensors", "open_clip_model.safetensors")
INDEXES = tuple(f"{name}.index.json" for name in FILENAMES)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file or folder, none of them read yet, and the file's own metadata."""

    path: Path
    tensors: Mapping[str, LazyTensor]
    metadata: Mapping[str, str]


def open_checkpoint(path: str | Path) -> Checkpoint:
    """A .safetensors file, or a folder with one, or with shards and their index.

    Raises CheckpointError for what is not there, not a safetensors file, or damaged.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(f"no checkpoint at {path}; pass a .safetensors file or a folder that holds one")
    if path.is_dir():
        return _open_folder(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path.name}: only .safetensors files can be read; convert it once with safetensors.torch.save_file"
        )
    tensors, metadata = read_safetensors(path)
    return Checkpoint(path, tensors, metadata)


def _open_folder(folder: Path) -> Checkpoint:
    index = next((folder / name for name in INDEXES if (folder / name).is_file()), None)
    if index is not None:
        return _open_sharded(index)
    named = [folder / name for name in FILENAMES if (folder / name).is_file()]
    found = named or sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        listed = (
            f"{len(found)} .safetensors files ({', '.join(f.name for f in found)})" if found else "no .safetensors file"
        )
        raise CheckpointError(f"{folder} has {listed}; pass the one file to read")
    return open_checkpoint(found[0])


def _open_sharded(index: Path) -> Checkpoint:
    try:
        owners: dict[str, str] = json.loads(index.read_text())["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index} is not a safetensors index: {error}") from error
    if any(Path(name).name != name for name in owners.values()):
        raise CheckpointError(f"{index} names a shard outside its own folder")
    shards = {name: open_checkpoint(index.parent / name).tensors for name in sorted(set(owners.values()))}
    missing = [key for key, name in owners.items() if key not in shards[name]]
    if missing:
        raise CheckpointError(f"{index} promises tensors that their shards do not hold: {', '.join(missing[:5])}")
    return Checkpoint(index.parent, {key: shards[name][key] for key, name in owners.items()}, {})
