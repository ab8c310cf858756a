"""What a run says it would take, and into how many parts it puts a batch to fit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import pytest

from fmjax.cli import main
from fmjax.config.presets import load_preset
from fmjax.config.run import MeshConfig
from fmjax.engine.ahead import Ahead, compiled_ahead
from fmjax.engine.costs import Memory
from fmjax.engine.fitting import choices_of, fit
from fmjax.engine.step import train_step
from fmjax.engine.throughput import step_flops
from fmjax.errors import UsageError
from fmjax.programs.dry_run import dry_run
from fmjax.sharding import make_mesh
from tests.support.products import products
from tests.support.runs import SHORT, losses, started

pytestmark = pytest.mark.usefixtures("quick_compiler")

QUICK = replace(load_preset("quickstart"), batch_size=64, steps=6)
GIB = 2**30
AUTO = [*SHORT, "--recipe.warmup-steps", "2", "--no-compare-random", "--batch", "auto"]


def no_weights(*args, **kwargs):
    raise AssertionError("weights were looked for")


@pytest.fixture(scope="module")
def run():
    """A run on eight devices, ready for its first step."""
    return started(QUICK, make_mesh(2, 4))


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """The numbers of parts that were tried; a step takes 100 GiB of a device and 800 for its images."""
    tried: list[int] = []

    def ahead(plan, mesh):
        tried.append(plan.accumulate)
        memory = Memory(100 * GIB, 800 * GIB // plan.accumulate, 0)
        return Ahead(SimpleNamespace(memory_analysis=lambda: analysis(memory)), 0.0, 0.0)

    monkeypatch.setattr("fmjax.engine.fitting.compiled_ahead", ahead)
    return tried


def analysis(memory: Memory) -> SimpleNamespace:
    """As a compiler gives it."""
    return SimpleNamespace(
        argument_size_in_bytes=memory.arguments,
        temp_size_in_bytes=memory.temporaries,
        output_size_in_bytes=memory.arguments,
        alias_size_in_bytes=memory.arguments,
    )


def test_a_dry_run_reads_no_weights_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fmjax.store.locate.locate", no_weights)
    flags = ["--mesh.fsdp", "4", "--memory-gib", "16", "--model.name", "dinov2_vits14.lvd142m"]
    size = ["--model.image-size", "28", "28", "--no-compare-random"]
    assert main(["finetune", "quickstart", "--dry-run", *flags, *size]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "data 2 x fsdp 4 x tensor 1 (cpu), batch 64" in lines["mesh"]
    assert " MiB a device, of 16.0 GiB: " in lines["memory"]
    assert "to the first step" in lines["start"]
    assert "over fsdp" in lines["all-gather"]
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_refuses_what_a_run_refuses(tmp_path, capsys):
    flags = ["--dry-run", "--out", str(tmp_path / "run")]
    assert main(["finetune", "quickstart", *flags, "--batch-size", "12"]) == 2
    assert "--batch-size 12 does not divide over 8 devices" in capsys.readouterr().err
    assert main(["finetune", "quickstart", *flags, "--model.image-size", "30", "30"]) == 2
    assert "30" in capsys.readouterr().err


def test_what_a_dry_run_counts_is_what_the_run_compiles(run):
    costs = dry_run(replace(QUICK, mesh=MeshConfig(data=2, fsdp=4), out="nowhere"))
    program = run.functions.step.lower(run.state, run.batch()).compile()
    real = program.memory_analysis()
    assert costs.memory.arguments == real.argument_size_in_bytes
    assert costs.memory.temporaries == real.temp_size_in_bytes
    # six kernels, of q, k, v, out, up and down: each gathered for both passes of each of five blocks; the sixth, which
    # computes the class token alone, is in no loop
    gathered = [row for row in costs.collectives if row.kind == "all-gather" and row.trips == 5]
    assert sum(row.count for row in gathered) == 5 * 6 * 2


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {
            "rates": (
                (r"backbone\.blocks\.[0-3]\..*", 0.0),
                (r"backbone\.(patch_embed.*|.*token|pos_embed)", 0.0),
            )
        },
        {"rates": ((r"backbone\..*", 0.0),)},
        {"lora_rank": 8, "lora_targets": r"backbone\.blocks\..*"},
    ],
    ids=["all", "last two blocks", "head", "adapters"],
)
def test_flops_of_a_step_are_those_of_its_traced_products(fields):
    # the formula does not count what blocks compute again
    config = replace(QUICK, remat="none", recipe=replace(QUICK.recipe, **fields))
    one = started(config, make_mesh(devices=jax.devices()[:1]))
    step = partial(train_step, plan=one.plan, mesh=one.mesh)
    traced = products(jax.make_jaxpr(step)(one.state, one.batch()).jaxpr)
    # the head is not the backbone's, and the first trained block's input has no gradient that anyone asks for
    assert step_flops(one.plan) == pytest.approx(traced, rel=0.05)


@pytest.mark.parametrize(
    ("limit", "parts", "compilations"),
    [
        (900, 1, [1]),
        (899, 2, [1, 4, 2]),
        (400, 4, [1, 4, 2]),
        (299, 8, [1, 4, 8]),
        (200, 8, [1, 4, 8]),
    ],
)
def test_the_fewest_parts_that_fit_are_chosen(run, counted, limit, parts, compilations):
    assert choices_of(run.plan, run.mesh) == [1, 2, 4, 8]
    found = fit(run.plan, run.mesh, limit * GIB)
    assert found.parts == parts
    assert found.tried[parts].total <= limit * GIB
    assert counted == compilations


def test_the_parts_that_are_given_are_the_fewest(run, counted):
    assert fit(replace(run.plan, accumulate=4), run.mesh, 900 * GIB).parts == 4
    assert choices_of(replace(run.plan, batch_size=8 * 6), run.mesh) == [1, 2, 6]
    assert choices_of(replace(run.plan, batch_size=8 * 6, accumulate=4), run.mesh) == [1, 2, 6]


@pytest.mark.parametrize(
    ("limit", "fix"),
    [
        (199, r"set --mesh\.fsdp 8, over as many devices"),
        (120, r"set --mesh\.fsdp 32, over as many devices"),
        (90, r"set --remat full, and --mesh\.fsdp over more devices"),
    ],
)
def test_what_no_part_fits_says_what_would(run, counted, limit, fix):
    said = rf"one image a device takes 200\.0 GiB, and {limit}\.0 GiB of it may be used; {fix}"
    with pytest.raises(UsageError, match=said):
        fit(run.plan, run.mesh, limit * GIB)


def test_a_step_in_parts_takes_less_of_a_device(run):
    whole, parts = (
        compiled_ahead(replace(run.plan, accumulate=count), run.mesh).memory for count in (1, 4)
    )
    assert parts.temporaries < whole.temporaries / 2
    assert parts.arguments == whole.arguments


def test_a_task_that_needs_the_whole_batch_is_computed_in_one_part(run):
    class Whole(type(run.plan.task)):
        separable = False

    task = Whole(run.plan.task.config, run.plan.task.views)
    assert choices_of(replace(run.plan, task=task), run.mesh) == [1]


def test_a_batch_that_was_fitted_goes_on_in_its_parts_on_another_mesh(tmp_path, capsys, counted):
    start, whole, fitted = ["finetune", "quickstart"], tmp_path / "whole", tmp_path / "fitted"
    given = [flag for flag in AUTO if flag not in ("--batch", "auto")]
    assert main([*start, "--out", str(whole), *given]) == 0
    # 8 devices x 2 images, for which 600 GiB are too little
    small = ["--memory-gib", str(600 / 0.95)]
    assert main([*start, "--out", str(fitted), *AUTO, *small]) == 0
    said = "batch   16 images in 2 parts of 8, 1 a device: 500.0 GiB of 600.0 GiB; 1 part would take 900.0 GiB"
    assert said in capsys.readouterr().out
    assert losses(fitted) == [pytest.approx(row, rel=1e-5) for row in losses(whole)]
    assert json.loads((fitted / "config.json").read_text())["recipe"]["accumulate"] == 2

    # stopped at step 4, and going on where one part would fit: the run is still that of two
    shutil.rmtree(fitted / "checkpoints" / "6")
    other = ["--mesh.data", "2", "--mesh.fsdp", "4", "--memory-gib", "1000"]
    assert main([*start, "--out", str(fitted), *AUTO, *other]) == 0
    out = capsys.readouterr().out
    assert "resumed from step 4" in out
    assert "in 2 parts" in out
    assert losses(fitted) == [pytest.approx(row, rel=1e-5) for row in losses(whole)]


def test_a_device_that_does_not_tell_its_memory_is_asked_for_by_a_flag(tmp_path, capsys):
    assert main(["finetune", "quickstart", "--out", str(tmp_path), *AUTO, "--dry-run"]) == 2
    assert "which a cpu does not tell; pass --memory-gib" in capsys.readouterr().err


def test_devices_are_simulated_for_a_process_of_its_own(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    flags = ["--dry-run", "--simulate-devices", "4", "--mesh.fsdp", "2", "--no-compare-random"]
    done = subprocess.run(
        [sys.executable, "-m", "fmjax.cli", "finetune", "quickstart", *flags],
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    assert "data 2 x fsdp 2 x tensor 1" in done.stdout
