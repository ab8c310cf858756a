"""fmjax's own kernel of attention: that it computes what XLA does, where it is chosen, and how it is divided."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fmjax.errors import UsageError
from fmjax.kernels import attention, cudnn, devices, pallas_attention, trust, xla
from fmjax.kernels.attention import FEW, Chosen, chosen, told
from fmjax.kernels.pallas_attention import Tiles
from fmjax.sharding import BATCH_AXES, make_mesh
from tests.unit.test_kernels import (  # noqa: F401
    A100,
    BF16,
    CPU,
    H100,
    HERE,
    T4,
    Device,
    lowered,
    params,
)

B200 = Device("NVIDIA B200", "10.0")
ASKED = {"dtype": BF16, "heads": 12, "head_dim": 64, "tokens": 257}


def given(queries: int, keys: int, width: int, dtype: Any, *, heads: int = 3) -> list[Any]:
    """Queries, keys and values, and a gradient."""
    shapes = [(2, heads, tokens, width) for tokens in (queries, keys, keys, queries)]
    numbers = jax.random.split(jax.random.key(0), 4)
    return [
        jax.random.normal(key, shape, dtype) for key, shape in zip(numbers, shapes, strict=True)
    ]


def both(attend: Any, *arrays: Any) -> list[Any]:
    """Values and gradients."""
    *inputs, seed = arrays
    value, back = jax.vjp(attend, *inputs)
    return [value, *back(seed)]


# full tiles and something left, full ones alone, less than one, and fewer queries than keys
@pytest.mark.parametrize(
    ("queries", "keys", "width"), [(53, 53, 24), (32, 32, 16), (5, 5, 16), (1, 37, 8)]
)
@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 2e-6), ("bfloat16", 2**-7)])
def test_the_kernels_compute_what_xla_does(queries, keys, width, dtype, allowed, monkeypatch):
    monkeypatch.setattr(pallas_attention, "FORWARD", {24: Tiles(16, 32, 1)})
    monkeypatch.setattr(pallas_attention, "BACKWARD", {24: Tiles(32, 16, 1)})
    *inputs, seed = given(queries, keys, width, dtype)
    y, lse = pallas_attention._values(*inputs, trained=True, interpret=True)
    [alone] = pallas_attention._values(*inputs, trained=False, interpret=True)
    assert np.array_equal(alone, y)
    found = [y, *pallas_attention._gradients(*inputs, y, lse, seed, interpret=True)]
    expected = both(xla.attend, *(x.astype(jnp.float32) for x in (*inputs, seed)))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        difference = np.linalg.norm(np.asarray(a, np.float32) - np.asarray(b))
        assert difference <= allowed * np.linalg.norm(b)

    *same, of_q, of_k, of_v = pallas_attention._gradients(
        *inputs, y, lse, seed, biased=True, interpret=True
    )
    for a, b in zip(same, found[1:], strict=True):
        assert np.array_equal(a, b)
    for total, gradient, of_one in zip((of_q, of_k, of_v), expected[1:], inputs, strict=True):
        assert total.dtype == jnp.float32
        assert total.shape == (of_one.shape[1], width)
        # those of k add up to 0 but for rounding: what counts is the size of what is added up
        difference = np.linalg.norm(total - gradient.sum((0, 2)))
        assert difference <= allowed * np.linalg.norm(gradient)


@pytest.mark.parametrize("without", [(), (1,), (0, 1, 2)], ids=["none", "k", "all"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)], ids=["one device", "all axes"])
def test_it_gives_the_gradients_of_biases(sizes, without):
    mesh = make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    arrays = [jnp.concatenate([x, 2 * x]) for x in given(17, 17, 16, "float32", heads=4)]
    rows = jax.random.normal(jax.random.key(1), (3, 4, 16))
    biases = tuple(None if index in without else rows[index] for index in range(3))

    def biased(biases: Any, *inputs: Any) -> Any:
        pairs = zip(inputs, biases, strict=True)
        return [x if bias is None else x + bias[:, None] for x, bias in pairs]

    def plain(biases: Any, *inputs: Any) -> Any:
        return xla.attend(*biased(biases, *inputs))

    def by_kernel(biases: Any, *inputs: Any) -> Any:
        constant = jax.lax.stop_gradient(biases)
        return pallas_attention.over(mesh)(*biased(constant, *inputs), biases)

    found, expected = (
        jax.jit(lambda biases, *arrays, f=f: both(f, biases, *arrays))(biases, *arrays)
        for f in (by_kernel, plain)
    )
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("device", "changed", "expected"),
    [
        (H100, {}, attention.by_pallas),
        (H100, {"dtype": jnp.float16}, attention.by_pallas),
        (H100, {"head_dim": 128}, attention.by_pallas),
        (H100, {"tokens": FEW}, attention.by_pallas),
        # where it was measured to be slower, or was not measured
        (H100, {"tokens": FEW + 1}, cudnn.attend),
        (H100, {"head_dim": 88}, cudnn.attend),
        (A100, {}, cudnn.attend),
        (B200, {}, cudnn.attend),
        (H100, {"dtype": jnp.float32}, xla.attend),
        (CPU, {}, xla.attend),
    ],
)
def test_it_is_chosen_where_it_was_measured_to_be_faster(device, changed, expected, monkeypatch):
    monkeypatch.setattr(attention, "first_device", lambda mesh: device)
    monkeypatch.setattr(attention, "lacking", lambda: "")
    assert chosen("auto", HERE, **ASKED | changed).attend is expected


@pytest.mark.parametrize(
    ("device", "mesh", "changed", "reason"),
    [
        (A100, HERE, {"head_dim": 88, "tokens": 1000}, ""),
        (T4, HERE, {}, "the kernel is for GPUs of NVIDIA of compute capability 8.0, and not for"),
        (H100, HERE, {"dtype": jnp.float32}, "the kernel is for bfloat16 and float16, and not for"),
        (H100, HERE, {"head_dim": 136}, "heads are 136 wide, and the kernel takes up to 128"),
        (H100, None, {}, "without a mesh the kernel is not divided over 8 devices"),
        (
            H100,
            make_mesh(1, 1, 8),
            {},
            "12 heads do not divide over 8 devices of mesh axis 'tensor'",
        ),
    ],
)
def test_by_its_name_it_is_used_or_refused(device, mesh, changed, reason, monkeypatch):
    monkeypatch.setattr(attention, "first_device", lambda mesh: device)
    monkeypatch.setattr(attention, "lacking", lambda: "")
    if not reason:
        assert chosen("pallas", mesh, **ASKED | changed).attend is attention.by_pallas
        return
    with pytest.raises(UsageError) as refused:
        chosen("pallas", mesh, **ASKED | changed)
    assert str(refused.value).startswith(f"--attention pallas: {reason}")
    # left to the devices it is none of it that is said
    chosen("auto", mesh, **ASKED | changed)


def test_what_computes_on_a_device_is_told(monkeypatch):
    monkeypatch.setattr(attention, "lacking", lambda: "")
    assert told(A100, BF16) == "cuDNN's kernels"
    assert told(H100, BF16) == "a kernel in Pallas up to 400 tokens, beyond them cuDNN's kernels"
    monkeypatch.setattr(attention, "lacking", lambda: "no")
    assert told(H100, BF16) == "cuDNN's kernels; of few tokens too: no"


def test_a_wrong_kernel_is_switched_off(monkeypatch, capsys):
    monkeypatch.setattr(attention, "compute_capability", lambda device: 9.0)
    monkeypatch.setattr(devices, "compute_capability", lambda device: 9.0)
    monkeypatch.setattr(attention, "lacking", lambda: "")
    wrong = {"pallas": Chosen(lambda q, k, v, biases: 1.1 * xla.attend(q, k, v), sums=True)}
    monkeypatch.setattr(attention, "KERNELS", attention.KERNELS | wrong)
    trust.verdict.cache_clear()
    assert chosen("auto", HERE, **ASKED).attend is cudnn.attend
    assert "the kernel of attention is switched off on 'cpu': its values" in capsys.readouterr().err
    # one that leaves out what it was asked for is told by its gradients
    wrong = {"pallas": Chosen(lambda q, k, v, biases: xla.attend(q, k, v), sums=True)}
    monkeypatch.setattr(attention, "KERNELS", attention.KERNELS | wrong)
    trust.verdict.cache_clear()
    monkeypatch.setattr(trust, "_read", lambda path: None)
    assert chosen("auto", HERE, **ASKED).attend is cudnn.attend
    assert "its gradients of biases deviate by 1" in capsys.readouterr().err
    trust.verdict.cache_clear()


@pytest.mark.parametrize(("remat", "expected"), [("none", 1), ("dots", 1), ("full", 2)])
def test_a_block_has_the_kernel_once_each_way(params, monkeypatch, remat, expected):  # noqa: F811
    # a newer jax makes them only where a GPU is
    made = not attention.lacking()
    monkeypatch.setattr(attention, "unfit", lambda *_, **__: "")
    monkeypatch.setattr(attention, "undivided", lambda *_: "")
    if not made:
        with pytest.raises(Exception, match=r".+"):
            lowered(params, remat=remat, attention="pallas")
        return
    text = lowered(params, remat=remat, attention="pallas")
    assert text.count("xla.gpu.triton") == expected + 1
    assert "17x17x" not in text


@pytest.mark.parametrize("sizes", [(2, 1, 1), (2, 2, 2)], ids=["data", "all axes"])
def test_each_device_computes_its_own_heads_of_its_own_images(sizes):
    mesh = make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    arrays = [jnp.concatenate([x, 2 * x]) for x in given(17, 17, 16, "float32", heads=4)]
    expected = both(xla.attend, *arrays)
    place = NamedSharding(mesh, PartitionSpec(BATCH_AXES, "tensor"))
    divided = [jax.device_put(x, place) for x in arrays]
    function = jax.jit(lambda *arrays: both(pallas_attention.over(mesh), *arrays))
    for a, b in zip(function(*divided), expected, strict=True):
        assert a.sharding.is_equivalent_to(place, a.ndim)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    text = function.lower(*divided).compile().as_text()
    assert not any(name in text for name in ("all-gather", "all-reduce", "all-to-all"))
