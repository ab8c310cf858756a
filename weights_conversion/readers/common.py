"""What all readers share: what they hand out, and the checks and the mapping that each tensor goes through."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weights_conversion.errors import CheckpointError
from weights_conversion.tensors import Index, LazyTensor

MAX_TENSORS = 50_000  # the largest published training states have about 10,000; more only costs time
MAX_TENSOR_BYTES = 1 << 48  # beyond any file, and far inside what numpy can address
MAX_DIMENSIONS = 32  # what every numpy allows; weights have at most 6
STATE_DICT_ONLY = "save only the weights, torch.save(model.state_dict(), path), or write them as safetensors"


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


def quoted(text: str, limit: int = 80) -> str:
    """The text in quotes, escaped where it would not print, and cut where it is long."""
    return ascii(text if len(text) <= limit else f"{text[:limit]}...")


def listed(names: Iterable[str], limit: int = 5) -> str:
    """The first few names in quotes."""
    names = list(names)
    return ", ".join(map(quoted, names[:limit])) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def check_name(name: str) -> None:
    """Raises CheckpointError for a tensor's name that could not be printed or written to another file."""
    if not name or "\0" in name or not _encodes(name):
        raise CheckpointError(f"has a tensor called {quoted(name)}, which is no name; the file is damaged or hostile")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_shape(shape: tuple[int, ...], itemsize: int) -> None:
    """Raises CheckpointError for a shape that no array can have, an empty one included."""
    nbytes = math.prod(max(1, n) for n in shape) * itemsize
    if len(shape) > MAX_DIMENSIONS or min(shape, default=0) < 0 or nbytes > MAX_TENSOR_BYTES:
        raise CheckpointError(
            f"has a tensor of the impossible shape {quoted(str(shape))}; the file is damaged or hostile"
        )


def check_count(tensors: int) -> None:
    """Raises CheckpointError for more tensors than any model has."""
    if tensors > MAX_TENSORS:
        raise CheckpointError(f"holds {tensors:,} tensors, more than the {MAX_TENSORS:,} that are read from one file")


def map_bytes(path: Path, offset: int, nbytes: int) -> np.ndarray:
    """Those bytes of the file, mapped on their own: the pages go when the array does."""
    try:
        return np.asarray(np.memmap(path, np.uint8, "r", offset, (nbytes,)))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can no longer be read as it was when opened: {error}; open it again") from error


def lazy(
    shape: tuple[int, ...], dtype: np.dtype, data: Callable[[], np.ndarray], strides: tuple[int, ...] | None = None
) -> LazyTensor:
    """The tensor whose bytes `data` maps each time that it is read; strides in bytes, None for C order."""

    def read(index: Index) -> np.ndarray:
        if 0 in shape:
            return np.empty(shape, dtype)[index]
        return np.asarray(np.ndarray(shape, dtype, data(), 0, strides)[index])

    return LazyTensor(shape, dtype, read)
