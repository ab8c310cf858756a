"""What a run and its evaluation do where the images are not what they were, and with images of another source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmjax.cli import main
from fmjax.data.split import read_split

FLAGS = [
    "--steps",
    "1",
    "--batch-size",
    "8",
    "--mesh.data",
    "8",
    "--export",
    "none",
    "--model.init",
    "random",
]
NAMES = ("bird", "cat", "fish")


def fill(folder: Path, count: int, names=NAMES, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            # a seed has file sizes of its own
            pixels = rng.integers(0, 256, (12 + i, 16 + seed, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """photos/ and a run on them, one step long."""
    folder = tmp_path_factory.mktemp("runs")
    fill(folder / "photos", 10)
    assert main(train(folder)) == 0
    return folder


@pytest.fixture
def home(whole, tmp_path) -> Path:
    """A copy, in another place, of the photographs and of a run that knows them there."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["data"]["source"] = f"folder:{tmp_path / 'photos'}"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    return tmp_path


def train(home: Path, *flags: str) -> list[str]:
    source = f"folder:{home / 'photos'}"
    return [
        "finetune",
        "quickstart",
        "--out",
        str(home / "run"),
        "--data.source",
        source,
        *FLAGS,
        *flags,
    ]


def out_of(capsys, code: int, args: list[str]) -> str:
    """What a command says, on both streams; checks the exit code."""
    assert main(args) == code
    found = capsys.readouterr()
    return found.out + found.err


def test_an_image_that_is_gone_stops_a_resume_and_not_a_score_without_it(home, capsys):
    split = read_split(home / "run")
    assert split is not None
    (home / "photos" / split.train.names[0]).unlink()
    text = out_of(capsys, 3, train(home, "--steps", "2"))
    assert f"1 removed ({split.train.names[0]!r}); restore the files, or pass --fresh" in text
    text = out_of(capsys, 0, ["eval", str(home / "run")])
    assert "has changed since the run was made: 1 removed" in text
    assert "the images that the run held out: 6" in text
    (home / "photos" / split.val.names[0]).unlink()
    text = out_of(capsys, 3, ["eval", str(home / "run")])
    assert f"lacks some of the run's 6 held-out images: 1 removed ({split.val.names[0]!r})" in text


def test_new_images_are_said_and_left_out_and_data_may_move(home, capsys):
    (home / "photos").rename(home / "moved")
    Image.new("RGB", (16, 16)).save(home / "moved" / "bird" / "new.png")
    before = (home / "run" / "split.jsonl").read_bytes()
    text = out_of(
        capsys, 0, train(home, "--steps", "2", "--data.source", f"folder:{home / 'moved'}")
    )
    assert "resumed from step 1" in text
    assert (
        "images that came after the run had begun are left out of it: 1 added ('bird/new.png')"
        in text
    )
    assert "24 train, 6 val" in text
    assert (home / "run" / "split.jsonl").read_bytes() == before
    assert "the images that the run held out: 6" in out_of(capsys, 0, ["eval", str(home / "run")])


def test_moved_data_that_are_named_are_scored_by_their_held_out_part(home, capsys):
    (home / "photos").rename(home / "moved")
    text = out_of(capsys, 0, ["eval", str(home / "run"), "--source", f"folder:{home / 'moved'}"])
    assert "moved, the images that the run held out: 6" in text


def test_a_run_without_a_record_says_so_and_draws_as_before(home, capsys):
    (home / "run" / "split.jsonl").unlink()
    text = out_of(capsys, 0, ["eval", str(home / "run")])
    assert "which images the run holds out is not recorded" in text
    assert "a held-out part: 6 images" in text
    text = out_of(capsys, 0, train(home, "--steps", "2"))
    assert "which images the run holds out is not recorded" in text
    assert read_split(home / "run") is not None


def test_a_damaged_record_stops_resume_and_score(home, capsys):
    (home / "run" / "split.jsonl").write_text("{")
    for command in (train(home, "--steps", "2"), ["eval", str(home / "run")]):
        assert "split.jsonl is damaged" in out_of(capsys, 4, command)


def test_a_source_that_is_named_is_scored_whole(home, capsys):
    source = fill(home / "test", 7, seed=1)
    text = out_of(capsys, 0, ["eval", str(home / "run"), "--source", f"folder:{source}"])
    assert f"scored  folder:{source}, all of it: 21 images of 3 classes" in text
    assert "(21 images)" in text
    assert "trained on" not in text


def test_a_named_source_with_a_part_for_validation_is_scored_by_that(home, capsys):
    fill(home / "test" / "train", 2, seed=1)
    fill(home / "test" / "val", 3, seed=2)
    text = out_of(capsys, 0, ["eval", str(home / "run"), "--source", f"folder:{home / 'test'}"])
    assert "its held-out part: 9 images of 3 classes" in text


def test_images_that_the_run_was_trained_on_are_said(home, capsys):
    source = shutil.copytree(home / "photos", home / "copy")
    Image.new("RGB", (5, 5)).save(source / "cat" / "0.png")
    text = out_of(capsys, 0, ["eval", str(home / "run"), "--source", f"folder:{source}"])
    assert "all of it: 30 images" in text
    assert "of them have the name and size of images that the run was trained on" in text


def test_fewer_classes_are_scored_and_unknown_ones_refused_by_name(home, capsys):
    source = fill(home / "test", 4, ("cat", "fish"), seed=1)
    text = out_of(capsys, 0, ["eval", str(home / "run"), "--source", f"folder:{source}"])
    assert "8 images of 2 classes" in text
    assert "over the 2 of 3 classes that have images" in text
    fill(source, 2, ("hen", "ant"))
    text = out_of(capsys, 3, ["eval", str(home / "run"), "--source", f"folder:{source}"])
    assert all(name in text for name in ("ant", "hen"))


def test_a_run_and_its_comparison_are_scored_on_the_same_images(home, capsys):
    shutil.rmtree(home / "run")
    flags = ["--model.init", "pretrained", "--compare-random"]
    assert main(train(home, *flags)) == 0
    own, other = (home / "run" / "split.jsonl", home / "run" / "from_random" / "split.jsonl")
    assert own.read_bytes() == other.read_bytes()
    shutil.rmtree(home / "run" / "checkpoints")  # as if it had been stopped between the two
    Image.new("RGB", (16, 16)).save(home / "photos" / "bird" / "new.png")
    assert main(train(home, *flags)) == 0
    assert own.read_bytes() == other.read_bytes()
