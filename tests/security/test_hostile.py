"""Every hostile file is refused in one sentence, at once, without running or writing anything."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security import corpus, fits

ROOT = Path(__file__).parents[2]
PLACES = ("fifo", "loop", "gone", "device", "nul", "long", "empty-folder")
OPENED = [*corpus.hostile(), *(f"place-{name}" for name in PLACES), *corpus.INDEXES]
NAMES = [*OPENED, *corpus.fitting(), *corpus.facts()]
# where each group of files is refused
STAGES = {"kind": "fit", "value": "read", "name": "fit", "facts": "facts"}
MAX_SECONDS = 1.0  # of processor time, which other work on the machine does not change
MAX_WALL_SECONDS = 5.0  # nothing may hang
MAX_MEGABYTES = 200
MAX_REPORT_CHARACTERS = 30_000
READ_STAGE = {
    "zip-crc-storage",
    "npz-crc",
    "zip-bomb-understated",
    "zip-bomb-overstated",
    "zip-deflate-noise",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict[str, dict]:
    """What one process reports of all files: hooks on Python's own events cannot be taken off again."""
    folder = tmp_path_factory.mktemp("corpus")
    modes = {
        "fit": {"dialect": fits.DIALECT, "shapes": fits.shapes()},
        "facts": {"told": fits.TOLD},
        "": {},
    }
    jobs: dict[str, dict] = {}
    expected: dict[str, str] = {}
    for key, content in corpus.controls().items():
        mode = key.removeprefix("control-").split("-")[0]
        jobs[key] = {"path": str(folder / key), **modes.get(mode, {})}
        (folder / key).write_bytes(content)
    for mode, group in (
        ("", corpus.hostile()),
        ("fit", corpus.fitting()),
        ("facts", corpus.facts()),
    ):
        for key, (content, reason) in group.items():
            jobs[key], expected[key] = {"path": str(folder / key), **modes[mode]}, reason
            (folder / key).write_bytes(content)
    for key, (path, reason) in corpus.places(folder).items():
        jobs[key], expected[key] = {"path": str(path)}, reason
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "tests.security.worker",
        "jobs.json",
        "report.json",
    ]
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((folder / "report.json").read_text())
    for key, row in rows.items():
        row["expected"] = expected.get(key, "")
    rows["canary"] = (folder / corpus.CANARY).exists()
    return rows


def assert_harmless(row: dict) -> None:
    """Nothing ran, was written or took long; and what is said of it can be printed as it is."""
    assert row["events"] == []
    assert row["seconds"] < MAX_SECONDS
    assert row["wall"] < MAX_WALL_SECONDS
    assert row["megabytes"] < MAX_MEGABYTES
    assert row["error"].replace("\n", "").isprintable()


@pytest.mark.parametrize("name", OPENED)
def test_a_hostile_file_is_refused(report, name):
    row = report[name]
    assert row["kind"] == "CheckpointError", row
    assert re.search(row["expected"], row["error"]), row["error"]
    assert "\n" not in row["error"]
    assert len(row["error"]) < 800 + len("a" * 5000) * (name == "place-long")
    assert row["stage"] == ("read" if name in READ_STAGE else "open")
    assert_harmless(row)


@pytest.mark.parametrize("name", [*corpus.fitting(), *corpus.facts()])
def test_a_file_that_is_no_weights_of_the_model_is_refused(report, name):
    row = report[name]
    assert row["kind"] == "CheckpointError", row
    assert re.search(row["expected"], row["error"]), row["error"]
    assert row["error"].isascii()
    assert row["stage"] == STAGES[name.split("-")[0]]
    lines = row["error"].splitlines()
    assert len(lines) == 1 or name.startswith("name-")
    assert len(lines) < 100
    assert len(row["error"]) < MAX_REPORT_CHARACTERS
    assert_harmless(row)


@pytest.mark.parametrize("name", corpus.controls())
def test_the_same_files_without_the_harm_load(report, name):
    assert report[name]["stage"] == "loaded", report[name]
    assert_harmless(report[name])


def test_the_corpus_is_large_and_nothing_was_run(report):
    assert len(NAMES) >= 400
    assert set(report) == {*NAMES, *corpus.controls(), "canary"}
    assert not report["canary"]
