"""What XLA is told: what the user asks for, and what makes a GPU give the same bits each time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fmjax.bench.plans import planned
from fmjax.config import ModelConfig, RunConfig
from fmjax.engine import compiler, determinism, step
from fmjax.engine.compiler import asked, refusal
from fmjax.engine.determinism import OPTIONS, chosen, of_same_bits
from fmjax.errors import UsageError
from fmjax.sharding import make_mesh

UNKNOWN = {"xla_gpu_no_such_option": True}


@pytest.fixture(autouse=True)
def told_anew():
    compiler._left_out.cache_clear()


def test_options_are_given_to_xla_as_it_spells_them(capsys):
    found = asked(
        (
            "xla_gpu_enable_latency_hiding_scheduler=true",
            "xla_gpu_autotune_level=3",
            "xla_gpu_triton_gemm_any=False",
        )
    )
    assert found == {
        "xla_gpu_enable_latency_hiding_scheduler": True,
        "xla_gpu_autotune_level": "3",
        "xla_gpu_triton_gemm_any": False,
    }
    assert capsys.readouterr().err == ""


def test_what_xla_does_not_know_is_left_out_with_one_line(capsys):
    unknown = ("xla_gpu_no_such_option=1", "xla_gpu_autotune_level=high")
    assert asked(unknown) == {}
    assert asked((*unknown, "xla_gpu_autotune_level=3")) == {"xla_gpu_autotune_level": "3"}
    first, second = capsys.readouterr().err.splitlines()
    assert first == (
        "note    --compiler-options 'xla_gpu_no_such_option=1' is left out: "
        "No such compile option: 'xla_gpu_no_such_option'"
    )
    assert second.endswith("'high' is not a valid int32 value.")


def test_the_step_and_the_outputs_are_compiled_with_them(monkeypatch):
    mesh, given = make_mesh(), []
    option = "xla_gpu_autotune_level=0"
    config = RunConfig(model=ModelConfig(name="demo_vit_ti4"), compiler_options=(option,))
    assert asked(config.compiler_options)  # tried before nothing can be
    plans = [planned(replace(config, deterministic=same), mesh) for same in (False, True)]

    def jit(function, **options):
        given.append(options)
        return function

    monkeypatch.setattr(step.jax, "jit", jit)
    monkeypatch.setattr(step, "of_same_bits", lambda mesh: {"xla_gpu_deterministic_ops": True})
    for plan in plans:
        step.compiled(plan, mesh)
    alone = {"xla_gpu_autotune_level": "0"}
    both = alone | {"xla_gpu_deterministic_ops": True}
    # of each plan the step, and what evaluation runs
    assert [options["compiler_options"] for options in given] == [alone, alone, both, both]


@pytest.mark.parametrize("told", [("autotune=1",), ("xla_a=1", "xla_a=2"), ("xla_a",), ("xla_a=",)])
def test_what_is_no_option_or_there_twice_is_refused(told):
    with pytest.raises(
        UsageError, match=r"^--compiler-options is .*; it must be xla_NAME=VALUE, each"
    ):
        RunConfig(compiler_options=told)


def test_other_devices_are_told_nothing():
    assert of_same_bits(make_mesh()) == {}


def test_a_gpu_is_told_what_this_xla_knows():
    assert chosen("gpu") == OPTIONS[0]
    assert chosen("tpu") == {}


@pytest.mark.parametrize("row", OPTIONS)
def test_every_row_is_known_to_this_xla(row):
    assert refusal(tuple(row.items())) == ""


def test_an_option_that_xla_has_dropped_is_replaced_and_none_is_a_sentence(monkeypatch):
    monkeypatch.setattr(determinism, "OPTIONS", (UNKNOWN, OPTIONS[1]))
    assert chosen("gpu") == OPTIONS[1]
    monkeypatch.setattr(determinism, "OPTIONS", (UNKNOWN,))
    with pytest.raises(
        UsageError, match=r"^--deterministic needs an option of XLA that jaxlib \S+ does not know"
    ):
        chosen("gpu")
