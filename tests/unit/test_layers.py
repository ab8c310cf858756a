"""Linear layers with a factor for each number of their output, and with zeros behind; half precision."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export

from fmjax.kernels import xla
from fmjax.models.kernels import BY_XLA
from fmjax.models.layers import PatchEmbed
from fmjax.models.linear import Linear
from tests.support.checkpoints import small

INPUTS, OUTPUTS = 6, 5
MANY = 24  # rows: more than the kernel has


def linear(dtype: Any = None, *, adapter: bool = False) -> Linear:
    param = {"param_dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    layer = Linear(INPUTS, OUTPUTS, bias=True, dtype=dtype, **param)
    # they are made as zeros, which would hide one that is left out
    layer.bias = nnx.Param(1 + jnp.arange(float(OUTPUTS)))
    if adapter:
        layer.lora = lambda x: x[..., :OUTPUTS]
    return layer


def tokens(rows: int) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (rows, INPUTS))


SCALE = jnp.linspace(-2.0, 3.0, OUTPUTS)


def lowered(layer: Linear, rows: int, *, folded: bool = True) -> str:
    """How the output is computed."""
    kernels = BY_XLA._replace(folded=folded)
    return str(jax.make_jaxpr(lambda x: layer.scaled(x, SCALE, kernels).x)(tokens(rows)))


def test_a_linear_layer_gives_its_bias_apart():
    layer, x = linear(adapter=True), tokens(2)
    product, bias = layer.unbiased(x, OUTPUTS)
    assert bias is not None
    np.testing.assert_allclose(product + bias, layer(x), rtol=1e-6)


def test_it_is_the_same_with_zeros_behind():
    layer, x = linear(adapter=True), tokens(2)
    # behind what it gives, and behind what it is given
    product, bias = layer.unbiased(x, 8)
    assert bias is not None
    assert not product[:, OUTPUTS:].any()
    assert not bias[OUTPUTS:].any()
    np.testing.assert_allclose((product + bias)[:, :OUTPUTS], layer(x), rtol=1e-6)
    wide = jnp.pad(x, [(0, 0), (0, 2)])
    np.testing.assert_allclose(layer.scaled(wide, None, BY_XLA).x, layer(x), rtol=1e-6)
    # where neither is asked for, a wrong width is still refused
    with pytest.raises(TypeError, match="contracting dimensions"):
        layer(wide)


@pytest.mark.parametrize("held", [False, True], ids=["", "bias held"])
@pytest.mark.parametrize("adapter", [False, True], ids=["alone", "with an adapter"])
@pytest.mark.parametrize("dtype", [None, jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("rows", [INPUTS - 1, MANY])
def test_factors_and_their_gradients_are_those_of_the_output(held, adapter, dtype, rows):
    x, learned = tokens(rows), linear()
    kernels = BY_XLA._replace(folded=True, held=held)

    def loss(kernel: Any, bias: Any, scale: Any, *, folded: bool) -> Any:
        layer = linear(dtype if folded else None, adapter=adapter)
        layer.kernel, layer.bias = nnx.Param(kernel), nnx.Param(bias)
        y = layer.scaled(x, scale, kernels).whole if folded else layer(x) * scale
        return jnp.sin(y.astype(jnp.float32)).sum()

    assert learned.bias is not None
    # what the norm behind has the gradient of is told where it holds it, and nowhere else
    assert (linear(dtype).scaled(x, SCALE, kernels).constant is not None) == held
    both = jax.value_and_grad(loss, (0, 1, 2))
    given = (learned.kernel[...], learned.bias[...], SCALE)
    found, expected = (jax.tree.leaves(both(*given, folded=way)) for way in (True, False))
    within = 1e-5 if dtype is None else 0.1
    for a, b in zip(found, expected, strict=True):
        assert np.abs(a - b).max() <= within * max(1.0, np.abs(b).max())


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_gradients_that_add_up_rows_are_added_up_in_float32(dtype):
    """One of ones would come to rest at 2,048 in float16, which has nothing above 65,504, and at 256 in bfloat16."""
    x, kernel = jnp.ones((70, 1000, INPUTS)), jnp.ones((INPUTS, OUTPUTS)) / INPUTS

    def total(bias: Any, scale: Any) -> Any:
        layer = linear(dtype)
        layer.kernel, layer.bias = nnx.Param(kernel), nnx.Param(bias)
        return layer.scaled(x, scale, BY_XLA).x.astype(jnp.float32).sum()

    of_bias, of_scale = jax.grad(total, (0, 1))(jnp.zeros(OUTPUTS), jnp.ones(OUTPUTS))
    np.testing.assert_allclose(of_bias, 70_000, rtol=1e-3)
    np.testing.assert_allclose(of_scale, 70_000, rtol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_so_are_those_of_all_patches(dtype):
    spec = small("dinov2_vits14", depth=1)
    patches = PatchEmbed(spec, dtype=dtype, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    images = jax.random.normal(jax.random.key(0), (64, *(2 * [8 * spec.patch_size]), 3))
    weights = jax.random.uniform(jax.random.key(1), (64, 8, 8, spec.width)).astype(dtype)
    learned = nnx.grad(lambda layer: (layer(images) * weights).astype(jnp.float32).sum())(patches)
    expected = weights.astype(jnp.float32).sum((0, 1, 2))
    np.testing.assert_allclose(learned.bias[...], expected, rtol=1e-3)


@pytest.mark.parametrize("name", sorted(xla.ACTIVATIONS))
def test_large_numbers_have_gradients_in_float16(name):
    x = jnp.asarray([-300, -148, 148, 300], jnp.float16)
    inputs = (x, jnp.ones_like(x)) if name == "swiglu" else (x,)
    slopes = jax.grad(lambda *given: xla.ACTIVATIONS[name](*given).sum())(*inputs)
    np.testing.assert_array_equal(slopes, [0, 0, 1, 1])


def test_factors_go_into_the_kernel_in_bfloat16_where_that_is_smaller():
    of_kernel = f"f32[{INPUTS},{OUTPUTS}] = mul"
    assert of_kernel in lowered(linear(jnp.bfloat16), MANY)
    assert of_kernel not in lowered(linear(jnp.bfloat16), INPUTS - 1)
    assert of_kernel not in lowered(linear(jnp.bfloat16), MANY, folded=False)
    assert of_kernel not in lowered(linear(jnp.bfloat16, adapter=True), MANY)
    # its smallest number is 6e-8: a weight of 1e-2 and a layer scale of 1e-6 would be 0
    assert of_kernel not in lowered(linear(jnp.float16), MANY)
    assert of_kernel not in lowered(linear(), MANY)


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_factors_are_applied_in_a_program_for_any_batch(dtype):
    layer, kernels = linear(dtype), BY_XLA._replace(folded=True)
    shape = export.symbolic_shape(f"batch, 3, {INPUTS}")
    function = jax.jit(lambda x: layer.scaled(x, SCALE, kernels).x)
    program = export.export(function)(jax.ShapeDtypeStruct(shape, jnp.float32))
    for batch in (1, 4):
        x = tokens(3 * batch).reshape(batch, 3, INPUTS)
        found, expected = program.call(x), layer(x) * SCALE
        within = 1e-5 if dtype is None else 0.1
        np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=within)
