"""LazyTensors -> a safetensors file, tensor by tensor: only one piece is ever in memory."""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from weights_conversion.errors import CheckpointError, quoted
from weights_conversion.readers.safetensors import DTYPES
from weights_conversion.tensors import LazyTensor, read_ahead

NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_safetensors(
    path: str | Path, tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str] | None = None
) -> int:
    """Writes the tensors in the order given and returns the file's size in bytes.

    The file appears whole or not at all: it is written beside its place and moved there. Same input, same bytes.
    """
    path = Path(path)
    header = _header(tensors, metadata or {"format": "pt"})
    with whole(path, len(header) + sum(tensor.nbytes for tensor in tensors.values())) as file:
        file.write(header)
        # a tensor comes in pieces, which must add up to what the header has promised
        written = dict.fromkeys(tensors, 0)
        for name, piece in read_ahead(tensors):
            octets = piece.reshape(-1).view(np.uint8)
            written[name] += file.write(octets.data)
        for name, tensor in tensors.items():
            if written[name] != tensor.nbytes:
                raise CheckpointError(
                    f"{quoted(name)}: {written[name]:,} bytes came out, {tensor.nbytes:,} expected"
                )
    return path.stat().st_size


@contextmanager
def whole(path: Path, nbytes: int = 0) -> Iterator[BinaryIO]:
    """A file to write, which has its name and is on disk when the block ends, and is gone where the block fails.

    nbytes: how large it will be at least. Raises OSError, before the block, where the disk has less space.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < nbytes:
        reason = f"{os.strerror(errno.ENOSPC)}: {nbytes:,} bytes are needed, {free:,} are free"
        raise OSError(errno.ENOSPC, reason, str(path))
    # beside its place: a rename within one file system is all or nothing
    partial = path.with_name(path.name + ".part")
    try:
        with partial.open("wb") as file:
            yield file
            # the name must not be on disk before the content is
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _header(tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in NAMES:
            raise CheckpointError(f"{quoted(name)}: safetensors has no type for {tensor.dtype}")
        end = offset + tensor.nbytes
        entries[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data starts on a multiple of 8
    return struct.pack("<Q", len(text)) + text
