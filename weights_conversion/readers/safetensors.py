"""safetensors: the library validates the header; tensors are then mapped one at a time, so that nothing stays in
memory."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from weights_conversion.errors import CheckpointError
from weights_conversion.tensors import Index, LazyTensor

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
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size
        raise CheckpointError(
            f"{path} ({size:,} bytes) is not a whole safetensors file: {error}; fetch or copy it again"
        ) from error
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    metadata = header.pop("__metadata__", {})
    unknown = sorted({entry["dtype"] for entry in header.values()} - set(DTYPES))
    if unknown:
        raise CheckpointError(f"{path}: tensors of type {', '.join(unknown)} cannot be read; {', '.join(DTYPES)} can")
    return {name: _tensor(path, 8 + length, entry) for name, entry in header.items()}, metadata


def _tensor(path: Path, start: int, entry: dict[str, Any]) -> LazyTensor:
    shape, dtype = tuple(entry["shape"]), DTYPES[entry["dtype"]]
    offset = start + entry["data_offsets"][0]

    def read(index: Index) -> np.ndarray:
        if 0 in shape:
            return np.empty(shape, dtype)[index]
        # a map of its own for each read: the pages go when the array does
        nbytes = math.prod(shape) * dtype.itemsize
        return np.asarray(np.ndarray(shape, dtype, np.memmap(path, np.uint8, "r", offset, (nbytes,)))[index])

    return LazyTensor(shape, dtype, read)
