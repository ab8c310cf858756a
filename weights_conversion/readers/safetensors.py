"""safetensors: the library validates the header; tensors are then mapped one at a time, so that nothing stays in
memory."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from weights_conversion.errors import CheckpointError, listed, quoted
from weights_conversion.readers.common import (
    check_count,
    check_name,
    check_shape,
    lazy,
    map_bytes,
    parsed,
)
from weights_conversion.tensors import LazyTensor

MAX_HEADER_BYTES = 8 << 20  # 10,000 tensors take 1.3 MB; some metadata hold pictures
FIELDS = {"dtype", "shape", "data_offsets"}

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}


def read_safetensors(path: Path) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """Name -> tensor, and the file's metadata. Raises CheckpointError for a damaged or truncated file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(min(length, MAX_HEADER_BYTES))
        size = file.seek(0, os.SEEK_END)
    # asked before the library reads it, which would parse a header of any length
    if MAX_HEADER_BYTES < length <= size:
        raise CheckpointError(
            f"has a header of {length:,} bytes; at most {MAX_HEADER_BYTES:,} are read"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            check_count(len(file.keys()))
    except (SafetensorError, OSError) as error:
        reason = quoted(str(error), 160).strip("'")
        raise CheckpointError(
            f"({size:,} bytes) is not a whole safetensors file: {reason}; fetch or copy it again"
        ) from error
    # parsed a second time here, as the library does not tell where a tensor lies
    header = _header(text)
    metadata = header.pop("__metadata__", None) or {}
    unknown = sorted({entry["dtype"] for entry in header.values()} - set(DTYPES))
    if unknown:
        raise CheckpointError(
            f"has tensors of type {', '.join(unknown)}, which cannot be read; {', '.join(DTYPES)} can"
        )
    start = 8 + length  # offsets count from the end of the header
    tensors = {name: _tensor(path, start, name, entry) for name, entry in header.items()}
    return tensors, metadata


def _header(text: bytes) -> dict[str, Any]:
    """The header as the library read it. It takes the last of two equal names without a word, and overlooks fields that
    it does not know, however much there is in them."""
    try:
        header = parsed(text)
    except CheckpointError as error:
        raise CheckpointError(f"has a header with {error}; write it again") from error
    for name, entry in header.items():
        # what the library overlooks would be lost when the file is converted
        if name != "__metadata__" and entry.keys() != FIELDS:
            more = listed(sorted(entry.keys() - FIELDS))
            raise CheckpointError(
                f"says of {quoted(name)} what safetensors does not have: {more}; write it again"
            )
    return header


def _tensor(path: Path, start: int, name: str, entry: dict[str, Any]) -> LazyTensor:
    """One tensor, mapped when it is read. start: where the file's tensors begin."""
    shape, dtype = tuple(entry["shape"]), DTYPES[entry["dtype"]]
    check_name(name)
    check_shape(shape, dtype.itemsize)
    offset = start + entry["data_offsets"][0]
    nbytes = math.prod(shape) * dtype.itemsize
    return lazy(shape, dtype, lambda: map_bytes(path, offset, nbytes))
