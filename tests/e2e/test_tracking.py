"""--log: what tools are sent of a run, when it goes on, when they fail, and that it is the same numbers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import fmjax
from fmjax.cli import main
from fmjax.engine.tracking_tools import TOOLS, Tool
from fmjax.models import peaks
from fmjax.models.flops import flops
from tests.support import tracked
from tests.support.runs import rows
from tests.support.tiny import TINY, known

ALL = list(TOOLS)
SPEED = ("images_per_s", "data_wait", "mfu")
PEAK = 1e9  # operations a second of a device, for a test
pytestmark = pytest.mark.filterwarnings("ignore")  # of the tools' own libraries


@pytest.fixture(autouse=True)
def network():
    with known():
        yield


def finetune(run: Path, *flags: str) -> int:
    return main(["finetune", str(TINY), "--out", str(run), "--no-report", *flags])


def expected(run: Path) -> tracked.Points:
    """What metrics.jsonl has, by the names of the numbers."""
    found: tracked.Points = {}
    for row in rows(run):
        for name, value in row.items():
            found.setdefault(name, []).append((row["step"], value))
    del found["step"]
    return found


def without_speed(points: tracked.Points) -> dict[str, list]:
    """The numbers that are the same in every run of these bits, rounded as a float32 is."""
    return {
        name: [(step, pytest.approx(value, rel=1e-6, abs=1e-7)) for step, value in each]
        for name, each in points.items()
        if name not in SPEED
    }


def speaks_of_mfu(found: tracked.Points, said: str) -> None:
    """The speeds of a run as shares of what 8 devices of such a peak would reach, in its rows and at its end."""
    ceiling = 8 * PEAK / flops(fmjax.get_spec("stored_vit"), patches=False).training()
    speeds = [speed for _, speed in found["images_per_s"]]
    assert [share for _, share in found["mfu"]] == pytest.approx(
        [speed / ceiling for speed in speeds], abs=1e-7
    )
    assert len(speeds) == 7  # the first step compiles
    [line] = [line for line in said.splitlines() if line.startswith("speed ")]
    share = np.median(speeds) / ceiling
    assert line.endswith(f"a device, MFU {share:.1%} of 0.001 TFLOP/s a device (cpu, float32)")


def traced(run: Path) -> set[int]:
    """The numbers of the steps in a run's trace."""
    [path] = (run / "profile").glob("plugins/profile/*/*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(path)).planes
    events = [event for plane in planes for line in plane.lines for event in line.events]
    return {dict(event.stats)["step_num"] for event in events if event.name == "train"}


# in a process of its own: the converter brings a runtime, and a log, of its own
CONVERT = """
import json, sys
from xprof.convert import raw_to_tool_data
for page in ("trace_viewer", "overview_page"):
    content, kind = raw_to_tool_data.xspace_to_tool_data([sys.argv[1]], page, {})
    assert kind == "application/json", kind
    print(json.dumps(json.loads(content)))
"""


def xprof_pages(run: Path) -> list[Any]:
    """What xprof's own converter makes of a run's trace: the page of its events, and that of the overview."""
    [path] = (run / "profile").glob("plugins/profile/*/*.xplane.pb")
    command = [sys.executable, "-c", CONVERT, str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_xprof_tells_the_steps_of_a_trace_apart(tmp_path):
    pytest.importorskip("xprof", reason="pip install --no-deps xprof")
    assert finetune(tmp_path / "run", "--steps", "4", "--profile-steps", "2:3") == 0
    trace, overview = xprof_pages(tmp_path / "run")
    events = [event for event in trace["traceEvents"] if event.get("dur")]
    steps = {
        event["name"]: event["args"] for event in events if "step_num" in event.get("args", {})
    }
    assert {name: args["step_num"] for name, args in steps.items()} == {
        "train 2": "2",
        "train 3": "3",
    }
    # the page that opens first takes it for a training, and has a row for each step
    tables = {table["cols"][0]["id"]: table for table in overview if table.get("cols")}
    assert tables["host_id"]["p"]["is_training"] == "true"
    assert [row["c"][0]["v"] for row in tables["stepnum"]["rows"]] == ["train 2", "train 3"]


def test_the_real_tools_get_every_number_once_though_steps_are_done_again(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr(peaks, "PEAKS", (("cpu", (), 0, PEAK / peaks.TERA),))
    run = tmp_path / "run"
    assert finetune(run, "--log", *ALL, "--profile-steps", "2:3") == 0
    first = expected(run)
    speaks_of_mfu(first, capsys.readouterr().out)
    assert traced(run) == {2, 3}
    # as after a crash behind step 8 whose last save is of step 4
    shutil.rmtree(run / "checkpoints" / "8")
    assert finetune(run, "--log", *ALL) == 0
    assert "resumed from step 4" in capsys.readouterr().out
    wanted = without_speed(first)
    assert wanted == without_speed(expected(run))
    assert [step for step, _ in first["loss"]] == list(range(1, 9))
    assert [step for step, _ in first["val_accuracy"]] == [4, 8]

    board = tracked.tensorboard(run)
    assert {name: board[name] for name in wanted} == wanted
    bias, ids = tracked.wandb(run)
    assert {name: bias[name] for name in wanted} == wanted
    assert len(ids) == 1
    flow, found = tracked.mlflow(tmp_path / "mlflow.db")
    assert {name: flow[name] for name in wanted} == wanted
    assert [each.info.status for each in found] == ["FINISHED"]
    assert found[0].data.params["recipe.lr"] == "0.01"
    track, names = tracked.trackio(tmp_path / "trackio")
    assert {name: track[name] for name in wanted} == wanted
    assert len(names) == 1
    for found in (board, bias, flow, track):
        steps = {name: [step for step, _ in points] for name, points in found.items()}
        assert all(each == sorted(set(each)) for each in steps.values())


def test_a_package_that_is_missing_is_one_sentence_before_anything_is_done(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(TOOLS, "mlflow", Tool("no_such_package", print, ""))
    for flags in ([], ["--dry-run"]):
        assert finetune(tmp_path / "run", "--log", "mlflow", *flags) == 2
        said = capsys.readouterr().err
        assert "--log mlflow needs no_such_package, which is not installed" in said
        assert "pip install 'fmjax[mlflow]'" in said
    assert not (tmp_path / "run").exists()
