"""Which kernel normalises the tokens of a block, and that it computes what XLA does."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.errors import UsageError
from fmjax.kernels import activation, attention, devices, norm, pallas, pallas_norm, trust, xla
from fmjax.kernels.norm import chosen, unfit
from fmjax.sharding import batch_sharding, make_mesh, replicated
from tests.unit.test_kernels import (  # noqa: F401
    A100,
    BF16,
    CPU,
    H100,
    MI300,
    T4,
    lowered,
    params,
)

EPS = 1e-5
HERE = make_mesh(1, 1, 1, devices=jax.devices()[:1])


def given(shape: tuple[int, ...], dtype: Any, *, bias: bool) -> tuple[list[Any], list[Any]]:
    """Tokens that are not centred with a scale and perhaps a bias, and gradients of both results."""
    keys = jax.random.split(jax.random.key(0), 5)
    tokens = [1 + jax.random.normal(key, shape).astype(dtype) for key in keys[:3]]
    vectors = [jax.random.normal(key, shape[-1:]) for key in keys[3:]]
    return [tokens[0], vectors[0], vectors[1] if bias else None], tokens[1:]


@pytest.mark.parametrize("constant", [True, False], ids=["held", "plain"])
@pytest.mark.parametrize("bias", [True, False], ids=["layer", "rms"])
@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 2e-6), ("bfloat16", 2**-8)])
def test_the_kernels_compute_what_xla_does(constant, bias, dtype, allowed, monkeypatch):
    # 21 rows in programs of 4, and in 5 programs of up to 5; 24 numbers in arrays of 32
    monkeypatch.setattr(pallas_norm, "PROGRAMS_OF", {2: 5, 3: 5})
    arrays, gradients = given((3, 7, 24), dtype, bias=bias)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), (arrays, gradients))
    (_, expected), back = jax.vjp(lambda x, s, b: xla.forked(x, s, b, EPS), *wide[0])
    rows = pallas_norm.Rows(21, 24, EPS, bias, interpret=True)
    vectors = pallas_norm.Vectors(*arrays[1:], arrays[1] if constant else None)
    of_x, sums = pallas_norm._gradients(rows, arrays[0], vectors, *gradients)
    learned = pallas_norm._as_learned(sums, vectors)
    found = [pallas_norm._values(rows, *arrays), of_x, *learned]
    of_x, *others = back(tuple(wide[1]))
    expected = [expected, of_x, *others, of_x.sum((0, 1)) if constant else None]
    # computed in float32, and rounded once
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
            assert np.abs(a - b).max() <= allowed * np.abs(b).max()


def test_where_nothing_goes_past_a_norm_no_zeros_are_read(monkeypatch):
    asked = []
    kernel = pallas_norm._plain_gradients
    monkeypatch.setattr(
        pallas_norm, "_plain_gradients", lambda *given: (asked.append(given[3]), kernel(*given))[1]
    )
    arrays, gradients = given((2, 5, 16), jnp.float32, bias=True)

    def back(fork):
        return jax.vjp(lambda *given: jax.checkpoint(fork)(*given), *arrays)[1](gradients[0])

    found = back(lambda *given: pallas_norm.over(None)(*given, EPS)[1])
    assert asked == [None]
    for a, b in zip(found, back(lambda *given: xla.forked(*given, EPS)[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    # the kernel without that array
    rows = pallas_norm.Rows(10, 16, EPS, centred=True, interpret=True)
    vectors = pallas_norm.Vectors(*arrays[1:], None)
    of_x, sums = pallas_norm._gradients(rows, arrays[0], vectors, None, gradients[0])
    for a, b in zip((of_x, *sums), found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_where_there_is_no_cuda_the_kernel_is_the_plain_function():
    arrays, gradients = given((2, 5, 16), jnp.float32, bias=True)

    def both(fork):
        value, back = jax.vjp(jax.jit(lambda *given: fork(*given, EPS)), *arrays)
        return *value, *back(tuple(gradients))

    # XLA joins the parts of a program as it likes
    for found, expected in zip(both(pallas_norm.over(None)), both(xla.forked), strict=True):
        assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("device", "dtype", "width", "reason"),
    [
        (H100, BF16, 1024, ""),
        (A100, jnp.float16, 768, ""),
        (H100, jnp.float32, 1024, "the kernel is for bfloat16 and float16, and not for float32"),
        (H100, BF16, 8200, "tokens are 8200 wide, and the kernel takes 8192"),
        *(
            (device, BF16, 1024, f"{capable}, and not for {device.device_kind!r}")
            for capable in [
                "the kernel is for GPUs of NVIDIA of compute capability 8.0",
            ]
            for device in (T4, MI300, CPU)
        ),
    ],
)
def test_a_kernel_is_chosen_by_device_dtype_and_width(device, dtype, width, reason, monkeypatch):
    monkeypatch.setattr(pallas, "first_device", lambda mesh: device)
    monkeypatch.setattr(norm, "lacking", lambda: "")
    asked = {"dtype": dtype, "width": width}
    assert unfit(HERE, **asked) == reason
    assert chosen("auto", HERE, **asked) is (None if reason else pallas_norm.over(HERE))
    assert chosen("xla", HERE, **asked) is None
    if not reason:
        assert chosen("pallas", HERE, **asked) is pallas_norm.over(HERE)
        return
    with pytest.raises(UsageError) as refused:
        chosen("pallas", HERE, **asked)
    assert str(refused.value) == f"--norms pallas: {reason}; choose xla, or auto"


@pytest.mark.parametrize("kernels", [norm, activation])
def test_what_computes_on_a_device_is_told(kernels, monkeypatch):
    assert kernels.told(CPU, BF16).startswith("XLA's: the kernel is for GPUs of NVIDIA")
    monkeypatch.setattr(pallas, "first_device", lambda mesh: H100)
    for reason, told in {
        "": "kernels in Pallas",
        "no": "XLA's: no",
    }.items():
        monkeypatch.setattr(kernels, "lacking", lambda reason=reason: reason)
        assert kernels.told(CPU, BF16) == told


def test_without_a_mesh_several_devices_have_xlas_norms(monkeypatch):
    monkeypatch.setattr(pallas, "first_device", lambda mesh: H100)
    found = unfit(None, dtype=BF16, width=64)
    assert found == "without a mesh the kernel is not divided over 8 devices"


@pytest.mark.parametrize("kernels", [norm, activation, attention])
def test_images_that_devices_do_not_share_evenly_are_computed_by_xla(kernels, monkeypatch):
    for module in (pallas, attention):
        monkeypatch.setattr(module, "first_device", lambda mesh: H100)
    for module in (norm, activation, attention):
        monkeypatch.setattr(module, "lacking", lambda: "")
    asked: dict[str, Any] = {
        norm: {"width": 64},
        activation: {"width": 64, "activation": "gelu"},
        attention: {"heads": 12, "head_dim": 64, "tokens": 257},
    }[kernels]
    mesh, asked = make_mesh(2, 2, 2), asked | {"dtype": BF16}
    by_kernel = kernels.chosen("auto", mesh, **asked, images=12)
    assert by_kernel == kernels.chosen("pallas", mesh, **asked)
    assert kernels.chosen("auto", mesh, **asked, images=3) != by_kernel
    with pytest.raises(UsageError, match=r" pallas: 3 images do not divide over 4 devices; choose"):
        kernels.chosen("pallas", mesh, **asked, images=3)


@pytest.mark.parametrize("sizes", [(2, 1, 1), (2, 2, 2)], ids=["data", "all axes"])
@pytest.mark.parametrize("bias", [True, False], ids=["layer", "rms"])
def test_each_device_normalises_its_own_images(sizes, bias):
    mesh = make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    (x, *vectors), gradients = given((8, 3, 16), "float32", bias=bias)

    def both(fork: Any, x: Any, vectors: Any, gradients: Any) -> Any:
        def forked(x: Any, vectors: Any) -> Any:
            scale, bias, constant = vectors
            return fork(x, scale, bias, EPS, constant)

        values, back = jax.vjp(forked, x, vectors)
        return *values, *back(tuple(gradients))

    vectors = (*vectors, jnp.zeros(16))
    expected = both(xla.forked, x, vectors, gradients)
    x, *gradients = jax.device_put((x, *gradients), batch_sharding(mesh))
    vectors = jax.device_put(vectors, replicated(mesh))
    function = jax.jit(partial(both, pallas_norm.over(mesh)))
    found = function(x, vectors, gradients)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert found[2].sharding.is_equivalent_to(batch_sharding(mesh), 3)
    # what is learned has its gradients summed up over the devices, and no token travels
    text = function.lower(x, vectors, gradients).compile().as_text()
    assert "all-reduce(" in text
    assert not any(name in text for name in ("all-gather", "reduce-scatter", "all-to-all"))


def test_a_jax_without_the_kernels_language_has_xlas_norms(monkeypatch):
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(pallas, "first_device", lambda mesh: H100)
    monkeypatch.setattr(norm, "lacking", norm.lacking.__wrapped__)
    monkeypatch.setattr(norm, "import_module", missing)
    reason = "makes no kernel in Pallas here (fmjax.kernels.pallas_norm)"
    assert unfit(HERE, dtype=BF16, width=64).endswith(reason)
    assert chosen("auto", HERE, dtype=BF16, width=64) is None


def kernels(text: str) -> int:
    return text.count("xla.gpu.triton")


def test_a_block_has_two_norms_of_one_kernel_each_way(params, monkeypatch):  # noqa: F811
    # a newer jax makes them only where a GPU is
    made = not norm.lacking()
    monkeypatch.setattr(norm, "unfit", lambda *_, **__: norm.lacking())
    # two forward, two more for the products on the way back, and two backward
    assert kernels(lowered(params, remat="dots", norms="auto")) == 6 * made
    assert kernels(lowered(params, remat="none", norms="auto")) == 4 * made
    assert kernels(lowered(params, remat="dots", norms="xla")) == 0


def test_the_flag_and_a_cpu_keep_xlas_program(params):  # noqa: F811
    assert lowered(params, norms="auto") == lowered(params, norms="xla")
    with pytest.raises(UsageError, match=r"--norms pallas: .* not for 'cpu'; choose xla, or auto"):
        lowered(params, norms="pallas")


def halved(x, scale, bias, eps, constant):
    """Half the gradient of the scale."""
    scale = (scale + jax.lax.stop_gradient(scale)) / 2
    return xla.forked(x, scale, bias, eps, constant)


def forgetful(x, scale, bias, eps, constant):
    """No gradient of what is in x."""
    return xla.forked(x, scale, bias, eps)


def failing(x, scale, bias, eps, constant):
    raise RuntimeError("no PTX")


REASONS = {
    failing: r"it fails \(RuntimeError: no PTX\)",
    halved: r"its gradients of scales deviate by 0\.5, where 0\.0078 is allowed",
    forgetful: r"its gradients of constants deviate by 1, where 0\.0078 is allowed",
}


@pytest.mark.parametrize("wrong", REASONS, ids=lambda wrong: wrong.__name__)
def test_a_wrong_kernel_is_switched_off(wrong, monkeypatch, capsys):
    monkeypatch.setattr(devices, "compute_capability", lambda device: 9.0)
    monkeypatch.setattr(norm, "lacking", lambda: "")
    asked = {"dtype": BF16, "width": 64}
    trust.verdict.cache_clear()
    assert chosen("auto", HERE, **asked) is pallas_norm.over(HERE)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(norm, "fork", lambda mesh=None: wrong)
    monkeypatch.setattr(trust, "versions", lambda: f"with {wrong.__name__}")
    trust.verdict.cache_clear()
    assert chosen("auto", HERE, **asked) is None
    assert "the kernel of norms is switched off on 'cpu'" in capsys.readouterr().err
    with pytest.raises(UsageError, match=f"^--norms pallas: on 'cpu' {REASONS[wrong]}; choose xla"):
        chosen("pallas", HERE, **asked)
    trust.verdict.cache_clear()
