"""`fmjax bench`: what is timed is what its row says, figures follow from it, and what cannot be timed says why."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fmjax.bench import compiled, inputs, start, timing
from fmjax.bench.compiled import Step
from fmjax.bench.plans import planned
from fmjax.bench.rows import Limits, Row, figures, limits_of
from fmjax.bench.subject import levers, subject
from fmjax.bench.timing import of_rounds, several, timed
from fmjax.cli import main
from fmjax.config import BenchConfig, ModelConfig
from fmjax.engine.costs import Memory
from fmjax.engine.throughput import step_flops
from fmjax.errors import FmjaxError, UsageError
from fmjax.kernels import attention, norm, trust
from fmjax.kernels import xla as plain
from fmjax.models.flops import attention_flops, embedding_flops, flops
from fmjax.models.kernels import Asked
from fmjax.names import get_spec
from fmjax.programs import bench, bench_page

DEMO = "demo_vit_ti4.fashion_mnist"
LARGE = "ViT-B-16.openai"  # whose weights are not here
SHORT = BenchConfig(
    model=ModelConfig(name=DEMO),
    kinds=("forward", "train", "product", "attention", "weights"),
    batch_size=2,
    seconds=0.05,
)


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("bench") / "bench.json"


@pytest.fixture(scope="module")
def record(out) -> dict[str, Any]:
    """All but the start of a process, of the demo network."""
    return bench.main(replace(SHORT, out=str(out), json=True))


def of(record: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [row for row in record["rows"] if row["kind"] == kind]


def test_kinds_come_in_the_order_in_which_they_are_compared(record):
    kinds = list(dict.fromkeys(row["kind"] for row in record["rows"]))
    assert kinds == ["product", "train", "forward", "attention", "weights"]
    assert all(row["failed"] == "" for row in record["rows"])


def test_rates_follow_from_seconds_and_formulas(record):
    spec = get_spec(DEMO)
    [train], [forward] = of(record, "train"), of(record, "forward")
    assert forward["flops"] == 2 * embedding_flops(spec).forward
    assert 2.5 * forward["flops"] < train["flops"] < 3 * forward["flops"]
    for row in (train, forward):
        seconds = row["timing"]["median"]
        assert row["timing"]["least"] <= seconds <= row["timing"]["most"]
        assert row["images_per_s"] == pytest.approx(2 / seconds)
        assert row["flops_per_s"] == pytest.approx(row["flops"] / seconds)
        assert row["of_product"] == pytest.approx(
            row["flops_per_s"] / record["product_flops_per_s"]
        )
        # nobody knows the peak of a CPU
        assert row["mfu"] is None


def test_a_step_takes_what_the_compiler_plans_and_says_how_long_it_took(record):
    [train], [forward] = of(record, "train"), of(record, "forward")
    parameters = 4 * get_spec(DEMO).parameters
    # parameters and both moments; and parameters alone
    assert train["memory_bytes"] > 3 * parameters
    assert parameters < forward["memory_bytes"] < train["memory_bytes"]
    for row in (train, forward):
        assert min(row["lowering_s"], row["compiling_s"]) > 0
    assert np.isfinite(list(train["facts"].values())).all()


def test_the_products_are_those_of_a_block_and_a_square(record):
    spec, rows = get_spec(DEMO), of(record, "product")
    tokens = 2 * flops(spec).tokens
    assert [row["facts"]["shape"] for row in rows][1:] == [
        (tokens, spec.width, spec.width),
        (tokens, spec.width, spec.mlp_dim),
        (tokens, spec.mlp_dim, spec.width),
    ]
    assert max(row["flops_per_s"] for row in rows) == record["product_flops_per_s"]
    assert max(row["of_product"] for row in rows) == 1


def test_attention_is_timed_by_the_kernels_that_can_run(record):
    rows = of(record, "attention")
    assert [(row["facts"]["kernel"], row["facts"]["training"]) for row in rows] == [
        ("xla", False),
        ("xla", True),
    ]
    there, both = rows
    assert both["flops"] == 3.5 * there["flops"]
    # of all blocks it is what the formula of the whole network counts
    spec = get_spec(DEMO)
    assert there["flops"] == 2 * flops(spec).blocks[0].scores


def test_weights_are_those_of_the_model(record):
    [row] = of(record, "weights")
    assert row["facts"]["file"] == f"{DEMO}.safetensors"
    assert row["facts"]["bytes"] > 4 * get_spec(DEMO).parameters
    assert row["timing"]["median"] > 0


def test_pictures_are_read_as_training_and_as_evaluation_read_them(monkeypatch, tmp_path):
    monkeypatch.setattr(inputs, "LEAST", 8)
    asked = subject(replace(SHORT, seconds=0.001))
    training, evaluation = inputs.inputs(asked)
    assert [row.facts["view"] for row in (training, evaluation)] == ["training", "evaluation"]
    for row in (training, evaluation):
        # four batches of two are a step: what was made ahead is a small part of it
        assert row.images == 8
        assert row.facts["images_per_core_s"] > 0
        assert row.what.startswith(f"{row.facts['view']}, ")
    # files as they are in photo albums, each another one
    inputs.write_folder(tmp_path, 18)
    files = sorted(tmp_path.rglob("*.jpg"), key=lambda path: path.name)
    assert len({path.read_bytes() for path in files}) == inputs.DIFFERENT
    assert {path.parent.name for path in files} == set(inputs.CLASSES)
    with Image.open(files[0]) as picture:
        assert picture.size == (500, 375)
    assert 60_000 < files[0].stat().st_size < 140_000


def test_the_record_says_what_its_figures_depend_on(record, out):
    assert json.loads(out.read_text()) == json.loads(json.dumps(record))
    assert (record["model"], record["batch_size"], record["dtype"]) == (DEMO, 2, "float32")
    assert (record["device"], record["nominal_flops_per_s"]) == ("cpu", None)
    assert record["versions"]["jax"] == jax.__version__
    on = {lever["name"]: (lever["on"], lever["why"]) for lever in record["levers"]}
    assert on["attention"] == ("xla", "cuDNN runs on GPUs of NVIDIA, and not on 'cpu'")
    assert on["norms"][0] == "xla"
    assert "not for 'cpu'" in on["norms"][1]
    assert on["activations"] == on["norms"]
    assert on["remat"] == ("dots", "")


def test_the_file_is_whole_after_every_kind(tmp_path, monkeypatch):
    path = tmp_path / "x.json"

    def killed(asked):
        yield Row(kind="forward", what="x", timing=of_rounds([1.0]))
        # what is on disk now is what a process that is killed leaves
        left.append(json.loads(path.read_text()))

    left: list[dict[str, Any]] = []
    monkeypatch.setitem(bench.TIMED, "product", lambda asked: iter([Row(kind="product", what="")]))
    monkeypatch.setitem(bench.TIMED, "forward", killed)
    bench.main(replace(SHORT, kinds=("product", "forward"), out=str(path), json=True))
    assert [row["kind"] for row in left[0]["rows"]] == ["product"]
    assert [row["kind"] for row in json.loads(path.read_text())["rows"]] == ["product", "forward"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (UsageError("a sentence"), "a sentence"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating"),
            "the device has no memory left for it; take a smaller --batch-size",
        ),
        (jax.errors.JaxRuntimeError("INTERNAL: no plan\nof cuDNN"), "INTERNAL: no plan"),
    ],
)
def test_what_cannot_be_timed_costs_its_row_and_no_other(error, says, monkeypatch, capsys):
    def fails(asked):
        raise error
        yield

    row = Row(kind="product", what="1 x 1 x 1", timing=of_rounds([1.0, 2.0]), flops=2)
    monkeypatch.setitem(bench.TIMED, "product", lambda asked: iter([row]))
    monkeypatch.setitem(bench.TIMED, "train", fails)
    bench.main(replace(SHORT, kinds=("train", "product")))
    told = capsys.readouterr().out
    assert f"n/a     train: {says}\n" in told
    assert "1 x 1 x 1  1,500  1,000 to 2,000" in told


def test_weights_that_are_not_here_cost_their_own_row_alone(monkeypatch, capsys):
    started = []
    monkeypatch.setattr(bench, "start", lambda config, model: iter(started.append(model) or ()))
    row = Row(kind="forward", what="x", timing=of_rounds([1.0]))
    monkeypatch.setitem(bench.TIMED, "forward", lambda asked: iter([row]))
    model = ModelConfig(name=LARGE, offline=True)
    bench.main(replace(SHORT, model=model, kinds=("start", "forward", "weights")))
    assert f"n/a     weights: {LARGE} is not in the local cache" in capsys.readouterr().out
    # whose start is that of the same network with random ones
    assert [(each.name, each.init) for each in started] == [(LARGE, "random")]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--batch-size", "0"], 2, "--batch-size is 0; it must be 1 or more"),
        (["--seconds", "0"], 2, "--seconds is 0.0; it must be above 0, and finite"),
        (["--kinds", "train", "--attention", "cudnn"], 2, "--attention cudnn: cuDNN runs on GPUs"),
        (["--kinds", "train", "--norms", "pallas"], 2, "--norms pallas: the kernel is for GPUs"),
        (["--model.image-size", "30", "28"], 2, "nearest: 28 or 32 x 28"),
        (["--checkpoint", "nothing.pt"], 4, "no checkpoint at nothing.pt"),
        (["--out", "x.txt"], 2, "--out is 'x.txt'; it must end in .json"),
        (["--kinds", "weights", "--model.init", "random"], 3, "nothing could be timed; weights: "),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_a_sentence(words, code, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", DEMO, *words]) == code
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_stays_unless_it_is_to_be_replaced(tmp_path, capsys, monkeypatch):
    row = Row(kind="forward", what="x", timing=of_rounds([1.0]))
    monkeypatch.setitem(bench.TIMED, "forward", lambda asked: iter([row]))
    path = tmp_path / "x.json"
    path.write_text("mine")
    words = ["bench", DEMO, "--kinds", "forward", "--out", str(path)]
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert main([*words, "--force", "--json"]) == 0
    # nothing but the record is printed for machines
    assert json.loads(capsys.readouterr().out) == json.loads(path.read_text())


def test_levers_reach_the_programs_that_are_timed():
    asked = subject(replace(SHORT, remat="full", unroll=True, model=ModelConfig(dtype="bfloat16")))
    backbone = planned(asked.run, asked.mesh).net["backbone"]
    assert (backbone.remat, backbone.unroll, backbone.dtype) == ("full", True, jnp.bfloat16)
    assert asked.mesh.size == 1
    found = {lever.name: lever.on for lever in levers(asked)}
    assert (found["remat"], found["unroll"]) == ("full", "true")
    plain_asked = subject(replace(SHORT, attention="xla", norms="xla", activations="xla"))
    backbone = planned(plain_asked.run, plain_asked.mesh).net["backbone"]
    assert backbone.kernels == Asked("xla", "xla", "xla")
    assert [lever.why for lever in levers(plain_asked)] == [""] * 5
    # left to a CPU, blocks are scanned
    [unroll] = [lever for lever in levers(plain_asked) if lever.name == "unroll"]
    assert (unroll.asked, unroll.on) == ("auto", "false")


def test_kernels_of_a_gpu_are_named(monkeypatch):
    # as on a GPU where everything can run
    monkeypatch.setattr(attention, "named", lambda *_, **__: "cudnn")
    monkeypatch.setattr(norm, "chosen", lambda *_, **__: plain.forked)
    asked = subject(SHORT)
    assert [(lever.on, lever.why) for lever in levers(asked)[:2]] == [("cudnn", ""), ("pallas", "")]
    # norms behind branches have the same kernel
    behind = replace(asked, spec=replace(asked.spec, block="post_norm"))
    assert levers(behind)[1].on == "pallas"


def test_verdicts_on_kernels_are_in_the_record(monkeypatch):
    asked = subject(SHORT)
    verdict = trust.Verdict(
        kernel="a kernel", device="x", case="y", versions="z", reason="it fails"
    )
    monkeypatch.setattr(trust, "remembered", lambda: iter([verdict]))
    assert bench.header(DEMO, asked)["verdicts"] == [vars(verdict)]


def test_a_step_that_is_too_large_is_not_run_and_says_what_would_fit(monkeypatch):
    gib = 2**30
    monkeypatch.setattr(compiled, "device_bytes", lambda mesh, gib_: 16 * gib)
    ahead = SimpleNamespace(memory=Memory(10 * gib, 90 * gib, 0), lowering_s=1.0, compiling_s=2.0)
    monkeypatch.setattr(compiled, "compiled_ahead", lambda plan, mesh: ahead)
    [row] = bench.TIMED["train"](subject(SHORT))
    assert row.failed.startswith("it takes 100.0 GiB of a device, and 16.0 GiB of it may be used")
    assert "--batch-size" in row.failed
    assert (row.timing, row.memory_bytes) == (None, 100 * gib)


def test_the_step_is_the_engines_and_learns():
    asked = subject(replace(SHORT, batch_size=2))
    plan = planned(asked.run, asked.mesh)
    assert len(plan.labels) == 1000
    assert step_flops(plan) == 2 * embedding_flops(asked.spec).training(head=False)
    step = Step(plan, asked.mesh)
    step.begin()
    step.run(1)
    first = step.told["loss"]
    step.run(3)
    assert int(step.state.step) == 4
    assert step.told["loss"] < first


@pytest.mark.parametrize(
    ("row", "limits", "expected"),
    [
        (Row(kind="x", what=""), Limits(1.0, 1.0), (None,) * 4),
        (Row(kind="x", what="", timing=of_rounds([2.0])), Limits(1.0, 1.0), (None,) * 4),
        (
            Row(kind="x", what="", timing=of_rounds([2.0]), images=8, flops=100),
            Limits(1000.0, 200.0),
            (4.0, 50.0, 0.05, 0.25),
        ),
        (
            Row(kind="x", what="", timing=of_rounds([2.0]), images=8, flops=100),
            Limits(),
            (4.0, 50.0, None, None),
        ),
    ],
)
def test_figures_are_there_where_they_follow(row, limits, expected):
    assert tuple(vars(figures(row, limits)).values()) == expected


def test_the_fastest_product_is_the_limit():
    rows = [
        Row(kind="product", what="", timing=of_rounds([seconds]), flops=10)
        for seconds in (2.0, 1.0)
    ]
    rows.append(Row(kind="forward", what="", timing=of_rounds([0.1]), flops=10))
    assert limits_of(rows, 3.0) == Limits(3.0, 10.0)
    assert limits_of([], None) == Limits()


def test_unknown_is_said_and_what_a_row_has_not_is_empty():
    row = Row(kind="weights", what="1 MB", timing=of_rounds([1.0]))
    counted = replace(row, flops=10**12, images=4)
    cells = {column.title: column.cells for column in bench_page.columns([row, counted], Limits())}
    assert cells["of nominal"] == ["", "n/a"]
    assert cells["of product"] == ["", "n/a"]
    assert cells["images/s"] == ["", "4"]
    assert cells["least to most"] == ["", ""]
    assert cells["memory"] == ["", ""]


def test_attention_has_seven_products_both_ways():
    # q k and its product with v; five of that size on the way back
    assert attention_flops(3, 2, 5, 4) == 2 * 2 * 3 * 2 * 5 * 5 * 4
    assert attention_flops(3, 2, 5, 4, training=True) == 2 * 7 * 3 * 2 * 5 * 5 * 4


def test_a_median_is_of_rounds_of_twenty_steps_or_more():
    done = []

    def run(steps: int) -> None:
        done.append(steps)
        time.sleep(1e-3 * steps)

    found = timed(run, seconds=0.1)
    assert found.steps >= 20
    # three and five warm up and set the length
    assert done == [3, 5] + [found.steps] * found.rounds
    assert found.least <= found.median <= found.most
    assert 1e-3 <= found.median < 1


def test_a_slow_step_of_a_cpu_is_a_round():
    done = []

    def run(steps: int) -> None:
        done.append(steps)
        time.sleep(0.02 * steps)

    assert timed(run, seconds=0.03, least=1).rounds == 3
    assert done == [1, 1, 1, 1, 1]
    # and where it takes longer than all rounds may, once behind one that warms up
    assert timed(run, seconds=0.01, least=1).rounds == 1
    assert done == [1] * 7


def test_what_takes_long_is_done_once_and_again_where_there_is_time():
    done = []
    assert several(lambda: done.append(time.sleep(0.01)), seconds=0.001).rounds == len(done) == 1
    assert several(lambda: done.append(None), seconds=10.0).rounds == 3


def test_the_device_is_looked_at_once_while_it_works(monkeypatch, tmp_path):
    # a driver's program that answers as nvidia-smi does
    answers = ", ".join(["NVIDIA H200", "580", "1980 MHz", "3201 MHz", "650 W", "700 W"])
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{answers}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(timing.shutil, "which", lambda name: str(program))
    found = timed(lambda steps: None, seconds=0.0, least=2)
    assert (found.device["name"], found.device["power.limit"]) == ("NVIDIA H200", "700 W")
    assert timing.device_now()["clocks.sm"] == "1980 MHz"
    monkeypatch.setattr(timing.shutil, "which", lambda name: None)
    assert timing.device_now() == {}


def test_a_new_process_is_timed_to_its_first_embedding(monkeypatch, tmp_path):
    asked = []

    def first(model: ModelConfig, cache: Path) -> dict[str, float]:
        asked.append((cache, len(list(cache.iterdir()))))
        (cache / "program").touch()
        return {"total_s": 2.0 / len(asked)}

    monkeypatch.setattr(start, "first_embedding", first)
    empty, full = start.start(replace(SHORT, seconds=1e-9), ModelConfig(name=DEMO))
    # the same folder, which the first has filled
    assert [(folder, there) for folder, there in asked] == [(asked[0][0], 0), (asked[0][0], 1)]
    assert (empty.timing.median, full.timing.median) == (2.0, 1.0)
    assert (empty.facts["cache"], full.facts["cache"]) == ("empty", "full")
    assert len(list(start.start(replace(SHORT, seconds=60.0), ModelConfig(name=DEMO)))) == 2
    assert len(asked) == 2 + 6


def test_the_first_embedding_of_a_real_process(tmp_path):
    found = start.first_embedding(ModelConfig(name=DEMO), tmp_path)
    assert list(found) == ["total_s", "imports_s", "model_s", "embedding_s"]
    assert found["total_s"] > sum(found[part] for part in list(found)[1:]) > 0
    # what it has compiled is there for the next
    assert list(tmp_path.iterdir())


def test_a_process_that_fails_says_what_it_said_last(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(FmjaxError, match="a new process failed before its first embedding: code 1"):
        start.first_embedding(ModelConfig(name=DEMO), tmp_path)
