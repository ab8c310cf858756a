"""Layer and RMS normalisation in one pass over the tokens, forward and backward: kernels in Pallas for Triton.

On the way back XLA goes over them several times: for the statistics, for the gradient of the tokens, for products in
float32 that it writes, and for the sums of these that are the gradients of scale and bias. Here a program holds a row
while all of that is computed, sums up over its own rows, and adds the gradient that came past the norm.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from fmjax.kernels import xla

FORWARD_ROWS = 4  # that a program of the forward pass normalises
# of the backward pass: a few for each processor of a large GPU, so that their sums of rows stay small
PROGRAMS = 1056
WIDE = 2048  # numbers of a row that four warps hold in registers


class Rows(NamedTuple):
    """What both kernels know of their arrays while they are traced."""

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


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def forked(
    x: Float[Array, "*B D"], scale: Float[Array, " D"], bias: Float[Array, " D"] | None, eps: float
) -> tuple[Float[Array, "*B D"], Float[Array, "*B D"]]:
    """`xla.forked` in bfloat16 or float16; x is all that is kept of it. On other devices than CUDA's it is that."""
    return x, _platform(_values, _plain_values, eps, bias)(x, scale, bias)


def _forward(x: Array, scale: Array, bias: Array | None, eps: float) -> Any:
    return forked(x, scale, bias, eps), (x, scale, bias)


def _backward(eps: float, kept: Any, gradients: tuple[Array, Array]) -> Any:
    *_, bias = kept
    return _platform(_gradients, _plain_gradients, eps, bias)(*kept, *gradients)


forked.defvjp(_forward, _backward)


def _platform(kernel: Any, plain: Any, eps: float, bias: Array | None) -> Any:
    """A function that is the one where a program is made for CUDA, and the other elsewhere."""

    def lowered(x: Array, *others: Any) -> Any:
        rows = Rows(math.prod(x.shape[:-1]), x.shape[-1], eps, bias is not None)
        cuda, default = partial(kernel, rows), partial(plain, eps)
        return jax.lax.platform_dependent(x, *others, cuda=cuda, default=default)

    return lowered


def _plain(eps: float, x: Array, scale: Array, bias: Array | None) -> tuple[Array, Array]:
    return xla.forked(x, scale, bias, eps)


def _plain_values(eps: float, x: Array, scale: Array, bias: Array | None) -> Array:
    return _plain(eps, x, scale, bias)[1]


def _plain_gradients(
    eps: float, x: Array, scale: Array, bias: Array | None, past: Array, gradient: Array
) -> Any:
    back = jax.vjp(partial(_plain, eps), x, scale, bias)[1]
    return back((past, gradient))


def _values(rows: Rows, x: Array, scale: Array, bias: Array | None) -> Array:
    vectors = [vector for vector in (scale, bias) if vector is not None]
    # without block specs, each program is given whole arrays and takes its rows itself
    call = pl.pallas_call(
        partial(_normalise, rows),
        out_shape=jax.ShapeDtypeStruct((rows.total, rows.width), x.dtype),
        grid=(math.ceil(rows.total / FORWARD_ROWS),),
        compiler_params=_warps(rows),
        interpret=rows.interpret,
        name="norm",
    )
    return call(x.reshape(rows.total, rows.width), *vectors).reshape(x.shape)


def _normalise(rows: Rows, x_ref: Any, *refs: Any) -> None:
    """A few rows, side by side."""
    *vectors, y_ref = refs
    row = pl.program_id(0) * FORWARD_ROWS + jnp.arange(FORWARD_ROWS)
    real = rows.columns < rows.width
    inside = (row < rows.total)[:, None] & real[None, :]
    at = (row[:, None], rows.columns[None, :])
    x, inverse = _centred(rows, triton.load(x_ref.at[at], mask=inside, other=0.0))
    scale, *bias = (_vector(rows, ref) for ref in vectors)
    y = sum(bias, x * inverse * scale)
    triton.store(y_ref.at[at], y.astype(y_ref.dtype), mask=inside)


def _centred(rows: Rows, x: Array) -> tuple[Array, Array]:
    """Rows in float32, less their means, and the inverse of their deviations; what is beyond the width stays 0."""
    x = x.astype(jnp.float32)
    if rows.centred:
        x = jnp.where(rows.columns < rows.width, x - _mean(rows, x), 0.0)
    return x, jax.lax.rsqrt(_mean(rows, x * x) + rows.eps)


def _mean(rows: Rows, x: Array) -> Array:
    return x.sum(-1, keepdims=True) / rows.width


def _vector(rows: Rows, ref: Any) -> Array:
    found = triton.load(ref.at[rows.columns], mask=rows.columns < rows.width, other=0.0)
    return found.astype(jnp.float32)


def _gradients(
    rows: Rows, x: Array, scale: Array, bias: Array | None, past: Array, gradient: Array
) -> tuple[Array, Array, Array | None]:
    """Of x, with what came past the norm; of scale; of bias."""
    # each program writes sums of its own, which are few: programs that add to one place would wait for each other
    programs = min(PROGRAMS, rows.total)
    sums = jax.ShapeDtypeStruct((programs, rows.width), jnp.float32)
    flat = [array.reshape(rows.total, rows.width) for array in (x, gradient, past)]
    call = pl.pallas_call(
        partial(_differentiate, rows, programs),
        out_shape=(jax.ShapeDtypeStruct(flat[0].shape, x.dtype), sums, sums),
        grid=(programs,),
        compiler_params=_warps(rows),
        interpret=rows.interpret,
        name="norm_gradients",
    )
    dx, dscale, dbias = call(*flat, scale)
    of_bias = None if bias is None else dbias.sum(0).astype(bias.dtype)
    return dx.reshape(x.shape), dscale.sum(0).astype(scale.dtype), of_bias


def _differentiate(
    rows: Rows,
    programs: int,
    x_ref: Any,
    dy_ref: Any,
    past_ref: Any,
    scale_ref: Any,
    dx_ref: Any,
    *sum_refs: Any,
) -> None:
    """Each of so many rows, one after the other, and the sums over them."""
    first, real = pl.program_id(0), rows.columns < rows.width
    scale = _vector(rows, scale_ref)

    def turn(index: Any, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        row = first + index * programs
        at, inside = (row, rows.columns), real & (row < rows.total)
        x, dy, past = (
            triton.load(ref.at[at], mask=inside, other=0.0) for ref in (x_ref, dy_ref, past_ref)
        )
        centred, inverse = _centred(rows, x)
        unit, dy = centred * inverse, dy.astype(jnp.float32)
        # a row that is normalised does not change with its length nor, where it is centred, with its mean
        weighed = dy * scale
        dx = weighed - unit * _mean(rows, weighed * unit)
        if rows.centred:
            dx = dx - _mean(rows, weighed)
        dx = dx * inverse + past.astype(jnp.float32)
        triton.store(dx_ref.at[at], dx.astype(dx_ref.dtype), mask=inside)
        return sums[0] + dy * unit, sums[1] + dy

    zeros = jnp.zeros(rows.block, jnp.float32)
    turns = math.ceil(rows.total / programs)
    for ref, total in zip(sum_refs, jax.lax.fori_loop(0, turns, turn, (zeros, zeros)), strict=True):
        triton.store(ref.at[first, rows.columns], total, mask=real)


def _warps(rows: Rows) -> Any:
    return triton.CompilerParams(num_warps=4 if rows.block <= WIDE else 8)
