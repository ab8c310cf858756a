"""What all readers share: what they hand out, and the checks and the mapping that each tensor goes through."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weights_conversion.errors import CheckpointError, quoted, shown
from weights_conversion.tensors import Index, LazyTensor

# EVA02-E-14-plus with its text tower has 1,230; with an average and two moments 4,900
MAX_TENSORS = 10_000
MAX_NAME = 512  # characters; the longest published names have about 100
MAX_TENSOR_BYTES = 1 << 48  # beyond any file, and far inside what numpy can address
MAX_MARKS = 200_000  # braces, brackets and commas of a header or index; 10,000 tensors of four axes have 110,000
FEW_BYTES = 16 << 10  # of a tensor: norms, biases and tokens
MAX_DIMENSIONS = 32  # what every numpy allows; weights have at most 6
STATE_DICT_ONLY = (
    "save only the weights, torch.save(model.state_dict(), path), or write them as safetensors"
)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file or folder, none of them read yet, and the file's own metadata.

    `wrapper` is what was taken off all names: a tensor's place in the file is `wrapper.name`. `others` are the entries
    that are no tensors of the chosen state dict, such as "optimizer", "epoch" and "args".
    """

    path: Path
    tensors: Mapping[str, LazyTensor]
    metadata: Mapping[str, str]
    wrapper: str = ""
    others: tuple[str, ...] = ()


def check_name(name: str) -> None:
    """Raises CheckpointError for a tensor's name that is endless or could not be written to another file."""
    if not 0 < len(name) <= MAX_NAME or "\0" in name or not _encodes(name):
        raise CheckpointError(
            f"has a tensor called {quoted(name)}, which is no name of at most {MAX_NAME} characters; "
            f"the file is damaged or hostile"
        )


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parsed(data: bytes) -> Any:
    """The JSON text as an object. Raises CheckpointError for what is none, for two entries of one name, of which one
    would be lost, and for a text that takes many times its own memory."""
    # a small text of brackets becomes millions of objects: counted before it is parsed
    marks = sum(data.count(mark) for mark in (b"{", b"[", b","))
    if marks > MAX_MARKS:
        raise CheckpointError(
            f"{marks:,} braces, brackets and commas, where {MAX_MARKS:,} are read at most"
        )
    try:
        return json.loads(data, object_pairs_hook=_unique)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"no JSON that can be read ({quoted(str(error))})") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise CheckpointError(f"two entries called {quoted(twice)}")
    return found


def check_shape(shape: tuple[int, ...], itemsize: int) -> None:
    """Raises CheckpointError for a shape that no array can have, an empty one included."""
    # Python's own numbers, which do not wrap around; an empty axis must not hide what the others multiply to
    nbytes = math.prod(max(1, n) for n in shape) * itemsize
    if len(shape) > MAX_DIMENSIONS or min(shape, default=0) < 0 or nbytes > MAX_TENSOR_BYTES:
        raise CheckpointError(
            f"has a tensor of the impossible shape {quoted(str(shape))}; the file is damaged or hostile"
        )


def check_count(tensors: int) -> None:
    """Raises CheckpointError for more tensors than any model has."""
    if tensors > MAX_TENSORS:
        raise CheckpointError(
            f"holds {tensors:,} tensors, more than the {MAX_TENSORS:,} that are read from one file"
        )


def map_bytes(path: Path, offset: int, nbytes: int) -> np.ndarray:
    """Those bytes of the file, mapped on their own: the pages go when the array does. A few are read, which takes a
    quarter of the time."""
    try:
        if nbytes <= FEW_BYTES:
            return _read(path, offset, nbytes)
        return np.asarray(np.memmap(path, np.uint8, "r", offset, (nbytes,)))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{shown(path)} can no longer be read as it was when opened: {error}; open it again"
        ) from error


def _read(path: Path, offset: int, nbytes: int) -> np.ndarray:
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        data = file.read(nbytes)
    if len(data) < nbytes:
        raise ValueError(f"{nbytes:,} bytes from {offset:,} on are not there")
    return np.frombuffer(data, np.uint8)


def lazy(
    shape: tuple[int, ...],
    dtype: np.dtype,
    data: Callable[[], np.ndarray],
    strides: tuple[int, ...] | None = None,
) -> LazyTensor:
    """The tensor whose bytes `data` maps each time that it is read; strides in bytes, None for C order."""

    def read(index: Index) -> np.ndarray:
        if 0 in shape:
            return np.empty(shape, dtype)[index]
        return np.asarray(np.ndarray(shape, dtype, data(), 0, strides)[index])

    return LazyTensor(shape, dtype, read)
