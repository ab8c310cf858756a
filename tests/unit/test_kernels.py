"""Which kernel computes attention, what the chosen one makes of a program, and what blocks keep of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fmjax.errors import UsageError
from fmjax.kernels import attention, cudnn, xla
from fmjax.kernels.attention import MANY, chosen, unfit
from fmjax.kernels.devices import compute_capability
from fmjax.models import stack
from fmjax.models.build import initialise
from fmjax.models.functional import functional
from fmjax.sharding import first_device, make_mesh
from tests.support.checkpoints import small

BF16 = jnp.bfloat16
HERE = make_mesh(devices=jax.devices()[:1])


@dataclass(frozen=True)
class Device:
    """What is asked of a device."""

    device_kind: str
    compute_capability: Any = None
    platform: str = "gpu"


H100, A100 = Device("NVIDIA H100 80GB HBM3", "9.0"), Device("NVIDIA A100-SXM4-40GB", "8.0")
T4, MI300, CPU = Device("Tesla T4", "7.5"), Device("AMD MI300X", "gfx942"), Device("cpu", "", "cpu")


@pytest.mark.parametrize(
    ("device", "dtype", "head_dim", "reason"),
    [
        (H100, BF16, 64, ""),
        (H100, jnp.float16, 88, ""),
        (H100, BF16, 256, ""),
        (A100, BF16, 128, ""),
        (A100, BF16, 136, "heads are 136 wide, and cuDNN takes multiples of 8 up to 128"),
        (H100, BF16, 100, "heads are 100 wide, and cuDNN takes multiples of 8 up to 256"),
        (H100, jnp.float32, 64, "cuDNN's attention is in bfloat16 and float16, and not in float32"),
        (
            T4,
            jnp.float16,
            64,
            "cuDNN's attention needs compute capability 8.0, and 'Tesla T4' has 7.5",
        ),
        (MI300, BF16, 64, "cuDNN runs on GPUs of NVIDIA, and not on 'AMD MI300X'"),
        (CPU, BF16, 64, "cuDNN runs on GPUs of NVIDIA, and not on 'cpu'"),
    ],
)
def test_a_kernel_is_chosen_by_device_dtype_and_width_of_heads(
    device, dtype, head_dim, reason, monkeypatch
):
    monkeypatch.setattr(attention, "first_device", lambda mesh: device)
    asked = {"dtype": dtype, "head_dim": head_dim}
    shape = {"heads": 12, "tokens": MANY - 1}
    assert unfit("cudnn", device=device, **asked) == reason
    assert chosen("auto", HERE, **asked, **shape).attend is (xla.attend if reason else cudnn.attend)
    assert chosen("xla", HERE, **asked, **shape).attend is xla.attend
    if not reason:
        assert chosen("cudnn", HERE, **asked, **shape).attend is cudnn.attend
        return
    with pytest.raises(UsageError) as refused:
        chosen("cudnn", HERE, **asked, **shape)
    assert str(refused.value) == f"--attention cudnn: {reason}; choose xla, or auto"


def test_a_jax_whose_primitives_are_unknown_has_none(monkeypatch):
    class Other:
        """A version whose rule takes an argument more."""

        MaskType, AttentionLayout = cudnn.import_module(cudnn.HOME).MaskType, None

    def asked(why: str) -> None:
        assert cudnn.lacking().endswith(
            "has no primitives of cuDNN's attention that are known here"
        )
        assert chosen("auto", HERE, **asked_for).attend is xla.attend, why
        with pytest.raises(UsageError, match="no primitives of cuDNN's attention"):
            chosen("cudnn", HERE, **asked_for)

    monkeypatch.setattr(attention, "first_device", lambda mesh: H100)
    asked_for = {"dtype": BF16, "heads": 12, "head_dim": 64, "tokens": MANY}
    home = cudnn.import_module(cudnn.HOME)
    rule = home._dot_product_attention_fwd_rule
    monkeypatch.setattr(cudnn, "primitives", cudnn.primitives.__wrapped__)
    assert cudnn.lacking() == ""
    monkeypatch.setattr(home, "_dot_product_attention_fwd_rule", lambda query, sinks: None)
    asked("another argument")
    monkeypatch.setattr(home, "_dot_product_attention_fwd_rule", rule)
    monkeypatch.delattr(home, "_dot_product_attention_bwd_p_wrapper")
    asked("another name")
    monkeypatch.setattr(cudnn, "HOME", "jax._src.nowhere")
    asked("another place")


def test_where_there_is_no_cuda_its_kernel_is_the_plain_function_to_the_bit():
    q, k, v, seed = (jax.random.normal(jax.random.key(i), (2, 3, 17, 16), BF16) for i in range(4))

    def both(attend):
        value, back = jax.vjp(jax.jit(attend), q, k, v)
        return value, *back(seed)

    for found, expected in zip(both(cudnn.attend), both(xla.attend), strict=True):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_no_product_of_xlas_attention_has_numbers_wider_than_its_own(dtype):
    q = jnp.zeros((2, 3, 17, 16), dtype)
    total = jax.grad(lambda *qkv: xla.attend(*qkv).astype(jnp.float32).sum(), (0, 1, 2))
    text = jax.jit(total).lower(q, q, q).as_text()
    products = re.findall(r"dot_general.* : \(tensor<[\dx]*(\w+)>, tensor<[\dx]*(\w+)>\)", text)
    short = {"bfloat16": "bf16", "float32": "f32"}[dtype]
    # two forward, whose values the total does not need, and two back for each of them
    assert len(products) >= 5
    assert set(products) == {(short, short)}


@pytest.fixture(scope="module")
def params():
    """Of a tower of 17 tokens."""
    return functional(tower())[1]


def tower(**options: Any):
    spec = small("ViT-B-16", depth=3)
    return initialise(spec, nnx.Rngs(0), dtype=BF16, num_classes=2, **options)


def lowered(params: Any, **options: Any) -> str:
    """A training gradient as StableHLO for a GPU of NVIDIA, which need not be here."""
    apply, _ = functional(tower(**options))
    images = jnp.zeros((2, *tower().spec.image_size, 3))
    gradient = jax.jit(jax.grad(lambda params: apply(params, images).logits.astype(float).sum()))
    return gradient.trace(params).lower(lowering_platforms=("cuda",)).as_text()


def calls(text: str) -> tuple[int, int]:
    return text.count("@__cudnn$fmhaSoftmax("), text.count("@__cudnn$fmhaSoftmaxBackward(")


@pytest.mark.parametrize(
    ("remat", "expected"), [("none", (1, 1)), ("dots", (1, 1)), ("full", (2, 1))]
)
def test_odd_tokens_train_by_the_kernel_which_only_full_computes_twice(
    params, monkeypatch, remat, expected
):
    # a scan's body stands in a program once, whatever the depth
    monkeypatch.setattr(attention, "unfit", lambda *_, **__: "")
    text = lowered(params, remat=remat, attention="cudnn")
    assert calls(text) == expected
    tokens = 1 + int(np.prod(tower().spec.grid))
    assert tokens % 2
    # no array has a row and a column for every token
    assert f"{tokens}x{tokens}x" not in text
    assert f"{tokens}x{tokens}x" in lowered(params, remat=remat, attention="xla")


def test_the_flag_and_a_cpu_keep_xlas_program(params):
    assert compute_capability(jax.devices()[0]) is None
    assert lowered(params, attention="auto") == lowered(params, attention="xla")
    with pytest.raises(
        UsageError, match=r"--attention cudnn: .* not on 'cpu'; choose xla, or auto"
    ):
        lowered(params, attention="cudnn")


def test_products_are_kept_unless_something_else_is_asked_for(params):
    assert [stack.kept(remat) for remat in ("auto", "none", "full")] == ["dots", "none", "full"]
    programs = {remat: lowered(params, remat=remat) for remat in ("auto", "dots", "none")}
    assert programs["auto"] == programs["dots"] != programs["none"]


# a product of bfloat16 may be added up in it, in an order of the shape's own
@pytest.mark.parametrize(("dtype", "close"), [("float32", 2e-6), ("bfloat16", 2**-6)])
def test_head_by_head_attention_is_the_same_function(dtype, close):
    q = jax.random.normal(jax.random.key(0), (2, 3, 19, 8), dtype)
    k, v = (jax.random.normal(jax.random.key(seed), (2, 3, 23, 8), dtype) for seed in (1, 2))
    found, expected = (np.asarray(f(q, k, v), np.float32) for f in (xla.by_head, xla.attend))
    np.testing.assert_allclose(found, expected, rtol=close, atol=close)

    def gradients(attend):
        # of a sum of squares: the seed of the way back depends on the values
        total = jax.grad(lambda *given: jnp.square(attend(*given)).sum(), (0, 1, 2))
        return jax.jit(total)(q, k, v)

    # they are computed in float32, and the others of bfloat16 in it
    for found, expected in zip(gradients(xla.by_head), gradients(xla.attend), strict=True):
        found, expected = (np.asarray(x, np.float32) for x in (found, expected))
        np.testing.assert_allclose(found, expected, rtol=0, atol=close * np.abs(expected).max())


@pytest.mark.parametrize("mesh", [HERE, None], ids=["a mesh", "where jax puts it"])
def test_many_tokens_are_attended_to_head_by_head_on_one_cpu_alone(mesh, monkeypatch):
    def found(kernel: Any = "auto", *, tokens: int, mesh: Any = mesh) -> Any:
        asked = {"dtype": jnp.float32, "heads": 12, "head_dim": 64}
        return chosen(kernel, mesh, **asked, tokens=tokens).attend

    assert found(tokens=MANY - 1) is xla.attend
    assert found(tokens=MANY) is xla.by_head
    assert found("xla", tokens=MANY) is xla.attend
    assert found(tokens=MANY, mesh=make_mesh()) is xla.attend
    monkeypatch.setattr(attention, "first_device", lambda mesh: H100)
    assert found(tokens=MANY) is xla.attend


def test_no_array_has_the_scores_of_all_heads_on_one_cpu():
    size = 16 * 23  # 530 tokens

    def scores(*, training: bool, **options: Any) -> bool:
        spec = small("ViT-B-16", depth=3)
        apply, params = functional(initialise(spec, nnx.Rngs(0), **options))
        images = jnp.zeros((2, size, size, 3))

        def total(params: Any) -> Any:
            return apply(params, images).patches.sum()

        lowered = jax.jit(jax.grad(total) if training else total).lower(params)
        return f"2x{spec.num_heads}x530x530x" in lowered.as_text()

    assert not scores(training=False)
    assert not scores(training=True)
    assert scores(training=False, attention="xla")
    assert scores(training=True, attention="xla")
    assert scores(training=False, mesh=make_mesh())
    assert not scores(training=False, mesh=make_mesh(devices=jax.devices()[:1]))


def test_a_program_goes_where_jax_is_told_to_put_it():
    cpus = jax.devices()
    with jax.default_device(cpus[3]):
        assert first_device() == cpus[3]
    with jax.default_device("cpu"):
        assert first_device() == cpus[0]
