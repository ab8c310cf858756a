"""Which kernel computes the activation of an MLP, and that it computes what XLA does."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from fmjax.errors import UsageError
from fmjax.kernels import activation, devices, formulas, pallas, pallas_activation, trust, xla
from fmjax.kernels.activation import Normed, chosen, plain, unfit
from fmjax.models.build import initialise
from fmjax.models.functional import functional
from fmjax.sharding import BATCH_AXES, make_mesh
from tests.support.checkpoints import small
from tests.unit.test_kernels import (  # noqa: F401
    A100,
    BF16,
    CPU,
    H100,
    lowered,
    params,
    tower,
)

HERE = make_mesh(1, 1, 1, devices=jax.devices()[:1])
ASKED: dict[str, Any] = {"dtype": BF16, "activation": "gelu", "width": 64}
NAMES = tuple(xla.ACTIVATIONS)


def given(name: str, shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any, Any]:
    """Products beyond where an activation is straight, biases of float32, and a gradient."""
    count = 2 if name == "swiglu" else 1
    keys = jax.random.split(jax.random.key(0), 5)
    products = tuple(3 * jax.random.normal(key, shape).astype(dtype) for key in keys[:count])
    biases = tuple(jax.random.normal(key, shape[-1:]) for key in keys[2 : 2 + count])
    return products, biases, jax.random.normal(keys[4], shape).astype(dtype)


def widened(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def both(function: Any, name: str, products: Any, biases: Any, gradient: Any) -> list[Any]:
    """Values, and the gradients of all products and biases."""
    value, back = jax.vjp(jax.jit(lambda *given: function(name, *given)), products, biases)
    return [value, *jax.tree.leaves(back(gradient))]


def test_each_activation_of_a_tower_has_a_formula():
    assert set(formulas.FORMULAS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 4e-6), ("bfloat16", 2**-8)])
def test_the_kernels_compute_what_xla_does(name, dtype, allowed, monkeypatch):
    # 57 rows by 300 columns: tiles of 4 x 512 and 8 x 256, of which 2 groups of programs have 4 each
    monkeypatch.setattr(pallas_activation, "PROGRAMS", 4)
    arrays = given(name, (3, 19, 300), dtype)
    expected = both(plain, name, *widened(arrays))
    values = pallas_activation._values(name, *arrays[:2], interpret=True)
    gradients = pallas_activation._gradients(name, *arrays, interpret=True)
    # computed in float32, and rounded once; biases and their gradients not at all
    for found, exact in zip([values, *jax.tree.leaves(gradients)], expected, strict=True):
        found, exact = np.asarray(found, np.float32), np.asarray(exact)
        within = allowed if found.ndim > 1 else 4e-6
        assert np.abs(found - exact).max() <= within * np.abs(exact).max()


@pytest.mark.parametrize("name", NAMES)
def test_far_from_zero_and_at_it_the_formulas_are_finite_and_right(name):
    # of float16's numbers the square is float32's infinity only where the density is 0
    ends = np.array([-65504, -200, -30, -8, -0.0, 0.0, 8, 30, 200, 65504], np.float32)
    x = [jnp.asarray(ends)] * (2 if name == "swiglu" else 1)
    formula = formulas.FORMULAS[name]
    value, back = jax.vjp(xla.ACTIVATIONS[name], *x)
    found = [formula.value(formulas.PLAIN, *x), *formula.slopes(formulas.PLAIN, *x)]
    expected = [value, *back(jnp.ones_like(value))]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)


def test_gelu_is_that_of_erf_as_far_as_float32_goes():
    x = np.arange(-2048, 2048) / 512  # float32 has them exactly
    share = np.array([0.5 * math.erfc(-each / math.sqrt(2)) for each in x])
    found = formulas.FORMULAS["gelu"].value(formulas.PLAIN, jnp.asarray(x, jnp.float32))
    plainly = xla.gelu(jnp.asarray(x, jnp.float32))
    near, far = (np.abs(np.asarray(y, np.float64) - x * share).max() for y in (found, plainly))
    # 3.3e-7 and 4.1e-7
    assert near < far < 5e-7


def test_where_there_is_no_cuda_the_kernel_is_the_plain_function():
    for name in NAMES:
        arrays = given(name, (2, 5, 16), jnp.float32)
        pairs = zip(
            both(pallas_activation.over(None), name, *arrays),
            both(plain, name, *arrays),
            strict=True,
        )
        # XLA joins the parts of a program as it likes
        for found, expected in pairs:
            assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


def test_a_product_may_be_without_a_bias():
    products, biases, gradient = given("swiglu", (3, 8), jnp.float32)
    some = (None, biases[1])
    found = both(pallas_activation.over(None), "swiglu", products, some, gradient)
    zero = (jnp.zeros_like(biases[0]), biases[1])
    expected = both(plain, "swiglu", products, zero, gradient)
    assert len(found) == len(expected) - 1
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[-1], expected[-1], rtol=1e-6)


@pytest.mark.parametrize(
    ("device", "dtype", "reason"),
    [
        (H100, BF16, ""),
        (A100, jnp.float16, ""),
        (H100, jnp.float32, "the kernel is for bfloat16 and float16, and not for float32"),
        (
            CPU,
            BF16,
            f"the kernel is for GPUs of NVIDIA of compute capability 8.0, and not for {CPU.device_kind!r}",
        ),
    ],
)
def test_a_kernel_is_chosen_by_device_and_dtype(device, dtype, reason, monkeypatch):
    monkeypatch.setattr(pallas, "first_device", lambda mesh: device)
    monkeypatch.setattr(activation, "lacking", lambda: "")
    asked = ASKED | {"dtype": dtype}
    assert unfit(HERE, **asked) == reason
    assert chosen("auto", HERE, **asked) is (None if reason else pallas_activation.over(HERE))
    assert chosen("xla", HERE, **asked) is None
    if not reason:
        assert chosen("pallas", HERE, **asked) is pallas_activation.over(HERE)
        return
    with pytest.raises(UsageError) as refused:
        chosen("pallas", HERE, **asked)
    assert str(refused.value) == f"--activations pallas: {reason}; choose xla, or auto"


@pytest.mark.parametrize(
    ("mesh", "changed", "reason"),
    [
        (make_mesh(), {}, ""),
        (make_mesh(2, 2, 2), {}, ""),
        (None, {}, "without a mesh the kernel is not divided over 8 devices"),
        (make_mesh(2, 4), {"width": 2730, "normed": True}, ""),
        (
            make_mesh(2, 2, 2),
            {"normed": True},
            "an MLP 64 wide lies on 2 devices of mesh axis 'tensor', and the kernel needs all of it",
        ),
        (
            make_mesh(4, 1, 2),
            {"width": 2730},
            "an MLP 2730 wide lies on 2 devices of mesh axis 'tensor', and the kernel needs all of it",
        ),
    ],
)
def test_hidden_units_on_several_devices_are_computed_where_they_lie(
    mesh, changed, reason, monkeypatch
):
    monkeypatch.setattr(pallas, "first_device", lambda mesh: H100)
    monkeypatch.setattr(activation, "lacking", lambda: "")
    assert unfit(mesh, **ASKED | changed) == reason


@pytest.mark.parametrize(
    ("sizes", "normed"), [((2, 1, 1), True), ((2, 2, 2), False), ((2, 2, 1), True)]
)
def test_each_device_computes_its_own_units_of_its_own_images(sizes, normed):
    mesh = make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    products, biases, gradient = given("swiglu", (8, 3, 16), jnp.float32)
    norm = Normed(1 + biases[0], biases[1], 1e-6) if normed else None

    def every(function: Any, products: Any, biases: Any, vectors: Any, gradient: Any) -> Any:
        def value(products: Any, biases: Any, vectors: Any) -> Any:
            behind = Normed(*vectors, 1e-6) if normed else None
            return function("swiglu", products, biases, behind)

        found, back = jax.vjp(value, products, biases, vectors)
        return found, back(gradient)

    arrays = (products, biases, norm and norm[:2], gradient)
    expected = every(plain, *arrays)
    units = NamedSharding(mesh, PartitionSpec(BATCH_AXES, None, "tensor"))
    vectors = NamedSharding(mesh, PartitionSpec("tensor"))
    divided = jax.device_put(arrays, (units, vectors, vectors, units))
    function = jax.jit(partial(every, pallas_activation.over(mesh)))
    found = function(*divided)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert found[0].sharding.is_equivalent_to(units, 3)
    # what is learned has its gradients summed up over the devices, and no token travels
    text = function.lower(*divided).compile().as_text()
    assert "all-reduce(" in text
    assert not any(name in text for name in ("all-gather", "reduce-scatter", "all-to-all"))


def test_a_width_that_xla_pads_is_filled_up(monkeypatch):
    monkeypatch.setattr(pallas, "first_device", lambda mesh: H100)
    monkeypatch.setattr(activation, "lacking", lambda: "")
    asked = {**ASKED, "activation": "swiglu", "normed": True}
    assert activation.aligned(2730) == 2736
    assert unfit(HERE, **asked | {"width": 2730}) == ""
    found = unfit(HERE, **asked | {"width": 8200})
    assert found == "an MLP is 8200 wide, and the kernel with its norm takes 8192"
    assert unfit(HERE, **ASKED | {"width": 8200}) == ""


def kernels(text: str) -> int:
    return text.count("xla.gpu.triton")


def test_a_block_has_one_kernel_each_way(params, monkeypatch):  # noqa: F811
    # a newer jax makes them only where a GPU is
    made = not activation.lacking()
    monkeypatch.setattr(activation, "unfit", lambda *_, **__: activation.lacking())
    # forward, once more for the product behind it on the way back, and backward
    assert kernels(lowered(params, remat="dots", activations="auto")) == 3 * made
    assert kernels(lowered(params, remat="none", activations="auto")) == 2 * made
    assert kernels(lowered(params, remat="dots", activations="xla")) == 0


def test_the_flag_and_a_cpu_keep_xlas_program(params):  # noqa: F811
    assert lowered(params, activations="auto") == lowered(params, activations="xla")
    with pytest.raises(UsageError, match=r"--activations pallas: .* not for 'cpu'; choose xla"):
        lowered(params, activations="pallas")


def rounded_once(name, products, biases, norm):
    """What the kernel gives where it runs."""
    eps = None if norm is None else norm.eps
    wide = widened((products, biases, norm and norm[:2]))
    norm = wide[2] and Normed(*wide[2], eps)
    return plain(name, *wide[:2], norm).astype(products[0].dtype)


def doubled(name, products, biases, norm):
    """The gradient of a bias twice."""
    twice = [2 * bias - jax.lax.stop_gradient(bias) for bias in biases]
    return plain(name, products, tuple(twice), norm)


def failing(name, products, biases, norm):
    raise RuntimeError("no PTX")


REASONS = {
    failing: r"it fails \(RuntimeError: no PTX\)",
    doubled: r"its gradients of biases deviate by 1, where 0\.0078 is allowed",
}


@pytest.mark.parametrize("wrong", REASONS, ids=lambda wrong: wrong.__name__)
def test_a_wrong_kernel_is_switched_off(wrong, monkeypatch, capsys):
    monkeypatch.setattr(devices, "compute_capability", lambda device: 9.0)
    monkeypatch.setattr(activation, "lacking", lambda: "")
    trust.verdict.cache_clear()
    monkeypatch.setattr(activation, "activate", lambda mesh=None: rounded_once)
    for name in NAMES:
        # 60: a width that is filled up to 64
        for more in ({}, {"width": 60, "normed": True}):
            asked: dict[str, Any] = ASKED | {"activation": name} | more
            assert chosen("auto", HERE, **asked) is rounded_once
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(activation, "activate", lambda mesh=None: wrong)
    monkeypatch.setattr(trust, "versions", lambda: f"with {wrong.__name__}")
    trust.verdict.cache_clear()
    assert chosen("auto", HERE, **ASKED) is None
    assert "the kernel of gelu is switched off on 'cpu'" in capsys.readouterr().err
    with pytest.raises(UsageError, match=f"^--activations pallas: on 'cpu' {REASONS[wrong]}; choo"):
        chosen("pallas", HERE, **ASKED)
    trust.verdict.cache_clear()


def waved(x: Any) -> Any:
    return x + 0.1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mlp": "swiglu"},
        # as EVA02's: a norm behind the activation, and a width that is filled up
        {"mlp": "swiglu", "mlp_norm": True, "mlp_dim": 51},
    ],
    ids=["mlp", "swiglu", "normed"],
)
def test_a_tower_and_its_gradients_are_the_same_by_the_kernel(changes, monkeypatch):
    spec = replace(small("ViT-B-16", depth=2), **changes)

    def gradients(**options: Any) -> Any:
        apply, found = functional(initialise(spec, nnx.Rngs(0), **options))
        # biases are made as zeros, which would hide one that is added twice or not at all
        moved = jax.tree.map(waved, found)
        images = jax.random.normal(jax.random.key(1), (2, *spec.image_size, 3))
        return jax.jit(jax.value_and_grad(lambda p: apply(p, images).patches.sum()))(moved)

    expected = gradients(activations="xla")
    monkeypatch.setattr(devices, "HALVES", (jnp.dtype("float32"),))
    monkeypatch.setattr(activation, "unfit", lambda *_, **__: "")
    found = gradients(activations="auto", remat="dots")
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        # that of k's biases is 0, but for what is rounded
        assert np.abs(a - b).max() <= 1e-5 * (0.1 + np.abs(b).max())
