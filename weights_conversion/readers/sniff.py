"""What a file is, by its first bytes and not by its name; and a sentence for everything that cannot be read."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from weights_conversion.errors import CheckpointError, listed
from weights_conversion.readers.archive import Archive
from weights_conversion.readers.common import STATE_DICT_ONLY

HEAD_BYTES = 512
# eight letters read as a number are far beyond it, the length of a safetensors header far below
HEADER_LIMIT = 1 << 40
SAFETENSORS, ZIP, LEGACY = "safetensors", "zip", "torch before 1.6"
READABLE = "safetensors, torch's .pt and .pth, and numpy's .npz files can be read"
LEGACY_MAGIC = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # the ten bytes of torch's number, whatever the protocol

Test = Callable[[bytes, str], bool]


def _starts(*marks: bytes) -> Test:
    return lambda head, name: head.startswith(marks)


def _text(*marks: bytes) -> Test:
    return lambda head, name: head.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith(marks)


def _named(*parts: str) -> Test:
    return lambda head, name: any(part in name for part in parts)


# what the first bytes or the name say -> what it is and the way out; the first that holds is taken
OTHERS: tuple[tuple[Test, str], ...] = (
    (
        _starts(b"version https://git-lfs"),
        "is a git-lfs pointer, not the file itself; run git lfs pull",
    ),
    (
        _text(b"<!doctype", b"<html", b"<?xml", b"<head"),
        "is a web page, not a checkpoint; download the file itself",
    ),
    (
        _text(b"{", b"["),
        "is JSON text, not a checkpoint; download the file itself, or pass the folder of an index",
    ),
    (
        _starts(b"\x89HDF\r\n\x1a\n"),
        "is an HDF5 file, as Keras writes them; save its arrays with numpy.savez",
    ),
    (_starts(b"GGUF", b"GGML"), "is a GGUF file; take the model's safetensors or .pt file"),
    (_starts(b"\x93NUMPY"), "is a single numpy array; save all arrays with numpy.savez"),
    (
        _starts(b"\x1f\x8b"),
        "is gzipped; unpack it with gunzip or tar -xzf, and pass what comes out",
    ),
    (
        _starts(b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!\x1a\x07", b"\x28\xb5\x2f\xfd"),
        "is packed; unpack it, pass the result",
    ),
    (
        lambda head, name: head[257:262] == b"ustar",
        "is a tar file; unpack it and pass the checkpoint that it holds; if torch before 0.2 wrote it, "
        f"load it there and {STATE_DICT_ONLY}",
    ),
    (_named(".onnx"), "is an ONNX graph; take the checkpoint that it was exported from"),
    (
        _starts(
            b"\x08\x03\x12",
            b"\x08\x04\x12",
            b"\x08\x05\x12",
            b"\x08\x06\x12",
            b"\x08\x07\x12",
            b"\x08\x08\x12",
        ),
        "is an ONNX graph; take the checkpoint that it was exported from",
    ),
    (
        _named("saved_model.pb", ".index", ".data-0000"),
        "is part of a TensorFlow checkpoint; save its arrays with numpy.savez",
    ),
    (
        _named(".msgpack"),
        "is a Flax msgpack file; save its arrays with numpy.savez, or take the safetensors file",
    ),
    (
        _starts(b"\x80"),
        "is a pickle, but not one of torch's; save its arrays with numpy.savez or as safetensors",
    ),
)
# a file or folder in a folder -> the same for folders
FOLDERS: tuple[tuple[str, str], ...] = (
    (
        "_CHECKPOINT_METADATA",
        "is an Orbax checkpoint; restore a run with fmjax, or save its arrays with numpy.savez",
    ),
    ("flax_model.msgpack", "has a Flax msgpack file only; save its arrays with numpy.savez"),
    ("saved_model.pb", "is a TensorFlow SavedModel; save its arrays with numpy.savez"),
    ("*.data-00000-of-*", "is a TensorFlow checkpoint; save its arrays with numpy.savez"),
    ("*.h5", "has an HDF5 file only, as Keras writes them; save its arrays with numpy.savez"),
    ("*.onnx", "has an ONNX graph only; take the checkpoint that it was exported from"),
    ("*.gguf", "has a GGUF file only; take the model's safetensors or .pt file"),
)


def container(path: Path) -> str:
    """SAFETENSORS, ZIP or LEGACY. Raises CheckpointError, with what it is instead and the way out, for all else."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise CheckpointError("is a pipe, socket or device, not a file; save it as a file first")
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise CheckpointError("is empty (0 bytes); fetch or copy it again")
    # first what can be read, then what is known to be something else, by its content or its name
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return ZIP
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < HEADER_LIMIT:
        return SAFETENSORS
    if head.startswith(b"\x80") and LEGACY_MAGIC in head[:40]:
        return LEGACY
    for test, what in OTHERS:
        if test(head, path.name.lower()):
            raise CheckpointError(what)
    if path.suffix == ".safetensors":
        return SAFETENSORS
    raise CheckpointError(
        f"is no checkpoint that is known here (it starts with {head[:8]!r}); {READABLE}"
    )


def torch_root(archive: Archive) -> str | None:
    """The folder of a torch archive that its pickle lies in, None for another zip."""
    roots = [
        name.removesuffix("/data.pkl") for name in archive.members if name.endswith("/data.pkl")
    ]
    # a folder at the top; a pickle that lies deeper is part of something else
    roots = [root for root in roots if "/" not in root]
    if len(roots) > 1:
        raise CheckpointError(
            f"has {len(roots)} pickles ({listed(roots)}), so which one is meant is unclear; do not trust it"
        )
    return roots[0] if roots else None


def unknown_zip(archive: Archive) -> str:
    """What a zip with neither a torch pickle nor arrays is."""
    names = list(archive.members)
    if any(name.endswith(".h5") for name in names):
        return "is a Keras archive; save its arrays with numpy.savez"
    held = listed(names) or "empty"
    return f"is a zip file with neither torch's data.pkl nor .npy arrays ({held}); {READABLE}"


def unknown_folder(folder: Path) -> str:
    """What a folder without a checkpoint that can be read is."""
    found = next((what for pattern, what in FOLDERS if any(folder.glob(pattern))), None)
    return found or f"has no .safetensors, .bin, .pt, .pth, .ckpt or .npz file; {READABLE}"
