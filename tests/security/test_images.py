"""Every hostile picture is refused with its reason, or read: at once, in little memory, without running anything."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fmjax.data.images import FORMATS, read
from fmjax.errors import DataError
from tests.security import hostile_images
from tests.security.pictures import noise, plain

ROOT = Path(__file__).parents[2]
PLACES = ("pipe", "socket", "device", "loop", "gone", "folder", "nul", "long", "escape")
SPARSE = tuple(f"sparse-{form}" for form in ("webp", "png", "tiff", "jpeg"))
NAMES = [*hostile_images.hostile(), *(f"place-{name}" for name in PLACES + SPARSE)]
MAX_SECONDS = 1.0  # of processor time, which other work on the machine does not change
MAX_WALL_SECONDS = 10.0  # nothing may hang
MAX_MEGABYTES = 300


def controls() -> dict[str, bytes]:
    """A picture of each format and kind, so that what they import is not held against the hostile ones."""
    forms = {f"control-{form}": noise(64, 64, form) for form in FORMATS}
    clear = {f"control-clear-{form}": plain("RGBA", form=form) for form in ("PNG", "WEBP", "TIFF")}
    return forms | clear | {"control-film": noise(64, 64, "MPO"), "control-deep": plain("I;16")}


def report_of(folder: Path, jobs: dict[str, tuple[str, str]]) -> dict[str, dict]:
    """What one process reports of all jobs: hooks on Python's own events cannot be taken off again."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, "-m", "tests.security.images_worker"]
    command += [str(folder / "jobs.json"), str(folder / "report.json")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("pictures")
    jobs = {}
    for key, content in (
        controls() | {key: row[0] for key, row in hostile_images.hostile().items()}
    ).items():
        (folder / f"{key}.png").write_bytes(content)
        jobs[key] = ("picture", str(folder / f"{key}.png"))
    for key in hostile_images.foreign():
        jobs[f"content-{key}"] = ("content", str(folder / f"{key}.png"))
    expected = {key: row[1] for key, row in hostile_images.hostile().items()}
    for key, (path, reason) in hostile_images.places(folder).items():
        jobs[key], expected[key] = ("picture", str(path)), reason
    rows = report_of(folder, jobs)
    return {key: row | {"expected": expected.get(key, "")} for key, row in rows.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_picture_is_refused_with_its_reason_or_read(report, name):
    row = report[name]
    if row["expected"]:
        assert row["kind"] == "DataError", row
        assert re.search(f"is not a readable image: .*({row['expected']})", row["error"]), row[
            "error"
        ]
    else:
        assert row["told"] == ["(224, 224, 3)"] * 3, row
    assert row["error"].isprintable()
    assert len(row["error"]) < 400
    assert row["events"] == []
    assert row["warnings"] == []
    assert row["seconds"] < MAX_SECONDS
    assert row["wall"] < MAX_WALL_SECONDS
    assert row["megabytes"] < MAX_MEGABYTES


@pytest.mark.parametrize("name", hostile_images.foreign())
def test_the_same_as_content_is_refused_too(report, name):
    row = report[f"content-{name}"]
    assert re.search(
        f"the content is not a readable image: .*{hostile_images.FOREIGN}", row["error"]
    )
    assert row["events"] == []


@pytest.mark.parametrize("name", controls())
def test_pictures_without_harm_are_read(report, name):
    assert report[name]["told"] == ["(224, 224, 3)"] * 3, report[name]
    assert report[name]["events"] == []


def test_the_corpus_is_large():
    assert len(NAMES) >= 100
    assert sum(not row[1] for row in hostile_images.hostile().values()) >= 15


def test_no_format_beside_the_table_is_ever_tried(monkeypatch):
    """Not the 40 plugins that Pillow has, nor one that another package brings."""
    Image.init()
    tried = []
    for name in Image.OPEN:
        if name not in FORMATS:
            monkeypatch.setitem(
                Image.OPEN,
                name,
                (lambda *_: tried.append("opened"), lambda prefix: tried.append("asked")),
            )
    monkeypatch.setitem(Image.OPEN, "ANYTHING", (lambda *_: tried.append("opened"), None))
    monkeypatch.setattr(Image, "ID", ["ANYTHING", *Image.ID])
    for content, _ in hostile_images.foreign().values():
        with pytest.raises(DataError):
            read(content)
    assert tried == []
    assert len(Image.OPEN) > 30
