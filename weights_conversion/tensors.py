"""A tensor that is read when, and only where, it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

Index = tuple[slice, ...]
CHUNK_BYTES = 64 << 20
TILE = 256


@dataclass(frozen=True)
class LazyTensor:
    """Shape and dtype of a tensor, and how to read a part of it: `read(index)` with one slice an axis, `read(())` for
    all."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[Index], np.ndarray]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def chunks(self) -> Iterator[np.ndarray]:
        """The tensor in C order, in pieces along the first axis of about CHUNK_BYTES."""
        if not self.shape or self.nbytes <= CHUNK_BYTES:
            yield self.read(())
            return
        rows = max(1, CHUNK_BYTES * self.shape[0] // self.nbytes)
        for start in range(0, self.shape[0], rows):
            yield self.read((slice(start, min(start + rows, self.shape[0])),))


def transfer(target: np.ndarray, source: np.ndarray) -> None:
    """target[...] = source, in tiles where source is transposed: four times as fast as numpy's own row by row walk."""
    if source.ndim != 2 or source.flags.c_contiguous:
        target[...] = source
        return
    for i in range(0, source.shape[0], TILE):
        for j in range(0, source.shape[1], TILE):
            target[i : i + TILE, j : j + TILE] = source[i : i + TILE, j : j + TILE]


def in_memory(array: np.ndarray) -> LazyTensor:
    """An array that is there already."""
    array = np.asarray(array)
    return LazyTensor(array.shape, array.dtype, lambda index: np.asarray(array[index]))


def in_memory_tree(arrays: Mapping[str, np.ndarray]) -> dict[str, LazyTensor]:
    return {key: in_memory(array) for key, array in arrays.items()}


def outline(shape: tuple[int, ...]) -> np.ndarray:
    """An array of that shape which occupies one byte: what a transform does to it is what it does to shapes."""
    return np.broadcast_to(np.zeros((), np.uint8), shape)
