"""The activation of an MLP with the biases before it in one pass, forward and backward: kernels in Pallas for Triton.

XLA's take a large GPU up to twice as long as its memory does: erf in float32 is a quotient of polynomials, and the
column sums that are the gradient of a bias slow down what computes their numbers. Here erf costs one exponential and
one reciprocal (formulas.py), and a program sums up over its own rows. What is kept are the products alone.
"""

from __future__ import annotations

import math
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import Mesh
from jaxtyping import Array, Float

from fmjax.kernels import formulas, pallas_gate
from fmjax.kernels.activation import Activate, Normed, plain
from fmjax.kernels.formulas import FORMULAS, Fast
from fmjax.kernels.platform import on_cuda

# Of the tiles tried on an H200 (8 forward, 14 backward, 32896 x 4096 and 25216 x 3072) these are fastest, by a few %
FORWARD, FORWARD_TILES = (4, 512), 2  # rows and columns of a tile, and tiles of a program
BACKWARD = (8, 256)
# of the backward pass: eight for each processor of a large GPU, so that their sums of rows stay few
PROGRAMS = 1056
WARPS = 4

Arrays = tuple[Array, ...]


class Products(NamedTuple):
    """What both kernels know of their arrays while they are traced."""

    activation: str
    total: int  # rows
    width: int
    interpret: bool = False  # computed by XLA, step by step, on any device

    @property
    def fast(self) -> Fast:
        return formulas.fast(interpret=self.interpret)


class Columns(NamedTuple):
    """Those of a program, and which of them there are."""

    numbers: Array
    real: Array


@cache
def over(mesh: Mesh | None) -> Activate:
    """`activation.plain` in bfloat16 or float16, computed in float32; the products are all that is kept of it. On other
    devices than CUDA's it is that. mesh: over whose devices it is divided."""

    def activated(
        activation: str,
        products: tuple[Float[Array, "*B F"], ...],
        biases: tuple[Float[Array, " F"] | None, ...],
        norm: Normed | None = None,
    ) -> Float[Array, "*B F"]:
        # the kernel has a bias for every product, so that there is one of it
        given = tuple(map(_given, products, biases))
        if norm is not None:
            return pallas_gate.normed(mesh, activation, products, given, norm)
        return on_cuda(_values, _gradients, plain, mesh)(activation, products, given)

    return activated


def _given(product: Array, bias: Array | None) -> Array:
    return jnp.zeros(product.shape[-1:], jnp.float32) if bias is None else bias


def _values(activation: str, products: Arrays, biases: Arrays, *, interpret: bool = False) -> Array:
    first = products[0]
    known = Products(activation, math.prod(first.shape[:-1]), first.shape[-1], interpret)
    rows, columns = FORWARD
    # without block specs, each program is given whole arrays and takes its tiles itself
    call = pl.pallas_call(
        partial(_apply, known),
        out_shape=jax.ShapeDtypeStruct((known.total, known.width), first.dtype),
        # programs that follow each other read rows that do
        grid=(pl.cdiv(known.width, columns), pl.cdiv(known.total, rows * FORWARD_TILES)),
        compiler_params=triton.CompilerParams(num_warps=WARPS),
        interpret=interpret,
        name=activation,
    )
    flat = [x.reshape(known.total, known.width) for x in products]
    return call(*flat, *biases).reshape(first.shape)


def _apply(known: Products, *refs: Any) -> None:
    """A few tiles, all of them read before the first is computed: so memory is never waited for in turn."""
    *given, y_ref = refs
    count = len(given) // 2
    columns, first = _columns(known, FORWARD[1]), pl.program_id(1) * FORWARD_TILES
    biases = [_vector(ref, columns) for ref in given[count:]]
    tiles = [_tile(known, FORWARD[0], first + n, columns) for n in range(FORWARD_TILES)]
    read = [[_read(ref, *tile) for ref in given[:count]] for tile in tiles]
    for (at, inside), products in zip(tiles, read, strict=True):
        biased = [x + bias for x, bias in zip(products, biases, strict=True)]
        y = FORMULAS[known.activation].value(known.fast, *biased)
        triton.store(y_ref.at[at], y.astype(y_ref.dtype), mask=inside)


def _gradients(
    activation: str, products: Arrays, biases: Arrays, gradient: Array, *, interpret: bool = False
) -> tuple[Arrays, Arrays]:
    """Of the products, and of their biases."""
    shape, count = gradient.shape, len(products)
    known = Products(activation, math.prod(shape[:-1]), shape[-1], interpret)
    rows, columns = BACKWARD
    across = pl.cdiv(known.width, columns)
    # each program writes sums of its own, which are few: programs that add to one place would wait for each other
    groups = min(pl.cdiv(PROGRAMS, across), pl.cdiv(known.total, rows))
    flat = [x.reshape(known.total, known.width) for x in (*products, gradient)]
    like = jax.ShapeDtypeStruct(flat[0].shape, gradient.dtype)
    sums = jax.ShapeDtypeStruct((groups, known.width), jnp.float32)
    call = pl.pallas_call(
        partial(_differentiate, known, groups),
        out_shape=(like,) * count + (sums,) * count,
        grid=(across, groups),
        compiler_params=triton.CompilerParams(num_warps=WARPS),
        interpret=interpret,
        name=f"{activation}_gradients",
    )
    found = call(*flat, *biases)
    of_products = tuple(x.reshape(shape) for x in found[:count])
    return of_products, tuple(each.sum(0) for each in found[count:])


def _differentiate(known: Products, groups: int, *refs: Any) -> None:
    """Each of so many tiles, one below the other, and the sums over their rows."""
    count = (len(refs) - 1) // 4
    read, vectors, dx_refs, sum_refs = _parted(refs, count + 1, count, count, count)
    group = pl.program_id(1)
    columns = _columns(known, BACKWARD[1])
    biases = [_vector(ref, columns) for ref in vectors]

    def turn(index: Any, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        at, inside = _tile(known, BACKWARD[0], group + index * groups, columns)
        *products, dy = (_read(ref, at, inside) for ref in read)
        biased = [x + bias for x, bias in zip(products, biases, strict=True)]
        slopes = FORMULAS[known.activation].slopes(known.fast, *biased)
        gradients = [dy * slope for slope in slopes]
        for ref, dx in zip(dx_refs, gradients, strict=True):
            triton.store(ref.at[at], dx.astype(ref.dtype), mask=inside)
        # of what is outside dy is 0
        return tuple(total + dx for total, dx in zip(sums, gradients, strict=True))

    zeros = (jnp.zeros(BACKWARD, jnp.float32),) * count
    turns = pl.cdiv(known.total, BACKWARD[0] * groups)
    totals = jax.lax.fori_loop(0, turns, turn, zeros)
    for ref, total in zip(sum_refs, totals, strict=True):
        triton.store(ref.at[group, columns.numbers], total.sum(0), mask=columns.real)


def _parted(refs: tuple[Any, ...], *counts: int) -> list[tuple[Any, ...]]:
    """So many of them, then so many."""
    parts, start = [], 0
    for count in counts:
        parts.append(refs[start : start + count])
        start += count
    return parts


def _columns(known: Products, count: int) -> Columns:
    index = pl.program_id(0) * count + jnp.arange(count)
    return Columns(index, index < known.width)


def _tile(known: Products, height: int, down: Any, columns: Columns) -> tuple[Any, Array]:
    """Where the tile so many tiles down lies, and which of its numbers there are."""
    rows = down * height + jnp.arange(height)
    inside = (rows < known.total)[:, None] & columns.real[None, :]
    return (rows[:, None], columns.numbers[None, :]), inside


def _read(ref: Any, at: Any, inside: Array) -> Array:
    return triton.load(ref.at[at], mask=inside, other=0.0).astype(jnp.float32)


def _vector(ref: Any, columns: Columns) -> Array:
    return _read(ref, columns.numbers, columns.real)[None, :]
