"""Layer and RMS normalisation in one pass over the tokens, forward and backward: kernels in Pallas for Triton.

On the way back XLA goes over them several times: for the statistics, for the gradient of the tokens, for products in
float32 that it writes, and for the sums of these that are the gradients of scale and bias. Here a program holds a row
while all of that is computed, sums up over its own rows, and adds the gradient that came past the norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero, custom_vjp_primal_tree_values
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import Mesh
from jaxtyping import Array, Float

from fmjax.kernels import rows as held
from fmjax.kernels import xla
from fmjax.kernels.platform import summed
from fmjax.kernels.rows import PROGRAMS, WIDE, Rows
from fmjax.sharding import SPREAD, WHOLE, by_device

FORWARD_ROWS = 4  # that a program of the forward pass normalises


@cache
def over(mesh: Mesh | None) -> Callable[..., Any]:
    """`xla.forked` in bfloat16 or float16; x is all that is kept of it. On other devices than CUDA's it is that.

    mesh: over whose devices it is divided; each has whole rows.
    """

    # made once for a mesh (`cache`): what was traced of it is found again
    @partial(jax.custom_vjp, nondiff_argnums=(3,))
    def forked(
        x: Float[Array, "*B D"],
        scale: Float[Array, " D"],
        bias: Float[Array, " D"] | None,
        eps: float,
    ) -> tuple[Float[Array, "*B D"], Float[Array, "*B D"]]:
        here = _platform(_values, _plain_values, eps, bias)
        places = {"given": (SPREAD, WHOLE, WHOLE), "found": SPREAD}
        return x, by_device(here, x, scale, bias, mesh=mesh, **places)

    def forward(x: Any, scale: Any, bias: Any, eps: float) -> Any:
        given = custom_vjp_primal_tree_values((x, scale, bias))
        return forked(*given, eps), given

    def backward(eps: float, kept: Any, gradients: tuple[Any, Any]) -> Any:
        # where nothing goes past the norm, no zeros are written and read
        past, gradient = gradients
        past = None if isinstance(past, SymbolicZero) else past
        if isinstance(gradient, SymbolicZero):
            gradient = jnp.zeros_like(kept[0])

        def here(x: Any, scale: Any, bias: Any, past: Any, gradient: Any) -> Any:
            given = (x, scale, bias, past, gradient)
            of_x, *sums = _platform(_gradients, _plain_gradients, eps, bias)(*given)
            return of_x, *summed(tuple(sums), (scale, bias), mesh)

        places = {"given": (SPREAD, WHOLE, WHOLE, SPREAD, SPREAD), "found": (SPREAD, WHOLE, WHOLE)}
        return by_device(here, *kept, past, gradient, mesh=mesh, **places)

    forked.defvjp(forward, backward, symbolic_zeros=True)
    return forked


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
    eps: float, x: Array, scale: Array, bias: Array | None, past: Array | None, gradient: Array
) -> Any:
    back = jax.vjp(partial(_plain, eps), x, scale, bias)[1]
    of_x, *sums = back((jnp.zeros_like(gradient) if past is None else past, gradient))
    return of_x, *jax.tree.map(lambda x: x.astype(jnp.float32), sums)


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
    inside = (row < rows.total)[:, None] & rows.real[None, :]
    at = (row[:, None], rows.columns[None, :])
    x, inverse = held.centred(rows, triton.load(x_ref.at[at], mask=inside, other=0.0))
    scale, *bias = (held.vector(rows, ref) for ref in vectors)
    y = sum(bias, x * inverse * scale)
    triton.store(y_ref.at[at], y.astype(y_ref.dtype), mask=inside)


def _gradients(
    rows: Rows, x: Array, scale: Array, bias: Array | None, past: Array | None, gradient: Array
) -> tuple[Array, Array, Array | None]:
    """Of x, with what came past the norm, if anything did; of scale; of bias."""
    # each program writes sums of its own, which are few: programs that add to one place would wait for each other
    programs = min(PROGRAMS, rows.total)
    sums = jax.ShapeDtypeStruct((programs, rows.width), jnp.float32)
    arrays = (x, gradient) if past is None else (x, gradient, past)
    flat = [array.reshape(rows.total, rows.width) for array in arrays]
    call = pl.pallas_call(
        partial(_differentiate, rows, programs),
        out_shape=(jax.ShapeDtypeStruct(flat[0].shape, x.dtype), sums, sums),
        grid=(programs,),
        compiler_params=_warps(rows),
        interpret=rows.interpret,
        name="norm_gradients",
    )
    dx, dscale, dbias = call(*flat, scale)
    return dx.reshape(x.shape), dscale.sum(0), None if bias is None else dbias.sum(0)


def _differentiate(rows: Rows, programs: int, *refs: Any) -> None:
    """Each of so many rows, one after the other, and the sums over them."""
    # two results beside the gradient of x, and in front of them what is read
    x_ref, dy_ref, *past_refs, scale_ref = refs[:-3]
    dx_ref, *sum_refs = refs[-3:]
    first, scale = pl.program_id(0), held.vector(rows, scale_ref)

    def turn(index: Any, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        row = first + index * programs
        x, dy, *past = (held.row(rows, ref, row) for ref in (x_ref, dy_ref, *past_refs))
        centred, inverse = held.centred(rows, x)
        unit = centred * inverse
        dx = held.before_norm(rows, dy * scale, unit, inverse)
        held.write(rows, dx_ref, row, sum(past, dx))
        return sums[0] + dy * unit, sums[1] + dy

    turns = math.ceil(rows.total / programs)
    totals = jax.lax.fori_loop(0, turns, turn, held.sums(rows, 2))
    for ref, total in zip(sum_refs, totals, strict=True):
        triton.store(ref.at[first, rows.columns], total, mask=rows.real)


def _warps(rows: Rows) -> Any:
    return triton.CompilerParams(num_warps=4 if rows.block <= WIDE else 8)
