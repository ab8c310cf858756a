"""Every hostile file is refused in one sentence, at once, without running or writing anything."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security import corpus

ROOT = Path(__file__).parents[2]
PLACES = ("fifo", "loop", "gone", "device", "nul", "long", "empty-folder")
NAMES = [*corpus.hostile(), *(f"place-{name}" for name in PLACES), *corpus.INDEXES]
MAX_SECONDS = 1.0  # of processor time, which other work on the machine does not change
MAX_WALL_SECONDS = 5.0  # nothing may hang
MAX_MEGABYTES = 200
READ_STAGE = {"zip-crc-storage", "npz-crc", "zip-bomb-understated", "zip-bomb-overstated", "zip-deflate-noise"}


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict[str, dict]:
    """What one process reports of all files: hooks on Python's own events cannot be taken off again."""
    folder = tmp_path_factory.mktemp("corpus")
    jobs: dict[str, str] = {}
    expected: dict[str, str] = {}
    for key, content in corpus.controls().items():
        jobs[key] = str(folder / key)
        (folder / key).write_bytes(content)
    for key, (content, reason) in corpus.hostile().items():
        jobs[key], expected[key] = str(folder / key), reason
        (folder / key).write_bytes(content)
    for key, (path, reason) in corpus.places(folder).items():
        jobs[key], expected[key] = str(path), reason
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, "-W", "error", "-m", "tests.security.worker", "jobs.json", "report.json"]
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((folder / "report.json").read_text())
    for key, row in rows.items():
        row["expected"] = expected.get(key, "")
    rows["canary"] = (folder / corpus.CANARY).exists()
    return rows


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_file_is_refused(report, name):
    row = report[name]
    assert row["kind"] == "CheckpointError", row
    assert re.search(row["expected"], row["error"]), row["error"]
    assert "\n" not in row["error"]
    assert len(row["error"]) < 800 + len("a" * 5000) * (name == "place-long")
    assert row["stage"] == ("read" if name in READ_STAGE else "open")
    assert row["events"] == []
    assert row["seconds"] < MAX_SECONDS
    assert row["wall"] < MAX_WALL_SECONDS
    assert row["megabytes"] < MAX_MEGABYTES


@pytest.mark.parametrize("name", corpus.controls())
def test_the_same_files_without_the_harm_load(report, name):
    assert report[name]["stage"] == "loaded", report[name]
    assert report[name]["events"] == []


def test_the_corpus_is_large_and_nothing_was_run(report):
    assert len(NAMES) >= 40
    assert set(report) == {*NAMES, *corpus.controls(), "canary"}
    assert not report["canary"]
