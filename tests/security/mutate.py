"""Valid files with bytes flipped, cut out, repeated or moved, and what may come of reading them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.security import build as b
from weights_conversion import CheckpointError
from weights_conversion.readers import open_checkpoint

OPCODES = b"".join(
    (
        *(
            b.MARK,
            b.TUPLE,
            b.REDUCE,
            b.BINPERSID,
            b.EMPTY_TUPLE,
            b.NONE,
            b"}",
            b"]",
            b"u",
            b"s",
            b"e",
            b"a",
            b"b",
        ),
        *(
            b"\x81",
            b"\x85",
            b"\x86",
            b"\x87",
            b"\x88",
            b"\x89",
            b"\x8f",
            b"\x90",
            b"\x93",
            b"\x94",
            b"q\0",
            b"h\0",
        ),
    )
)


STATE = b.program(b.pairs({"w": b.tensor(), "t": b.tensor((3, 2), (1, 3)), "n": b.number(3)}))


def inner() -> dict[str, tuple[bytes, Callable[[bytes], bytes]]]:
    """What lies inside a container, and the container with a right checksum around it."""
    return {
        "pickle": (STATE, b.torch_zip),
        "script": (STATE, lambda data: b.torch_zip(data, ("x/constants.pkl", b""))),
        "npy": (b.npy(), b.npz),
        "header": (b.safetensors({"w": b.entry()})[8:-24], b.safetensors),
    }


def valid() -> dict[str, bytes]:
    """A small file of each container."""

    header = {"w": b.entry(), "v": b.entry("F16", (2,), (24, 28)), "__metadata__": {"format": "pt"}}
    return {
        "zip": b.torch_zip(STATE, ("x/byteorder", b"little")),
        "deflated": b.torch_zip(STATE, ("x/byteorder", b"little"), method=8),
        "script": b.torch_zip(STATE, ("x/constants.pkl", b.program(b")"))),
        "legacy": b.legacy(b.legacy_tensor()),
        "npz": b.npz(b.npy()),
        "safetensors": b.safetensors(header, b.VALUES.tobytes() + bytes(4)),
    }


def mutated(data: bytes, changes: list[tuple[str, int, int, int]]) -> bytes:
    """The file after each change: what, where, how many bytes, and a value or a second place."""
    for what, place, count, value in changes:
        if not data:
            break
        place, part = place % len(data), data[value % len(data) :][:count]
        if what == "flip":
            data = b.replaced(data, place, bytes([data[place] ^ (1 << value % 8)]))
        elif what == "set":
            data = b.replaced(data, place, bytes([value % 256]))
        elif what == "cut":
            data = data[:place] + data[place + count :]
        elif what == "end":
            data = data[:place]
        else:
            data = (
                data[:place]
                + part
                + (data[place + len(part) :] if what == "overwrite" else data[place:])
            )
    return data


def stream(codes: list[int], numbers: list[int]) -> bytes:
    """A pickle of random opcodes around pieces that mean something."""
    pieces = [
        b.storage(),
        b.tensor(),
        b.text("w"),
        b.name("torch._utils", "_rebuild_tensor_v2"),
        b.pairs({"w": b.tensor()}),
    ]
    pieces += [
        b.name("collections", "OrderedDict"),
        b.name("torch", "FloatStorage"),
        *(b.number(n) for n in numbers),
    ]
    pieces += [OPCODES[i : i + 1] for i in range(len(OPCODES))] + [b"q\0", b"h\0", b"X\1\0\0\0k"]
    return b.program(b"".join(pieces[code % len(pieces)] for code in codes))


def read_all(path: object) -> int:
    """How many tensors came out, each as declared; -1 where the file is refused. Everything else is a bug."""
    try:
        tensors = open_checkpoint(str(path)).tensors
    except CheckpointError:
        return -1
    for tensor in tensors.values():
        try:
            read = tensor.read(())
        except CheckpointError:
            continue
        if (read.shape, read.dtype) != (tensor.shape, tensor.dtype) or not isinstance(
            read, np.ndarray
        ):
            raise AssertionError(
                f"{read.shape} {read.dtype} came out, {tensor.shape} {tensor.dtype} was declared"
            )
        if read.size:
            read.reshape(-1)[-1:].copy()
    return len(tensors)
