"""npz: a zip of .npy files. The headers are matched against their one form, not evaluated."""

from __future__ import annotations

import math
import re
from pathlib import Path

import ml_dtypes
import numpy as np

from weights_conversion.errors import CheckpointError, quoted
from weights_conversion.readers.archive import Archive
from weights_conversion.readers.common import Checkpoint, check_count, check_name, check_shape, lazy
from weights_conversion.tensors import LazyTensor

MAX_HEADER_BYTES = 4096  # of one array: 32 axes and a plain type take 700
MAGIC = b"\x93NUMPY"
LENGTHS = {1: 2, 2: 4, 3: 4}  # format version -> bytes that state the header's length
# what numpy writes for plain numbers, and nothing else: byte order, kind and bytes of the type, order, shape
HEADER = re.compile(
    r"\{'descr': '([<|=>])([a-zA-Z])([0-9]{1,5})', 'fortran_order': (True|False), "
    r"'shape': \((|[0-9]+L?,|[0-9]+L?(?:, [0-9]+L?)+)\),? ?\} *\n?"
)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)  # numpy writes it as two bytes of no type, V2
TENSOR_KINDS, TEXT_KINDS = "biufc", "SU"


def read_npz(path: Path, archive: Archive) -> Checkpoint:
    """What numpy.savez or savez_compressed wrote; names keep their slashes. Objects are refused."""
    names = [name for name in archive.members if name.endswith(".npy")]
    check_count(len(names))
    found = {name.removesuffix(".npy"): _tensor(archive, name) for name in names}
    others = [name for name in archive.members if not name.endswith(".npy")]
    others += [name for name, tensor in found.items() if tensor is None]
    tensors = {name: tensor for name, tensor in found.items() if tensor is not None}
    for name in tensors:
        check_name(name)
    return Checkpoint(path, tensors, {}, others=tuple(others))


def _tensor(archive: Archive, name: str) -> LazyTensor | None:
    """The array, or None for one of texts."""
    header, start = _header(archive.head(name, MAX_HEADER_BYTES), name)
    # the header is Python's text of a dict; it is matched, never evaluated
    form = HEADER.fullmatch(header)
    if not form:
        raise CheckpointError(
            f"has the array {quoted(name)}, which holds no plain numbers in the form that numpy writes: "
            f"{quoted(header, 60)}; save it again with numpy.savez"
        )
    order, kind, size, by_columns, axes = form.groups()
    if kind in TEXT_KINDS:
        return None
    dtype = _dtype(name, order, kind, size)
    shape = tuple(int(n.strip(" L")) for n in axes.split(",") if n.strip())
    check_shape(shape, dtype.itemsize)
    nbytes = math.prod(shape) * dtype.itemsize
    found = archive.members[name].size
    if start + nbytes != found:
        raise CheckpointError(
            f"has {quoted(name)} in {found:,} bytes, where its header calls for {start + nbytes:,}"
        )
    strides = None
    if by_columns == "True":
        strides = tuple(math.prod(shape[:axis]) * dtype.itemsize for axis in range(len(shape)))
    return lazy(shape, dtype, lambda: archive.bytes_of(name, start, nbytes), strides)


def _header(data: bytes, name: str) -> tuple[str, int]:
    """The text of an array's header, and where its values start."""
    # magic, two bytes of version, then a length of two or of four bytes (numpy.lib.format)
    is_array = data.startswith(MAGIC) and len(data) > 12
    width = LENGTHS.get(data[6]) if is_array else None
    start = 8 + (width or 0)
    end = start + int.from_bytes(data[8:start], "little")
    if width is None or end > len(data):
        raise CheckpointError(
            f"has {quoted(name)}, which is no array that numpy wrote; the file is damaged or hostile"
        )
    return data[start:end].decode("latin-1"), end


def _dtype(name: str, order: str, kind: str, size: str) -> np.dtype:
    """The type of an array's numbers, by the letter and the bytes of numpy's name for it."""
    # numpy knows no bfloat16, and writes its two bytes as void
    if kind == "V" and size == "2":
        return BFLOAT16
    if kind not in TENSOR_KINDS:
        raise CheckpointError(
            f"has the array {quoted(name)} of type {kind}{size}, which holds no plain numbers; remove it"
        )
    if order == ">":
        raise CheckpointError(
            f"has the array {quoted(name)} in big-endian numbers; save it again with .astype('<{kind}{size}')"
        )
    try:
        return np.dtype(f"<{kind}{size}")
    except TypeError as error:
        raise CheckpointError(
            f"has the array {quoted(name)} of the unknown type {kind}{size}"
        ) from error
