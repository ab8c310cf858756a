"""What happens to the numbers between a PyTorch checkpoint and an fmjax parameter: (do, undo) pairs, views where
possible."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Arrays = tuple[np.ndarray, ...]


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


def _each(name: str, do: Callable[[np.ndarray], np.ndarray], undo: Callable[[np.ndarray], np.ndarray]) -> Transform:
    return Transform(name, lambda xs: tuple(do(x) for x in xs), lambda ys: tuple(undo(y) for y in ys))


def _conv(weight: np.ndarray) -> np.ndarray:  # D C P P -> (P P C) D
    return weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])


def _unconv(kernel: np.ndarray) -> np.ndarray:
    patch = math.isqrt(kernel.shape[0] // 3)
    return kernel.reshape(patch, patch, 3, -1).transpose(3, 2, 0, 1)


def _hwio(kernel: np.ndarray) -> np.ndarray:  # P P C D -> (P P C) D
    return kernel.reshape(-1, kernel.shape[-1])


def _unhwio(kernel: np.ndarray) -> np.ndarray:
    patch = math.isqrt(kernel.shape[0] // 3)
    return kernel.reshape(patch, patch, 3, -1)


def _patch_linear(weight: np.ndarray) -> np.ndarray:  # D (C P P) -> (P P C) D
    patch = math.isqrt(weight.shape[1] // 3)
    return _conv(weight.reshape(-1, 3, patch, patch))


def _unpatch_linear(kernel: np.ndarray) -> np.ndarray:
    weight = _unconv(kernel)
    return weight.reshape(weight.shape[0], -1)


def _fold(tensors: Arrays) -> Arrays:
    cls, table = tensors  # 1 1 D, 1 N D
    return cls[0, 0], np.concatenate([np.zeros_like(table[0, :1]), table[0]])


def _unfold(arrays: Arrays) -> Arrays:
    cls, table = arrays  # D, (1+N) D
    return (cls + table[0])[None, None], table[None, 1:]


IDENTITY = _each("IDENTITY", lambda x: x, lambda y: y)
IN_OUT = _each("IN_OUT", lambda x: x, lambda y: y)  # a kernel that is stored (in, out) already
LINEAR = _each("LINEAR", lambda x: x.T, lambda y: y.T)
CONV = _each("CONV", _conv, _unconv)
LEAD_1 = _each("LEAD_1", lambda x: x[0], lambda y: y[None])
LEAD_2 = _each("LEAD_2", lambda x: x[0, 0], lambda y: y[None, None])
SPLIT = {
    n: Transform(f"SPLIT_{n}", lambda xs, n=n: tuple(np.split(xs[0], n)), lambda ys: (np.concatenate(ys),))
    for n in (2, 3)
}
LINEAR_SPLIT = {
    n: Transform(
        f"LINEAR_SPLIT_{n}",
        lambda xs, n=n: tuple(x.T for x in np.split(xs[0], n)),
        lambda ys: (np.concatenate([y.T for y in ys]),),
    )
    for n in (2, 3)
}
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
    lambda xs: tuple(np.split(xs[0], 3)[::2]),
    lambda ys: (np.concatenate([ys[0], np.zeros_like(ys[0]), ys[1]]),),
    lossy="the middle third, the bias of k, is masked in the original; it comes back as zeros",
)


def rows(*counts: int) -> Transform:
    """A table of vectors <-> its first rows, the next ones, ...; a single row becomes a vector."""
    ends = list(itertools.accumulate(counts))

    def do(xs: Arrays) -> Arrays:
        parts = np.split(xs[0], ends[:-1])
        return tuple(part[0] if n == 1 else part for part, n in zip(parts, counts, strict=True))

    def undo(ys: Arrays) -> Arrays:
        return (np.concatenate([y[None] if n == 1 else y for y, n in zip(ys, counts, strict=True)]),)

    return Transform(f"ROWS_{counts}", do, undo)


ROWS = ShapedTransform("ROWS", lambda shapes: rows(*(1 if len(shape) == 1 else shape[0] for shape in shapes)))


def _joined(name: str, axis: int) -> HeadTransform:
    """Heads and their channels as two axes <-> as one, which is then at `axis` (from the end)."""

    def join(x: np.ndarray) -> np.ndarray:
        at = x.ndim + axis - 1
        return x.reshape(*x.shape[:at], -1, *x.shape[at + 2 :])

    def split(y: np.ndarray, heads: int) -> np.ndarray:
        at = y.ndim + axis
        return y.reshape(*y.shape[:at], heads, -1, *y.shape[at + 1 :])

    return HeadTransform(name, lambda heads: _each(f"{name}_{heads}", join, lambda y: split(y, heads)))


HEADS_OUT = _joined("HEADS_OUT", -1)  # [..., I, N, K] <-> [..., I, N K], and biases
HEADS_IN = _joined("HEADS_IN", -2)  # [..., N, K, O] <-> [..., N K, O]
