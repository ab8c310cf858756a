"""The line that each help ends with runs as it stands: where it needs a run, a folder or a file, these are there."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmjax.cli import main
from fmjax.commands import COMMANDS
from fmjax.commands.completing import help_of
from tests.support.checkpoints import random_file, save, small
from tests.unit.test_from_tao import SIX

# what finetune is given beside its example's own words, so that it takes seconds
QUICK = (
    *("--steps", "2", "--batch-size", "16", "--eval-every", "2", "--save-every", "2"),
    *("--recipe.warmup-steps", "0", "--no-compare-random", "--export", "none"),
)
# ran as their examples say in tests/e2e/test_cli.py, where their scores are held as well
ELSEWHERE = {"embed", "knn", "probe"}
# a machine that runs tests may have troubles of its own
CODES = {"doctor": {0, 7}}
# files that an example leaves
MADE = {
    "convert": "out.safetensors",
    "export": "model.safetensors",
    "ckpt export": "model.safetensors",
    "predict": "predictions.csv",
    "average": "runs/soup/config.json",
    "report": "runs/quickstart/report.html",
    "push": "hub/quickstart/README.md",
    "data check": "check.html",
    "data pack": "packed",
}


VERBS = [(name, verb) for name, c in COMMANDS.items() for verb in c.verbs or ("",)]
PAGES = {" ".join(filter(None, pair)): pair for pair in VERBS if pair[0] not in ELSEWHERE}


def example(page: str) -> list[str]:
    """The words behind `fmjax` in the line that a help ends with."""
    name, verb = PAGES[page]
    text = help_of(COMMANDS[name], *filter(None, [verb]))
    [line] = re.findall(r"^Example: fmjax (.*)$", text, re.MULTILINE)
    return shlex.split(line)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """What `fmjax finetune`'s example makes, and under two more names."""
    folder = tmp_path_factory.mktemp("examples")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main([*example("finetune"), *QUICK]) == 0
    finally:
        os.chdir(before)
    for name in ("a", "b"):
        (folder / "runs" / name).symlink_to("quickstart")
    return folder / "runs"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with pictures, a checkpoint and a spec of TAO."""
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(number + len(name)).integers(0, 255, (40, 40, 3))
            picture = Image.fromarray(pixels.astype(np.uint8))
            picture.save(tmp_path / "images" / name / f"{number}.png")
    # ViT-B-16 in small, so that its files are
    monkeypatch.setattr("fmjax.weights.load.names.get_spec", lambda name: small(name.split(".")[0]))
    save(tmp_path / "clip.safetensors", random_file(small("ViT-B-16"), "open_clip", np.float16))
    (tmp_path / "spec.yaml").write_text(SIX)
    return tmp_path


@pytest.fixture
def prepared(request, tmp_path, monkeypatch):
    """An example's words, where what they speak of is."""

    def found(page: str) -> list[str]:
        words = example(page)
        if not any(word.startswith("runs/") for word in words):
            request.getfixturevalue("place")
            return words
        # the same runs for all: nothing that an example does to them hinders the next
        runs = request.getfixturevalue("runs")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "runs").mkdir()
        for run in runs.iterdir():
            (tmp_path / "runs" / run.name).symlink_to(run)
        for picture in ("cat.jpg", "photos/dog.jpg"):
            (tmp_path / picture).parent.mkdir(exist_ok=True)
            Image.new("RGB", (40, 40), (90, len(picture), 9)).save(tmp_path / picture)
        return words

    return found


@pytest.mark.parametrize("page", [page for page in PAGES if page != "finetune"])
def test_an_example_runs(page, prepared, tmp_path, capsys):
    words = prepared(page)
    assert main(words) in CODES.get(page, {0})
    said = capsys.readouterr()
    if page in MADE:
        assert (tmp_path / MADE[page]).exists()
    else:
        assert len(said.out.splitlines()) >= 1


# doctor's records are looked at in tests/unit/test_doctor.py, those of ckpt verify in tests/e2e/test_recovery.py
LISTS = ("models", "info", "download", "data check", "ckpt ls")


@pytest.mark.parametrize("page", LISTS)
def test_what_lists_has_records_for_machines(page, prepared, capsys):
    words = prepared(page)
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    rows = told if isinstance(told, list) else [told]
    assert len(rows) >= 1
    assert all(isinstance(row, dict) and row for row in rows)


def test_the_example_of_finetune_makes_a_run(runs):
    assert (runs / "quickstart" / "config.json").is_file()


def test_every_command_has_an_example_that_runs():
    assert {name for name, _ in PAGES.values()} | ELSEWHERE == set(COMMANDS)
