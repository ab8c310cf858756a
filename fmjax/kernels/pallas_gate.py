"""The activation of an MLP and the norm behind it in one pass, forward and backward: kernels in Pallas for Triton.

EVA02 normalises what comes out of SwiGLU before the last product (arXiv:2303.11331, sec. 2). Apart, each goes over the
widest arrays of a block, and the norm's gradient several times. Here a program holds a row of the products while both
are computed, on the way back the norm's inputs once more, and sums up over its own rows. What is kept are the products
alone.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import Mesh
from jaxtyping import Array, Float

from fmjax.kernels import formulas
from fmjax.kernels import rows as held
from fmjax.kernels.activation import Normed
from fmjax.kernels.activation import plain as by_xla
from fmjax.kernels.formulas import FORMULAS, Fast
from fmjax.kernels.platform import on_cuda
from fmjax.kernels.rows import PROGRAMS, WIDE, Rows

Arrays = tuple[Array, ...]


class Form(NamedTuple):
    """What is computed."""

    activation: str
    eps: float
    centred: bool = True  # layer and not RMS normalisation
    interpret: bool = False  # computed by XLA, step by step, on any device

    @property
    def fast(self) -> Fast:
        return formulas.fast(interpret=self.interpret)


class Vectors(NamedTuple):
    """What is learned, but for the products. A norm without a bias has none."""

    biases: Arrays  # of the products [F]
    # of the norm [R]: of a row of products so many numbers are there, and all others are 0
    scale: Array
    bias: Array | None


def normed(
    mesh: Mesh | None,
    name: str,
    products: tuple[Float[Array, "*B F"], ...],
    biases: tuple[Float[Array, " F"], ...],
    norm: Normed,
) -> Float[Array, "*B F"]:
    """`activation.plain` with a norm, in bfloat16 or float16, computed in float32; beyond the norm's width, where
    products and biases are 0, so is what comes out. On other devices than CUDA's it is that."""
    form = Form(name, norm.eps, norm.bias is not None)
    vectors = Vectors(biases, norm.scale, norm.bias)
    return on_cuda(values, gradients, plain, mesh)(form, products, vectors)


def plain(form: Form, products: Arrays, vectors: Vectors) -> Array:
    """The same by XLA."""
    norm = Normed(vectors.scale, vectors.bias, form.eps)
    return by_xla(form.activation, products, vectors.biases, norm)


def values(form: Form, products: Arrays, vectors: Vectors) -> Array:
    """Both, by the kernel."""
    first, rows = products[0], _rows(form, products[0], vectors)
    flat = [x.reshape(rows.total, -1) for x in products]
    call = pl.pallas_call(
        partial(_compute, form, rows),
        out_shape=jax.ShapeDtypeStruct(flat[0].shape, first.dtype),
        grid=(rows.total,),
        compiler_params=_warps(rows),
        interpret=form.interpret,
        name=f"{form.activation}_norm",
    )
    return call(*flat, *jax.tree.leaves(vectors)).reshape(first.shape)


def _rows(form: Form, product: Array, vectors: Vectors) -> Rows:
    total = math.prod(product.shape[:-1])
    return Rows(total, vectors.scale.shape[-1], form.eps, form.centred, form.interpret)


def _compute(form: Form, rows: Rows, *refs: Any) -> None:
    """A row."""
    *given, y_ref = refs
    count = (len(given) - 1) // 2
    products, vectors = given[:count], [held.vector(rows, ref) for ref in given[count:]]
    row = pl.program_id(0)
    biases, (scale, *bias) = vectors[:count], vectors[count:]
    biased = [held.row(rows, ref, row) + bias for ref, bias in zip(products, biases, strict=True)]
    hidden, inverse = held.centred(rows, FORMULAS[form.activation].value(form.fast, *biased))
    held.write(rows, y_ref, row, sum(bias, hidden * inverse * scale))


def gradients(
    form: Form, products: Arrays, vectors: Vectors, gradient: Array
) -> tuple[Arrays, Vectors]:
    """Of the products and of what is learned, by the kernel."""
    rows, count = _rows(form, gradient, vectors), len(products)
    # each program writes sums of its own, which are few: programs that add to one place would wait for each other
    programs = min(PROGRAMS // 2, rows.total)
    flat = [x.reshape(rows.total, -1) for x in (*products, gradient)]
    like = jax.ShapeDtypeStruct(flat[0].shape, gradient.dtype)
    learned, tree = jax.tree.flatten(vectors)
    # all in one array: XLA adds up over the programs by one kernel
    sums = jax.ShapeDtypeStruct((len(learned), programs, rows.width), jnp.float32)
    call = pl.pallas_call(
        partial(_differentiate, form, rows, programs, count),
        out_shape=(*(like,) * count, sums),
        grid=(programs,),
        compiler_params=_warps(rows),
        interpret=form.interpret,
        name=f"{form.activation}_norm_gradients",
    )
    # the norm's bias is in no gradient
    *found, parts = call(*flat, *vectors.biases, vectors.scale)
    of_products = tuple(x.reshape(gradient.shape) for x in found)
    of_learned = map(_as_wide, parts.sum(1), learned)
    return of_products, jax.tree.unflatten(tree, of_learned)


def _as_wide(total: Array, known: Array) -> Array:
    """As wide as what is learned."""
    return jnp.pad(total, (0, known.shape[-1] - total.shape[-1]))


def _differentiate(form: Form, rows: Rows, programs: int, count: int, *refs: Any) -> None:
    """Each of so many rows, one after the other, and the sums over them."""
    (*product_refs, dy_ref), refs = refs[: count + 1], refs[count + 1 :]
    *biases, scale = (held.vector(rows, ref) for ref in refs[: count + 1])
    *dx_refs, sums_ref = refs[count + 1 :]
    first, formula = pl.program_id(0), FORMULAS[form.activation]

    def turn(index: Any, sums: Arrays) -> Arrays:
        row = first + index * programs
        products = (held.row(rows, ref, row) for ref in product_refs)
        biased = [x + bias for x, bias in zip(products, biases, strict=True)]
        hidden, inverse = held.centred(rows, formula.value(form.fast, *biased))
        unit, dy = hidden * inverse, held.row(rows, dy_ref, row)
        back = held.before_norm(rows, dy * scale, unit, inverse)
        # of rows that are not there dy is 0, and so is all that comes of it
        back = jnp.where(rows.real, back, 0.0)
        changes = [back * slope for slope in formula.slopes(form.fast, *biased)]
        for ref, change in zip(dx_refs, changes, strict=True):
            held.write(rows, ref, row, change)
        # the bias of a norm comes last, where there is one
        added = (*changes, dy * unit, dy)[: len(sums)]
        return tuple(total + new for total, new in zip(sums, added, strict=True))

    turns = math.ceil(rows.total / programs)
    totals = jax.lax.fori_loop(0, turns, turn, held.sums(rows, sums_ref.shape[0]))
    held.write_sums(rows, sums_ref, first, totals)


def _warps(rows: Rows) -> Any:
    return triton.CompilerParams(num_warps=8 if rows.block <= WIDE else 16)
