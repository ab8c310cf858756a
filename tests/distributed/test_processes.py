"""Real processes on the loopback: they train as one does, end together, and go on in any number."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmjax.cli import main
from fmjax.engine.peers import END_S
from tests.support.processes import Ended, Processes
from tests.support.runs import rows

# a run whose images may take a while to read, so that it can be met in the middle of its steps
PRESET = '''"""A tiny run."""

import time
from dataclasses import dataclass

import numpy as np

from fmjax.config import DataConfig, ModelConfig, Recipe, RunConfig
from fmjax.config.tasks import ClassifyConfig
from fmjax.tasks.classify import Classify


class Slow(Classify):
    def view(self, example, rng):
        time.sleep(self.config.wait_s if rng is not None else 0)
        bright = np.asarray(example["image"]).mean() > 250
        wrong = rng is not None and bright and self.config.bright_is_wrong
        return super().view(example, rng) | {"factor": np.float32(np.nan if wrong else 1)}

    def loss(self, net, batch, now):
        loss, logs = super().loss(net, batch, now)
        return loss * batch["factor"].mean(), logs


@dataclass(frozen=True, kw_only=True)
class SlowConfig(ClassifyConfig):
    home = Slow
    wait_s: float = 0.0  # that each picture takes to be read
    bright_is_wrong: bool = False  # a white picture makes the loss no number


config = RunConfig(
    model=ModelConfig(name="demo_vit_ti4.fashion_mnist"),
    data=DataConfig(crop_scale=0.5, threads=1),
    task=SlowConfig(),
    recipe=Recipe(lr=1e-3, warmup_steps=2),
    drop_path=0.2,
    steps=8,
    batch_size=8,
    eval_every=4,
    save_every=3,
    log_every=1,
)
'''
STEPS = 8
SLOW = ("--task.wait-s", "0.1")
MEMORY = (
    "0.0204"  # GiB of a device, of which a step may take 95 %: 19.4 MiB in two parts, 20.2 in one
)
NUMBERS = ("loss", "grad_norm", "accuracy", "val_accuracy", "val_loss", "val_macro_f1")


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with the preset, and pictures of which one cannot be read."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "tiny.py").write_text(PRESET)
    rng = np.random.default_rng(0)
    for part, count in (("train", 16), ("val", 5)):
        for number, name in enumerate(("cat", "dog")):
            place = folder / "pictures" / part / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 128, (20, 24, 3)) + 60 * number
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{i:02}.png")
    (folder / "pictures" / "train" / "cat" / "07.png").write_bytes(b"<html>")
    Image.new("RGB", (24, 20), "white").save(folder / "pictures" / "train" / "cat" / "03.png")
    return folder


def command(work: Path, out: Path, *more: str) -> list[str]:
    source = f"folder:{work / 'pictures'}"
    return ["finetune", str(work / "tiny.py"), "--out", str(out), "--data.source", source, *more]


def numbers(run: Path) -> dict[tuple[int, str], float]:
    """What the run has logged, by step and name."""
    found = rows(run)
    return {(row["step"], name): row[name] for row in found for name in NUMBERS if name in row}


def same(one: Path, other: Path) -> None:
    first, second = numbers(one), numbers(other)
    assert len(first) == len(second) >= 3 * STEPS
    assert {key: second[key] for key in first} == pytest.approx(first, rel=1e-5, abs=1e-7)


def codes(ended: list[Ended]) -> list[int]:
    return [process.code for process in ended]


@pytest.fixture(scope="module")
def alone(work, tmp_path_factory) -> Path:
    """The run of one process with four devices."""
    out = tmp_path_factory.mktemp("alone")
    [ended] = Processes(out / "log", command(work, out / "run"), count=1, devices=4).ended()
    assert ended.code == 0, ended.err
    return out / "run"


@pytest.mark.parametrize(
    ("count", "devices", "mesh"),
    [(2, 2, ()), (4, 1, ("--mesh.data", "2", "--mesh.fsdp", "2"))],
    ids=["2 processes x 2 devices", "4 processes, fsdp over two"],
)
def test_processes_train_as_one_process_does(work, alone, tmp_path, count, devices, mesh):
    args = command(work, tmp_path / "run", *mesh)
    ended = Processes(tmp_path / "log", args, count=count, devices=devices).ended()
    assert codes(ended) == [0] * count, ended[0].err
    same(alone, tmp_path / "run")
    # one of them speaks for all, and the picture that cannot be read is named once, whoever has met it
    assert len(re.findall(r"unreadable image left out: .*07\.png", ended[0].out)) == 1
    assert [process.out for process in ended[1:]] == [""] * (count - 1)
    assert (tmp_path / "run" / "model.timm.safetensors").stat().st_size > 10_000


def test_a_picture_that_breaks_the_loss_in_one_process_is_skipped_by_all(work, tmp_path):
    """And the parts of a batch are found alike in all: they have to compile the same programs."""
    # what all blocks keep is what a part of half the images has less of
    auto = ("--batch", "auto", "--memory-gib", MEMORY, "--remat", "none")
    each = {}
    for count in (1, 2):
        args = command(work, tmp_path / str(count), "--task.bright-is-wrong", *auto)
        [first, *_] = ended = Processes(
            tmp_path / f"log-{count}", args, count=count, devices=4 // count
        ).ended()
        assert codes(ended) == [0] * count, first.err
        each[count] = [line for line in first.out.splitlines() if "skipped" in line]
        assert "8 images in 2 parts of 4, 1 a device" in first.out
    assert 2 <= len(each[1]) <= 5
    assert each[1] == each[2]
    one, two = tmp_path / "1", tmp_path / "2"
    assert len(numbers(one)) > 2 * STEPS
    assert numbers(two) == pytest.approx(numbers(one), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("victim", [1, 0], ids=["a worker", "the coordinator"])
def test_a_killed_process_ends_all_and_the_rerun_goes_on(work, alone, tmp_path, victim):
    args = command(work, tmp_path / "run", *SLOW)
    started = Processes(tmp_path / "log", args)
    started.until("step 5/")
    started.signal(victim, signal.SIGKILL)
    ended = started.ended()
    other = ended[1 - victim]
    assert ended[victim].code == -signal.SIGKILL
    assert other.code != 0
    assert other.seconds < END_S
    assert re.match(rf"fmjax: process {victim} \(.+\) died; run the same command again", other.last)

    # in as many processes as before, or in one
    again = Processes(tmp_path / "again", args, count=1 + victim, devices=4 // (1 + victim)).ended()
    assert codes(again) == [0] * (1 + victim), again[0].err
    assert re.search(r"resumed from step \d", again[0].out)
    same(alone, tmp_path / "run")


def test_sigterm_to_one_stops_all_after_the_same_step_and_they_go_on(work, alone, tmp_path):
    args = command(work, tmp_path / "run", *SLOW, "--save-every", "100")
    started = Processes(tmp_path / "log", args)
    started.until("step 3/")
    started.signal(1, signal.SIGTERM)
    ended = started.ended()
    assert codes(ended) == [75, 75], [process.err for process in ended]
    [saved] = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert [f"step {saved}" in process.last for process in ended] == [True, True]
    again = Processes(tmp_path / "again", args).ended()
    assert codes(again) == [0, 0], again[0].err
    assert f"resumed from step {saved}" in again[0].out
    same(alone, tmp_path / "run")


def test_what_one_process_has_saved_goes_on_in_two(work, alone, tmp_path):
    args = command(work, tmp_path / "run", *SLOW)
    started = Processes(tmp_path / "log", args, count=1, devices=4)
    started.until("step 4/")
    started.signal(0, signal.SIGTERM)
    assert codes(started.ended()) == [75]
    again = Processes(tmp_path / "again", args).ended()
    assert codes(again) == [0, 0], again[0].err
    same(alone, tmp_path / "run")


def test_bad_data_in_one_process_ends_all_with_its_sentence(work, tmp_path):
    args = command(work, tmp_path / "run", "--data.max-bad", "0")
    ended = Processes(tmp_path / "log", args).ended(timeout_s=90)
    assert codes(ended) == [3, 3], [process.err for process in ended]
    sentences = sorted((process.last for process in ended), key=len)
    assert "more than --data.max-bad 0" in sentences[0]
    assert re.match(r"fmjax: process \d \(.+\) stopped: 1 unreadable image, more", sentences[1])


def test_processes_that_were_told_otherwise_are_refused_before_the_first_step(work, tmp_path):
    each = {1: ("--recipe.lr", "0.5")}
    ended = Processes(tmp_path / "log", command(work, tmp_path / "run"), each=each).ended()
    assert codes(ended) == [2, 2]
    expected = r"fmjax: process 1 \(.+\) differs from process 0 \(.+\): --recipe\.lr is 0\.5, not 0\.001; start"
    assert [bool(re.match(expected, process.last)) for process in ended] == [True, True]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("index", [0, 1])
def test_who_waits_in_vain_says_so(work, tmp_path, index, capfd, monkeypatch):
    more = ("--hosts.join-timeout-s", "3")
    started = Processes(tmp_path / "log", command(work, tmp_path / "run", *more), count=2)
    started.all[1 - index].kill()
    [ended] = [process for process in started.ended() if process.code != -signal.SIGKILL]
    assert ended.code == 2
    lacking = ("not all of them came", "process 0 cannot be reached")[index]
    assert f"process {index} of 2 waited 3 s at 127.0.0.1:" in ended.last
    assert lacking in ended.last


def test_scores_and_embeddings_are_those_of_one_process(work, alone, tmp_path, capsys):
    evaluated = ["eval", str(alone), "--preset", str(work / "tiny.py"), "--batch-size", "6"]
    ended = Processes(tmp_path / "eval", evaluated).ended()
    assert codes(ended) == [0, 0], ended[0].err
    assert main(evaluated) == 0
    expected = capsys.readouterr().out.strip().splitlines()[-1]
    assert ended[0].out.splitlines()[-1] == expected
    assert ended[1].out == ""

    frozen = ["demo_vit_ti4.fashion_mnist", "--data.source", f"folder:{work / 'pictures'}"]
    embedded = ["embed", *frozen]
    ended = Processes(tmp_path / "embed", [*embedded, "--out", str(tmp_path / "2.npz")]).ended()
    assert codes(ended) == [0, 0], ended[0].err
    assert main([*embedded, "--out", str(tmp_path / "1.npz")]) == 0
    two, one = (np.load(tmp_path / f"{count}.npz") for count in (2, 1))
    assert two["names"].tolist() == one["names"].tolist()
    assert len(two["names"]) == 16 + 15 + 10
    assert np.abs(two["features"] - one["features"]).max() < 1e-5

    for asked in (["knn", *frozen, "--k", "3"], ["probe", *frozen]):
        ended = Processes(tmp_path / asked[0], asked).ended()
        assert codes(ended) == [0, 0], ended[0].err
        assert main(asked) == 0
        expected = capsys.readouterr().out.strip().splitlines()[-1]
        assert ended[0].out.splitlines()[-1] == expected
        assert ended[1].out == ""


def test_the_record_of_a_run_does_not_depend_on_who_has_made_it(alone):
    assert json.loads((alone / "config.json").read_text())["hosts"]["count"] == 1
