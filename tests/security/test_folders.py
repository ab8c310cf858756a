"""Every hostile folder is refused in one sentence, or read with one line of all that is left out."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from tests.security.hostile_folders import LAYOUTS, split, two
from tests.security.test_images import report_of

MAX_SECONDS = 1.0
MAX_MEGABYTES = 300


@pytest.fixture(scope="module")
def report() -> dict[str, dict]:
    with tempfile.TemporaryDirectory() as name:
        # pytest's own are closed to the user that permissions are tried with
        base = Path(name)
        base.chmod(0o755)
        two(base / "control-plain")
        split(base / "control-split")
        jobs = {key: ("folder", str(base / key)) for key in ("control-plain", "control-split")}
        for key, (make, _) in LAYOUTS.items():
            make(base / key)
            jobs[key] = ("as_nobody" if "closed" in key else "folder", str(base / key))
        return report_of(base, jobs)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_hostile_folder_is_refused_or_said(report, name):
    row, expected = report[name], LAYOUTS[name][1]
    said = [row["error"], *row["told"]]
    if expected[0].startswith("!"):
        assert row["kind"] == "DataError", row
        assert re.search(expected[0][1:], row["error"]), row["error"]
    else:
        assert row["kind"] == "", row
        assert all(part in "\n".join(said) for part in expected), said
    assert all(line.isprintable() and len(line) < 600 for line in said)
    assert sum(line.startswith("left out: ") for line in said) <= 1
    assert row["events"] == []
    assert row["seconds"] < MAX_SECONDS
    assert row["megabytes"] < MAX_MEGABYTES


def test_usual_folders_say_nothing(report):
    assert report["control-plain"]["told"] == ["4 train, 0 val, 2 classes"]
    assert report["control-split"]["told"] == ["4 train, 4 val, 2 classes"]


def test_there_are_many_layouts():
    assert len(LAYOUTS) >= 30
