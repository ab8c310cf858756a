"""A kernel that fails or deviates on a device is not used there, and one line says so."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from fmjax.errors import UsageError
from fmjax.kernels import attention, cudnn, trust, xla
from fmjax.sharding import make_mesh
from fmjax.store.record import cache_folder
from tests.unit.test_kernels import A100, BF16, CPU

SHAPE = (2, 2, attention.TOKENS, 16)
ASKED = {"dtype": BF16, "heads": 2, "head_dim": 16, "tokens": 17}


def failing(q, k, v):
    raise RuntimeError("CUDNN_STATUS_NOT_SUPPORTED\nno engine")


def padded(q, k, v):
    """A token of zeros more than there are."""
    more = ((0, 0), (0, 0), (0, 1), (0, 0))
    return xla.attend(q, jnp.pad(k, more), jnp.pad(v, more))


@jax.custom_vjp
def half_a_gradient(q, k, v):
    return xla.attend(q, k, v)


def nan(q, k, v):
    return xla.attend(q, k, v) * jnp.nan


half_a_gradient.defvjp(
    lambda q, k, v: (xla.attend(q, k, v), (q, k, v)),
    lambda kept, g: tuple(
        x * share for x, share in zip(jax.vjp(xla.attend, *kept)[1](g), (1, 0.97, 1), strict=True)
    ),
)
REASONS = {
    failing: r"it fails \(RuntimeError: CUDNN_STATUS_NOT_SUPPORTED\\nno engine\)",
    padded: r"its values deviate by 0\.0\d+, where 0\.0078 is allowed",
    half_a_gradient: r"its gradients of k deviate by 0\.03\d?, where 0\.0078 is allowed",
    nan: r"its values deviate by nan, where 0\.0078 is allowed",
}


@pytest.fixture(autouse=True)
def anew():
    """Nothing is remembered by the process from another test."""
    trust.verdict.cache_clear()
    yield
    trust.verdict.cache_clear()


@pytest.fixture
def capable(monkeypatch):
    """This machine's CPUs as if they were GPUs."""
    monkeypatch.setattr(attention, "compute_capability", lambda device: 8.0)
    return make_mesh(devices=jax.devices()[:1])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("width", [16, 64, 88])
def test_plain_attention_in_half_precision_is_well_within_what_is_allowed(dtype, width):
    kernel = trust.Kernel("plain", xla.attend, xla.attend, (*SHAPE[:3], width), dtype)
    assert trust.tried(kernel, jax.devices()[0]) == ""


@pytest.mark.parametrize("wrong", REASONS, ids=lambda wrong: wrong.__name__)
def test_a_wrong_kernel_is_switched_off_with_one_line_which_is_remembered(
    wrong, capable, capsys, monkeypatch
):
    monkeypatch.setitem(attention.KERNELS, "cudnn", attention.Chosen(wrong))
    assert attention.chosen("auto", capable, **ASKED).attend is xla.attend
    assert attention.chosen("auto", capable, **ASKED).attend is xla.attend
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("note    cuDNN's attention is switched off on 'cpu': ")
    with pytest.raises(
        UsageError, match=f"^--attention cudnn: on 'cpu' {REASONS[wrong]}; choose xla"
    ):
        attention.chosen("cudnn", capable, **ASKED)

    # another process finds it in the cache folder, and tries nothing; `fmjax doctor` says it
    [found] = trust.remembered()
    case = f"bfloat16 2 x 2 x {attention.TOKENS} x 16, q, k, v"
    assert (found.device, found.case) == ("cpu", case)
    monkeypatch.setattr(trust, "tried", None)
    trust.verdict.cache_clear()
    assert attention.chosen("auto", capable, **ASKED).attend is xla.attend
    assert capsys.readouterr().err == line


def test_the_doctor_says_which_kernel_is_used(capable, monkeypatch):
    [device] = capable.devices.flat
    assert attention.told(device, BF16) == "cuDNN's kernels"
    monkeypatch.setitem(attention.KERNELS, "cudnn", attention.Chosen(failing))
    trust.verdict.cache_clear()
    told = attention.told(device, jnp.float16)
    assert told.startswith("XLA's products: on 'cpu' it fails (RuntimeError: CUDNN_STATUS")


def test_a_right_kernel_is_used_and_nothing_is_said(capable, capsys):
    # here it is the plain path, by the platform
    assert attention.chosen("auto", capable, **ASKED).attend is cudnn.attend
    assert capsys.readouterr().err == ""
    assert [found.reason for found in trust.remembered()] == [""]


def test_it_is_tried_while_a_model_is_traced(capable):
    tried = []

    def body(carry, _):
        tried.append(attention.chosen("auto", capable, **ASKED).attend)
        return 2 * carry, None

    doubled = jax.jit(jax.grad(lambda x: jax.lax.scan(body, x, None, length=3)[0]))
    assert doubled(1.0) == 8
    assert set(tried) == {cudnn.attend}


def test_other_versions_and_damaged_files_are_tried_again(capable, monkeypatch):
    attention.chosen("auto", capable, **ASKED)
    [path] = (cache_folder() / trust.FOLDER).iterdir()
    whole = path.read_text()
    for wrong in ("", "[]", "{", '{"kernel": 1}', whole.replace("case", "place")):
        path.write_text(wrong)
        assert list(trust.remembered()) == []
        trust.verdict.cache_clear()
        attention.chosen("auto", capable, **ASKED)
        assert path.read_text() == whole
    monkeypatch.setattr(trust, "versions", lambda: "jax 99")
    assert list(trust.remembered()) == []
    trust.verdict.cache_clear()
    attention.chosen("auto", capable, **ASKED)
    assert len(list((cache_folder() / trust.FOLDER).iterdir())) == 2


def test_without_a_place_to_keep_it_a_verdict_holds_for_the_process(capable, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FMJAX_CACHE", str(tmp_path / "file"))
    assert attention.chosen("auto", capable, **ASKED).attend is cudnn.attend


def test_devices_that_are_not_here_are_trusted_and_nothing_is_kept(monkeypatch):
    for device, expected in ((A100, cudnn.attend), (CPU, xla.attend)):
        monkeypatch.setattr(attention, "first_device", lambda mesh, device=device: device)
        assert attention.chosen("auto", None, **ASKED).attend is expected
    assert list(trust.remembered()) == []
