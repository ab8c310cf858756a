"""The kernel of an activation and the norm behind it: that it computes what XLA does, and what it leaves at 0."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.kernels import pallas_gate
from fmjax.kernels.activation import Normed, filled
from fmjax.kernels.pallas_activation import over
from fmjax.kernels.pallas_gate import Form, Vectors, gradients, plain, values

EPS = 1e-5
WIDTH, REAL = 48, 43  # of arrays, and of a row's numbers


def given(
    activation: str, dtype: Any, *, bias: bool
) -> tuple[tuple[jax.Array, ...], Vectors, jax.Array]:
    """Products that are not centred, what is learned, and a gradient that beyond the norm's width is not 0."""
    count = 2 if activation == "swiglu" else 1
    keys = jax.random.split(jax.random.key(0), 7)
    rows = [1 + 2 * jax.random.normal(key, (3, 7, REAL)).astype(dtype) for key in keys[:count]]
    vectors = [jax.random.normal(key, (REAL,)) for key in keys[2:6]]
    biases = tuple(filled(vector, WIDTH) for vector in vectors[:count])
    learned = Vectors(biases, 1 + vectors[2], vectors[3] if bias else None)
    gradient = jax.random.normal(keys[6], (3, 7, WIDTH)).astype(dtype)
    return tuple(filled(x, WIDTH) for x in rows), learned, gradient


def widened(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


@pytest.mark.parametrize("bias", [True, False], ids=["layer", "rms"])
@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 1e-5), ("bfloat16", 2**-8)])
def test_the_kernels_compute_what_xla_does(activation, bias, dtype, allowed, monkeypatch):
    # 21 rows, on the way back in 4 programs of up to 6
    monkeypatch.setattr(pallas_gate, "PROGRAMS", 8)
    products, vectors, gradient = given(activation, dtype, bias=bias)
    form = Form(activation, EPS, bias, interpret=True)
    wide = widened((products, vectors, gradient))
    expected, back = jax.vjp(lambda *inputs: plain(form, *inputs), *wide[:2])
    of_products, of_vectors = back(wide[2])
    # arrays are rounded once, and what is learned is not
    pairs = [(values(form, products, vectors), expected, allowed)]
    found = gradients(form, products, vectors, gradient)
    pairs += [(*pair, allowed) for pair in zip(found[0], of_products, strict=True)]
    learned = zip(jax.tree.leaves(found[1]), jax.tree.leaves(of_vectors), strict=True)
    pairs += [(*pair, 1e-5) for pair in learned]
    for got, exact, within in pairs:
        got, exact = np.asarray(got, np.float32), np.asarray(exact)
        assert np.abs(got - exact).max() <= within * np.abs(exact).max()


def test_beyond_the_norms_width_nothing_is_computed():
    products, vectors, gradient = given("swiglu", jnp.float32, bias=True)
    form = Form("swiglu", EPS, interpret=True)
    of_products, of_vectors = gradients(form, products, vectors, gradient)
    behind = [values(form, products, vectors), *of_products, *of_vectors.biases]
    assert not any(np.asarray(x[..., REAL:]).any() for x in behind)
    assert of_vectors.scale.shape == (REAL,)


def test_where_there_is_no_cuda_the_kernel_is_the_plain_function():
    products, vectors, gradient = given("swiglu", jnp.float32, bias=True)

    def both(function: Any) -> list[Any]:
        value, back = jax.vjp(jax.jit(function), products, vectors)
        return [value, *jax.tree.leaves(back(gradient))]

    def by_kernel(products: Any, vectors: Vectors) -> Any:
        norm = Normed(vectors.scale, vectors.bias, EPS)
        return over(None)("swiglu", products, vectors.biases, norm)

    expected = both(lambda *inputs: plain(Form("swiglu", EPS), *inputs))
    # XLA joins the parts of a program as it likes
    for found, exact in zip(both(by_kernel), expected, strict=True):
        assert np.abs(found - exact).max() <= 1e-6 * np.abs(exact).max()
