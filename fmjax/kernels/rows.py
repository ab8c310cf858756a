"""Rows of tokens that programs in Pallas hold whole, and the normalisation of them in float32, forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array

# of the backward pass: a few for each processor of a large GPU, so that their sums of rows stay small
PROGRAMS = 1056
WIDE = 2048  # numbers of a row that four warps hold in registers


class Rows(NamedTuple):
    """What kernels know of their arrays while they are traced."""

    total: int
    width: int
    eps: float
    centred: bool  # less the mean: of layer and not of RMS normalisation
    interpret: bool = False  # computed by XLA, step by step, on any device

    @property
    def block(self) -> int:
        """Numbers that a program holds of a row: Triton's arrays have powers of two."""
        return pl.next_power_of_2(self.width)

    @property
    def columns(self) -> Array:
        return jnp.arange(self.block)

    @property
    def real(self) -> Array:
        """Which of the columns there are."""
        return self.columns < self.width


def vector(rows: Rows, ref: Any) -> Array:
    """Numbers of the columns, in float32; 0 beyond the width."""
    found = triton.load(ref.at[rows.columns], mask=rows.real, other=0.0)
    return found.astype(jnp.float32)


def row(rows: Rows, ref: Any, index: Any) -> Array:
    """A row of an array in float32; 0 beyond the width, and where there is none."""
    inside = rows.real & (index < rows.total)
    return triton.load(ref.at[index, rows.columns], mask=inside, other=0.0).astype(jnp.float32)


def write(rows: Rows, ref: Any, index: Any, numbers: Array) -> None:
    """A row of an array that may be wider, whose other numbers are written too."""
    inside = (rows.columns < ref.shape[-1]) & (index < rows.total)
    triton.store(ref.at[index, rows.columns], numbers.astype(ref.dtype), mask=inside)


def centred(rows: Rows, x: Array) -> tuple[Array, Array]:
    """Rows in float32, less their means, and the inverse of their deviations; what is beyond the width stays 0."""
    x = x.astype(jnp.float32)
    if rows.centred:
        x = jnp.where(rows.real, x - mean(rows, x), 0.0)
    return x, jax.lax.rsqrt(mean(rows, x * x) + rows.eps)


def mean(rows: Rows, x: Array) -> Array:
    """Of each row [... D] -> [... 1]; x is 0 beyond the width."""
    return x.sum(-1, keepdims=True) / rows.width


def before_norm(rows: Rows, weighed: Array, unit: Array, inverse: Array) -> Array:
    """The gradient of what was normalised: from the gradient that its scale has weighed, what came out of it before the
    scale, and the inverse of its deviation. Beyond the width it is not 0."""
    # a row that is normalised does not change with its length nor, where it is centred, with its mean
    change = weighed - unit * mean(rows, weighed * unit)
    if rows.centred:
        change = change - mean(rows, weighed)
    return change * inverse


def write_sums(rows: Rows, ref: Any, program: Any, totals: tuple[Array, ...]) -> None:
    """What a program has added up, into an array of sums, programs and columns."""
    for index, total in enumerate(totals):
        triton.store(ref.at[index, program, rows.columns], total, mask=rows.real)


def sums(rows: Rows, count: int) -> tuple[Array, ...]:
    """Where a program adds up over its rows."""
    return (jnp.zeros(rows.block, jnp.float32),) * count
