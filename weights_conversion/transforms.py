"""What happens to the numbers between a PyTorch checkpoint and an fmjax parameter: (do, undo) pairs, views where
possible."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Arrays = tuple[np.ndarray, ...]
OfOne = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Transform:
    """`do` takes a rule's torch tensors to its fmjax arrays, `undo` takes them back."""

    name: str
    do: Callable[[Arrays], Arrays]
    undo: Callable[[Arrays], Arrays]
    lossy: str = ""  # why undo(do(x)) is x but do(undo(y)) may not be y; "" where both hold


@dataclass(frozen=True)
class HeadTransform:
    """A transform that needs to know how many attention heads there are."""

    name: str
    for_heads: Callable[[int], Transform]


@dataclass(frozen=True)
class ShapedTransform:
    """A transform that needs to know the shapes of its fmjax arrays."""

    name: str
    for_shapes: Callable[[tuple[tuple[int, ...], ...]], Transform]


def _each(name: str, do: OfOne, undo: OfOne) -> Transform:
    """A transform that treats every tensor of a rule alike."""
    return Transform(
        name, lambda xs: tuple(do(x) for x in xs), lambda ys: tuple(undo(y) for y in ys)
    )


def _conv(weight: np.ndarray) -> np.ndarray:  # D C P P -> (P P C) D
    return weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])


def _unconv(kernel: np.ndarray) -> np.ndarray:  # (P P C) D -> D C P P
    patch = math.isqrt(kernel.shape[0] // 3)
    return kernel.reshape(patch, patch, 3, -1).transpose(3, 2, 0, 1)


def _hwio(kernel: np.ndarray) -> np.ndarray:  # P P C D -> (P P C) D
    return kernel.reshape(-1, kernel.shape[-1])


def _unhwio(kernel: np.ndarray) -> np.ndarray:  # (P P C) D -> P P C D
    patch = math.isqrt(kernel.shape[0] // 3)
    return kernel.reshape(patch, patch, 3, -1)


def _patch_linear(weight: np.ndarray) -> np.ndarray:  # D (C P P) -> (P P C) D
    patch = math.isqrt(weight.shape[1] // 3)
    return _conv(weight.reshape(-1, 3, patch, patch))


def _unpatch_linear(kernel: np.ndarray) -> np.ndarray:  # (P P C) D -> D (C P P)
    weight = _unconv(kernel)
    return weight.reshape(weight.shape[0], -1)


def _fold(tensors: Arrays) -> Arrays:
    cls, table = tensors  # 1 1 D, 1 N D
    # the sum is kept as the class token, so its row of the table is zero
    positions = table[0]
    return cls[0, 0], np.concatenate([np.zeros_like(positions[:1]), positions])


def _unfold(arrays: Arrays) -> Arrays:
    cls, table = arrays  # D, (1+N) D
    return (cls + table[0])[None, None], table[None, 1:]


def _split(parts: int) -> Transform:
    """One vector <-> several of one length, which it holds one behind the other."""

    def do(tensors: Arrays) -> Arrays:
        return tuple(np.split(tensors[0], parts))

    def undo(arrays: Arrays) -> Arrays:
        return (np.concatenate(arrays),)

    return Transform(f"SPLIT_{parts}", do, undo)


def _linear_split(parts: int) -> Transform:
    """One (out, in) weight <-> several (in, out) kernels, side by side in its rows."""

    def do(tensors: Arrays) -> Arrays:
        return tuple(weight.T for weight in np.split(tensors[0], parts))

    def undo(arrays: Arrays) -> Arrays:
        return (np.concatenate([kernel.T for kernel in arrays]),)

    return Transform(f"LINEAR_SPLIT_{parts}", do, undo)


def _without_k(tensors: Arrays) -> Arrays:
    q, _, v = np.split(tensors[0], 3)
    return q, v


def _with_zero_k(arrays: Arrays) -> Arrays:
    q, v = arrays
    return (np.concatenate([q, np.zeros_like(q), v]),)


def rows(*counts: int) -> Transform:
    """A table of vectors <-> its first rows, the next ones, ...; a single row becomes a vector."""
    ends = list(itertools.accumulate(counts))

    def do(tensors: Arrays) -> Arrays:
        parts = np.split(tensors[0], ends[:-1])
        return tuple(_from_rows(part, n) for part, n in zip(parts, counts, strict=True))

    def undo(arrays: Arrays) -> Arrays:
        parts = [_as_rows(y, n) for y, n in zip(arrays, counts, strict=True)]
        return (np.concatenate(parts),)

    return Transform(f"ROWS_{counts}", do, undo)


def _from_rows(part: np.ndarray, count: int) -> np.ndarray:
    return part[0] if count == 1 else part


def _as_rows(array: np.ndarray, count: int) -> np.ndarray:
    return array[None] if count == 1 else array


def _rows_for(shapes: tuple[tuple[int, ...], ...]) -> Transform:
    """The rows that arrays of these shapes take up in one table: a vector takes one."""
    return rows(*map(_row_count, shapes))


def _row_count(shape: tuple[int, ...]) -> int:
    return 1 if len(shape) == 1 else shape[0]


def _joined(name: str, axis: int) -> HeadTransform:
    """Heads and their channels as two axes <-> as one, which is then at `axis` (from the end)."""

    def join(x: np.ndarray) -> np.ndarray:
        at = x.ndim + axis - 1
        before, after = x.shape[:at], x.shape[at + 2 :]
        return x.reshape(*before, -1, *after)

    def split(y: np.ndarray, heads: int) -> np.ndarray:
        at = y.ndim + axis
        before, after = y.shape[:at], y.shape[at + 1 :]
        return y.reshape(*before, heads, -1, *after)

    return HeadTransform(
        name, lambda heads: _each(f"{name}_{heads}", join, lambda y: split(y, heads))
    )


IDENTITY = _each("IDENTITY", lambda x: x, lambda y: y)
IN_OUT = _each("IN_OUT", lambda x: x, lambda y: y)  # a kernel that is stored (in, out) already
LINEAR = _each("LINEAR", lambda x: x.T, lambda y: y.T)
CONV = _each("CONV", _conv, _unconv)
LEAD_1 = _each("LEAD_1", lambda x: x[0], lambda y: y[None])
LEAD_2 = _each("LEAD_2", lambda x: x[0, 0], lambda y: y[None, None])
SPLIT = {2: _split(2), 3: _split(3)}
LINEAR_SPLIT = {2: _linear_split(2), 3: _linear_split(3)}
FOLDED_CLASS = Transform(
    "FOLDED_CLASS",
    _fold,
    _unfold,
    lossy="the class token and its position are stored as one sum; they come back apart as (sum, 0)",
)
HWIO = _each("HWIO", _hwio, _unhwio)  # a convolution in JAX's layout
PATCH_LINEAR = _each("PATCH_LINEAR", _patch_linear, _unpatch_linear)
MASKED_K = Transform(
    "MASKED_K",
    _without_k,
    _with_zero_k,
    lossy="the middle third, the bias of k, is masked in the original; it comes back as zeros",
)
ROWS = ShapedTransform("ROWS", _rows_for)
HEADS_OUT = _joined("HEADS_OUT", -1)  # [..., I, N, K] <-> [..., I, N K], and biases
HEADS_IN = _joined("HEADS_IN", -2)  # [..., N, K, O] <-> [..., N K, O]
