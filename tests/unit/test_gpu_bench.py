"""benchmarks/gpu in small, on a CPU: both libraries compute the same function, and each row is on disk when it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.gpu import __main__ as program
from benchmarks.gpu import record, towers, work, worker
from benchmarks.gpu.cases import CASES, MODELS, NAMED

ROOT = Path(__file__).parents[2]
OURS = (
    "fmjax train ViT-L/14 batch 128 remat=dots attention=xla norms=xla activations=xla unroll=False"
)
THEIRS = "torch train ViT-L/14 batch 128 compile=no sdpa=flash"


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("gpu") / "results.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--seconds", "500"]
    command += ["--out", str(out), "--commit", "abc"]
    command += ["--rows", "reference", "agreement", OURS, THEIRS]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    subprocess.run(command, cwd=ROOT, check=True, env=environment, capture_output=True)
    return json.loads(out.read_text())


@pytest.mark.parametrize("library", ["", " library=open_clip", " library=transformers"])
def test_all_libraries_compute_the_same_function(results, library):
    [found] = [row for row in results["rows"] if row["row"] == f"fmjax agreement{library}"]
    assert found["agrees"]
    assert found["float32"]["logits"] < 1e-5
    assert found["float32"]["gradients"] < 1e-5


def test_rows_come_in_order_with_what_follows_from_their_seconds(results):
    rows = results["rows"]
    parts = ("reference", "agreement", OURS, THEIRS)
    asked = [case.name for case in CASES if any(part in case.name for part in parts)]
    assert [row["row"] for row in rows] == asked
    for row in rows:
        if row["kind"] != "train":
            continue
        timing = row["timing"]
        assert timing["least"] <= timing["median"] <= timing["most"]
        assert row["images_per_s"] == pytest.approx(4 / timing["median"], rel=1e-2)
        assert 0 < row["logs"]["loss"] < 20
    assert (results["commit"], results["tiny"]) == ("abc", True)
    assert results["versions"]["jax"]


@pytest.mark.parametrize(
    ("model", "forward", "training"),
    [
        # open_clip's docs/model_profile.csv, and three times that less the gradient for the image
        ("ViT-B/16", 35.13, 105.2),
        ("ViT-L/14", 162.03, 485.8),
        ("EVA02-L/14", 381.9, 1144.9),
    ],
)
def test_operations_are_those_of_the_published_table(model, forward, training):
    assert work.forward_flops(MODELS[model]) / 1e9 == pytest.approx(forward, rel=1e-3)
    assert work.training_flops(MODELS[model]) / 1e9 == pytest.approx(training, rel=1e-3)


def test_a_library_without_a_network_says_so():
    with pytest.raises(ValueError, match=r"EVA02-L-14-336.* is no tower that transformers has"):
        towers.created(MODELS["EVA02-L/14"], "transformers", None)


def test_every_row_has_a_name_of_its_own():
    assert list(NAMED.values()) == list(CASES)


def test_a_row_is_not_begun_without_the_time_that_it_takes(tmp_path):
    case = NAMED["torch train ViT-L/14 batch 128 compile=default sdpa=cudnn"]
    found = worker.done("peers", case, tmp_path / "x", tmp_path, time.time() + 40, True)
    assert found == {"left_out": "40 s are left, and it may take 50"}


def test_a_library_that_is_not_here_costs_its_rows_and_no_others(tmp_path):
    out = tmp_path / "results.json"
    record.begun(out, {})
    asked = Namespace(out=out, tiny=True)
    program.measure("nobody", [OURS, THEIRS], asked, tmp_path, time.time() + 100)
    assert [row["row"] for row in record.rows(out)] == [OURS, THEIRS]
    assert all(
        "No module named 'benchmarks.gpu.nobody'" in row["failed"] for row in record.rows(out)
    )


def test_a_row_that_is_stuck_ends_its_process(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        worker.faulthandler, "dump_traceback_later", lambda s, exit: asked.append((s, exit))
    )
    for name in (OURS, THEIRS.replace("compile=no sdpa=flash", "compile=default sdpa=cudnn")):
        worker.done("nobody", NAMED[name], tmp_path / "x", tmp_path, time.time() + 100, False)
    assert asked == [(62.5, True), (125, True)]


def test_a_process_that_ends_costs_the_row_that_it_was_at(tmp_path, monkeypatch):
    out = tmp_path / "results.json"
    record.begun(out, {})
    monkeypatch.setattr(sys, "executable", "false")
    asked = Namespace(out=out, tiny=True)
    program.measure("ours", [OURS, THEIRS], asked, tmp_path, time.time() + 100)
    assert [row["row"] for row in record.rows(out)] == [OURS, THEIRS]
    assert {row["failed"] for row in record.rows(out)} == {"its process ended with status 1"}


def test_what_a_former_call_to_the_same_device_has_measured_is_known(tmp_path):
    file = tmp_path / "former.json"
    rows = [{"row": OURS, "ms": 1.0}, {"row": THEIRS, "left_out": "1 s is left"}]
    record.begun(file, {"device": {"name": "NVIDIA H200"}})
    for row in rows:
        record.add(file, row)
    assert program.measured([file], {"name": "NVIDIA H200"}) == {OURS}
    assert program.measured([file], {"name": "NVIDIA H100 80GB HBM3"}) == set()
    assert program.again(["remat=dots attention=xla"])[0] == OURS
