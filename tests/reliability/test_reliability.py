"""A sample of the trials whose whole is `python -m tests.reliability`: docs/reliability.md has its verdicts."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from fmjax.engine import steps
from tests.reliability import trials
from tests.reliability.__main__ import END, PAGE, ROWS, START
from tests.reliability.trials import Layout


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("reference") / "run"
    trials.whole(out)
    return out


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(reference, tmp_path):
    found = trials.kill_often(reference, tmp_path / "run", ["saving", "scoring"], seed=0)
    assert [one for one in found if not one.passed] == []


def test_a_run_that_is_stopped_ends_with_the_same_bits(reference, tmp_path):
    verdict = trials.stop(reference, tmp_path / "run", signal.SIGTERM, seed=0)
    assert verdict.passed, verdict


def test_no_flipped_bit_is_taken_for_a_number(reference, tmp_path):
    found = [trials.flip(reference, tmp_path / "run", seed) for seed in range(12)]
    assert [one for one in found if not one.passed] == []
    assert sum("found: " in one.name for one in found) > 6


def test_a_run_that_is_moved_to_another_mesh_goes_on(reference, tmp_path):
    before, after = Layout(1), Layout(6, data=1, fsdp=2, tensor=3)
    verdict = trials.move(reference, tmp_path / "run", before, after)
    assert verdict.passed, verdict


def test_a_long_run_holds_no_more_and_more(tmp_path):
    verdict, found = trials.soak(tmp_path / "run", 300)
    # too short a run to judge what it holds, as its pools still fill: that is for the whole
    assert len(found) > 2
    assert "exit code" not in verdict.wrong
    leaking = [replace(one, megabytes=500 + one.step / 50) for one in found]
    assert trials.slope(leaking) == pytest.approx(2.0)


def test_a_trial_sees_what_it_is_for(reference, tmp_path):
    """Another run is no run of the same bits."""
    other = tmp_path / "run"
    trials.whole(other, "--seed", "1")
    assert trials.same_as(reference, other) == "other losses"
    assert trials.same_as(reference, reference) == ""
    assert steps.committed(other)[-1] == trials.LAST


def test_the_page_has_a_row_for_every_kind_of_trial():
    table = PAGE.read_text().partition(START)[2].partition(END)[0]
    for row, (what, _) in ROWS.items():
        assert f"| {row} | {what} | " in table
