"""A tensor that is read when, and only where, it is needed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import ml_dtypes
import numpy as np

Index = tuple[slice, ...]
CHUNK_BYTES = 64 << 20
TILE = 256
EXPONENTS = {
    np.dtype(np.float16): np.uint16(0x7C00),
    np.dtype(ml_dtypes.bfloat16): np.uint16(0x7F80),
}


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

    def astype(self, dtype: np.dtype) -> LazyTensor:
        """The same numbers in another dtype; of a part no more is read than before."""
        return LazyTensor(
            self.shape, dtype, lambda index: self.read(index).astype(dtype, copy=False)
        )

    def pieces(self) -> Iterator[Index]:
        """The parts of the tensor in C order, along the first axis, of about CHUNK_BYTES each."""
        if not self.shape or self.nbytes <= CHUNK_BYTES:
            yield ()
            return
        # at least a row, however long it is
        rows = max(1, CHUNK_BYTES * self.shape[0] // self.nbytes)
        for start in range(0, self.shape[0], rows):
            yield (slice(start, min(start + rows, self.shape[0])),)


def read_ahead(tensors: Mapping[str, LazyTensor]) -> Iterator[tuple[str, np.ndarray]]:
    """Every piece of every tensor in order, with the tensor's name, read by a few threads; no more pieces than these
    are in memory."""
    workers = min(4, os.cpu_count() or 1)  # more do not read faster, and each holds a piece
    with ThreadPoolExecutor(workers) as pool:
        # as many pieces wait as there are threads, so a slow taker stops the reading
        waiting: deque[tuple[str, Future[np.ndarray]]] = deque()
        for name, tensor in tensors.items():
            for index in tensor.pieces():
                waiting.append((name, pool.submit(_copied, tensor, index)))
                if len(waiting) > workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _copied(tensor: LazyTensor, index: Index) -> np.ndarray:
    return np.ascontiguousarray(tensor.read(index), tensor.dtype)


def transfer(target: np.ndarray, source: np.ndarray) -> None:
    """target[...] = source, in tiles where source is transposed: four times as fast as numpy's own row by row walk."""
    for there, here in _tiles(target, source):
        there[...] = here


def transfer_finite(target: np.ndarray, source: np.ndarray) -> bool:
    """The same, and whether all that arrived is finite: a number can be too large for the target's type. A tile is
    looked at while it is in the processor's cache, which costs a twentieth of copying it."""
    with np.errstate(over="ignore", invalid="ignore"):
        for there, here in _tiles(target, source):
            there[...] = here
            if not finite(there):
                return False
    return True


def finite(array: np.ndarray) -> bool:
    """Whether no value is infinite or not a number.

    Floats of two bytes, which numpy has to widen first, are asked for their exponent, eight times as fast: all ones
    says that there is no number. Others are added up, half the work of asking each: a sum is finite only if all are,
    though it may be too large where they are.
    """
    if array.dtype in EXPONENTS:
        ones = EXPONENTS[array.dtype]
        return bool((array.view(np.uint16) & ones).max(initial=0) < ones)
    # einsum adds up without a temporary array; the answer no is checked value by value
    if array.ndim == 2 and np.isfinite(np.einsum("ij->", array)):
        return True
    return bool(np.isfinite(array).all())


def _tiles(target: np.ndarray, source: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    # tiles of a transposed matrix fit into the cache from both sides
    if source.ndim != 2 or source.flags.c_contiguous:
        yield target, source
        return
    for i in range(0, source.shape[0], TILE):
        for j in range(0, source.shape[1], TILE):
            part = slice(i, i + TILE), slice(j, j + TILE)
            yield target[part], source[part]


def in_memory(array: np.ndarray) -> LazyTensor:
    """An array that is there already."""
    array = np.asarray(array)
    return LazyTensor(array.shape, array.dtype, lambda index: np.asarray(array[index]))


def in_memory_tree(arrays: Mapping[str, np.ndarray]) -> dict[str, LazyTensor]:
    return {key: in_memory(array) for key, array in arrays.items()}


def outline(shape: tuple[int, ...]) -> np.ndarray:
    """An array of that shape which occupies one byte: what a transform does to it is what it does to shapes."""
    return np.broadcast_to(np.zeros((), np.uint8), shape)
