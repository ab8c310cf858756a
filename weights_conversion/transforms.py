"""What happens to the numbers between a PyTorch checkpoint and an fmjax parameter: (do, undo) pairs, views where
possible."""

from __future__ import annotations

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


def _each(name: str, do: Callable[[np.ndarray], np.ndarray], undo: Callable[[np.ndarray], np.ndarray]) -> Transform:
    return Transform(name, lambda xs: tuple(do(x) for x in xs), lambda ys: tuple(undo(y) for y in ys))


def _conv(weight: np.ndarray) -> np.ndarray:  # D C P P -> (P P C) D
    return weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])


def _unconv(kernel: np.ndarray) -> np.ndarray:
    patch = math.isqrt(kernel.shape[0] // 3)
    return kernel.reshape(patch, patch, 3, -1).transpose(3, 2, 0, 1)


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
