"""Layer and RMS normalisation in one pass over the tokens, forward and backward: kernels in Pallas for Triton.

On the way back XLA goes over them several times: for the statistics, for the gradient of the tokens, for products in
float32 that it writes, and for the sums of these that are the gradients of scale and bias. Here a program holds a row
while all of that is computed, sums up over its own rows, and adds the gradient that came past the norm. Summed up, what
it then gives is the gradient of a bias that tokens have got in front of the norm: it may be asked for too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import zip_longest
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero, custom_vjp_primal_tree_values
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import Mesh
from jaxtyping import Array, Float

from fmjax.kernels import rows as held
from fmjax.kernels import xla
from fmjax.kernels.rows import PROGRAMS, WIDE, Rows
from fmjax.sharding import SPREAD, WHOLE, by_device, of_batch

FORWARD_ROWS = 4  # that a program of the forward pass normalises
# By how many sums they hold. Three take 80 registers a thread and not 64 (152 and not 128 where rows are wide): so many
# are on an H100's 132 processors at once, or half of them
PROGRAMS_OF = {2: PROGRAMS, 3: 792}


class Vectors(NamedTuple):
    """What a norm learns, and what it is handed the gradient of."""

    scale: Float[Array, " D"]
    bias: Float[Array, " D"] | None
    constant: Float[Array, " D"] | None  # in each row of x


@cache
def over(mesh: Mesh | None) -> Callable[..., Any]:
    """`xla.forked` in bfloat16 or float16; x is all that is kept of it. On other devices than CUDA's it is that.

    constant: a vector that is in each row of x, where it has no gradient, and is given it. mesh: over whose devices it
    is divided; each has whole rows.
    """

    # made once for a mesh (`cache`): what was traced of it is found again
    @partial(jax.custom_vjp, nondiff_argnums=(3,))
    def forked(
        x: Float[Array, "*B D"],
        scale: Float[Array, " D"],
        bias: Float[Array, " D"] | None,
        eps: float,
        constant: Float[Array, " D"] | None = None,
    ) -> tuple[Float[Array, "*B D"], Float[Array, "*B D"]]:
        here = _platform(_values, _plain_values, eps, bias)
        places = {"given": (SPREAD, WHOLE, WHOLE), "found": SPREAD}
        return x, by_device(here, x, scale, bias, mesh=mesh, **places)

    def forward(x: Any, scale: Any, bias: Any, eps: float, constant: Any = None) -> Any:
        x, scale, bias, constant = custom_vjp_primal_tree_values((x, scale, bias, constant))
        return forked(x, scale, bias, eps), (x, Vectors(scale, bias, constant))

    def backward(eps: float, kept: Any, gradients: tuple[Any, Any]) -> Any:
        x, vectors = kept
        # where nothing goes past the norm, no zeros are written and read
        past, gradient = gradients
        past = None if isinstance(past, SymbolicZero) else past
        if isinstance(gradient, SymbolicZero):
            gradient = jnp.zeros_like(x)

        def here(x: Any, vectors: Vectors, past: Any, gradient: Any) -> Any:
            lowered = _platform(_gradients, _plain_gradients, eps, vectors.bias)
            of_x, sums = lowered(x, vectors, past, gradient)
            return of_x, of_batch(sums, mesh)

        places = {"given": (SPREAD, WHOLE, SPREAD, SPREAD), "found": (SPREAD, WHOLE)}
        of_x, sums = by_device(here, x, vectors, past, gradient, mesh=mesh, **places)
        return of_x, *_as_learned(sums, vectors)

    forked.defvjp(forward, backward, symbolic_zeros=True)
    return forked


def _as_learned(sums: Array, vectors: Vectors) -> Iterator[Array | None]:
    """Of each vector that there is, in its dtype. Without the last there is no row for it."""
    for vector, total in zip_longest(vectors, sums):
        yield None if vector is None else total.astype(vector.dtype)


def _platform(kernel: Any, plain: Any, eps: float, bias: Array | None) -> Any:
    """A function that is the one where a program is made for CUDA, and the other elsewhere."""

    def lowered(x: Array, *others: Any) -> Any:
        rows = Rows(math.prod(x.shape[:-1]), x.shape[-1], eps, bias is not None)
        cuda, default = partial(kernel, rows), partial(plain, eps)
        return jax.lax.platform_dependent(x, *others, cuda=cuda, default=default)

    return lowered


def _plain_values(eps: float, x: Array, scale: Array, bias: Array | None) -> Array:
    return xla.forked(x, scale, bias, eps)[1]


def _plain_gradients(
    eps: float, x: Array, vectors: Vectors, past: Array | None, gradient: Array
) -> tuple[Array, Float[Array, "S D"]]:
    def plain(x: Array, vectors: Vectors) -> tuple[Array, Array]:
        return xla.forked(x, vectors.scale, vectors.bias, eps, vectors.constant)

    back = jax.vjp(plain, x, vectors)[1]
    of_x, found = back((jnp.zeros_like(gradient) if past is None else past, gradient))
    # as the kernel has them: a row for a bias that there is not, and none for such a constant
    bias = jnp.zeros_like(found.scale) if found.bias is None else found.bias
    sums = (found.scale, bias, found.constant)[: _sums(vectors)]
    return of_x, jnp.stack([total.astype(jnp.float32) for total in sums])


def _sums(vectors: Vectors) -> int:
    """How many the kernel adds up."""
    return 2 if vectors.constant is None else 3


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
    rows: Rows, x: Array, vectors: Vectors, past: Array | None, gradient: Array
) -> tuple[Array, Float[Array, "S D"]]:
    """Of x, with what came past the norm, if anything did; of scale, of bias, and of a constant in x if it is there."""
    # each program writes sums of its own, which are few: programs that add to one place would wait for each other
    count = _sums(vectors)
    programs = min(PROGRAMS_OF[count], rows.total)
    # all in one array: XLA adds up over the programs by one kernel, and not by three
    sums = jax.ShapeDtypeStruct((count, programs, rows.width), jnp.float32)
    arrays = (x, gradient) if past is None else (x, gradient, past)
    flat = [array.reshape(rows.total, rows.width) for array in arrays]
    call = pl.pallas_call(
        partial(_differentiate, rows, programs, count),
        out_shape=(jax.ShapeDtypeStruct(flat[0].shape, x.dtype), sums),
        grid=(programs,),
        compiler_params=_warps(rows),
        interpret=rows.interpret,
        name="norm_gradients",
    )
    dx, parts = call(*flat, vectors.scale)
    return dx.reshape(x.shape), parts.sum(1)


def _differentiate(rows: Rows, programs: int, count: int, *refs: Any) -> None:
    """Each of so many rows, one after the other, and so many sums over them."""
    x_ref, dy_ref, *past_refs, scale_ref, dx_ref, sums_ref = refs
    first, scale = pl.program_id(0), held.vector(rows, scale_ref)

    def turn(index: Any, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        row = first + index * programs
        x, dy, *past = (held.row(rows, ref, row) for ref in (x_ref, dy_ref, *past_refs))
        centred, inverse = held.centred(rows, x)
        unit = centred * inverse
        dx = sum(past, held.before_norm(rows, dy * scale, unit, inverse))
        held.write(rows, dx_ref, row, dx)
        # of a row that there is not all of it is 0
        return tuple(a + b for a, b in zip(sums, (dy * unit, dy, dx), strict=False))

    turns = math.ceil(rows.total / programs)
    totals = jax.lax.fori_loop(0, turns, turn, held.sums(rows, count))
    held.write_sums(rows, sums_ref, first, totals)


def _warps(rows: Rows) -> Any:
    return triton.CompilerParams(num_warps=4 if rows.block <= WIDE else 8)
