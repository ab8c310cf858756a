"""A run that is harmed, stopped or gone wrong, and the same command again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fmjax
from fmjax.cli import main
from fmjax.engine.lock import held
from fmjax.engine.steps import committed
from fmjax.trees import flat
from tests.support.runs import SHORT as FEW
from tests.support.runs import losses, quickstart, rows

SHORT = [*FEW, "--recipe.warmup-steps", "2", "--no-compare-random", "--mesh.data", "8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """An uninterrupted run of six steps, of which 2, 4, 6 and the best were saved."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert finetune(out, "--keep", "4") == 0
    return out


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return shutil.copytree(run, tmp_path / "copy")


def finetune(out: Path, *flags: str) -> int:
    return main(["finetune", "quickstart", "--out", str(out), *SHORT, *flags])


def flip(run: Path, step: int) -> str:
    """Flips a bit in the middle of the largest file of a step's parameters, and returns the file's name."""
    place = run / "checkpoints" / str(step)
    files = (place / "params").rglob("*")
    path = max((file for file in files if file.is_file()), key=lambda file: file.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path.relative_to(place).as_posix()


def test_a_damaged_step_is_set_aside_and_the_run_goes_on_from_the_one_before(run, copy, capsys):
    name = flip(copy, 6)
    assert finetune(copy) == 0
    out = capsys.readouterr().out
    assert f"note    step 6 is damaged ({name} has other bytes than were written)" in out
    assert f"set aside in {copy / 'set_aside' / '6'}; the run goes on from step 4" in out
    assert "resumed from step 4" in out
    assert losses(copy) == losses(run)
    assert (copy / "set_aside" / "6").is_dir()
    assert 6 in committed(copy)


def test_without_fallback_a_damaged_step_is_refused(copy, capsys):
    flip(copy, 6)
    assert finetune(copy, "--no-fallback") == 4
    assert "step 6 in " in capsys.readouterr().err
    assert not (copy / "set_aside").exists()


def test_where_every_step_is_damaged_nothing_is_moved(copy, capsys):
    for step in committed(copy):
        flip(copy, step)
    assert finetune(copy) == 4
    error = capsys.readouterr().err
    assert f"no step of {copy} can be restored: step 6: params/" in error
    assert "start over with --fresh" in error
    assert not (copy / "set_aside").exists()


@pytest.mark.parametrize("command", ["eval", "export"])
def test_a_damaged_step_is_neither_scored_nor_exported(copy, tmp_path, command, capsys):
    for step in committed(copy):
        flip(copy, step)
    target = [] if command == "eval" else [str(tmp_path / "x.safetensors")]
    assert main([command, str(copy), *target]) == 4
    assert "has other bytes than were written" in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()


def test_going_back_takes_another_recipe_and_happens_once(run, copy, capsys):
    lower = ["--recipe.lr", "1e-4"]
    assert finetune(copy, *lower) == 2
    assert finetune(copy, *lower, "--from-step", "5") == 2
    assert "--from-step is 5; " in capsys.readouterr().err
    later = [step for step in committed(copy) if step > 2]
    (copy / "trackers.jsonl").write_text("")
    assert finetune(copy, *lower, "--from-step", "2") == 0
    # what went to the tools of --log is of the steps that are set aside, too
    assert not (copy / "trackers.jsonl").exists()
    out = capsys.readouterr().out
    assert f"going back to step 2; set aside in {copy / 'set_aside'}: {later}" in out
    assert "resumed from step 2" in out
    assert losses(copy)[:2] == losses(run)[:2]
    assert losses(copy)[3] != losses(run)[3]
    # the same command again goes on, and does not go back once more
    assert finetune(copy, *lower, "--from-step", "2") == 0
    assert "resumed from step 6" in capsys.readouterr().out


def test_going_back_to_a_step_that_is_damaged_moves_nothing(copy, capsys):
    before, name = committed(copy), flip(copy, 2)
    assert finetune(copy, "--recipe.lr", "1e-4", "--from-step", "2") == 2
    said = capsys.readouterr().err
    assert f"--from-step 2 cannot be gone back to: {name} has other bytes than were written" in said
    assert committed(copy) == before


def test_what_may_change_at_any_time_does_not_go_back_once_more(copy, capsys):
    lower = ["--recipe.lr", "1e-4", "--from-step", "2"]
    assert finetune(copy, *lower) == 0
    assert finetune(copy, *lower, "--recipe.max-skipped", "20") == 0
    assert "resumed from step 6" in capsys.readouterr().out


def test_what_changes_arrays_is_no_other_recipe(copy, capsys):
    assert finetune(copy, "--recipe.ema", "0.9", "--from-step", "2") == 2
    assert "recipe.ema: 0.0 -> 0.9" in capsys.readouterr().err


def test_a_folder_that_a_run_trains_in_is_refused(copy, capsys):
    with held(copy):
        assert finetune(copy) == 2
    error = capsys.readouterr().err
    assert f"{copy} is in use by process {os.getpid()} on " in error
    assert finetune(copy) == 0


def test_the_best_step_stays_and_is_what_the_run_hands_out(run, capsys):
    scored = [(row["val_accuracy"], row["step"]) for row in rows(run) if "val_accuracy" in row]
    best = max(scored)[1]
    assert best in committed(run)
    handed, chosen = flat(fmjax.restore(run)), flat(fmjax.restore(run, best))
    assert all(np.array_equal(handed[path], chosen[path]) for path in handed)
    assert main(["eval", str(run)]) == 0
    assert f"step    {best}\n" in capsys.readouterr().out


def test_without_keep_best_the_newest_steps_stay_and_are_handed_out(tmp_path):
    out = tmp_path / "run"
    flags = ["--steps", "6", "--eval-every", "1", "--save-every", "1", "--keep", "1"]
    assert finetune(out, *flags, "--no-keep-best", "--recipe.lr", "1") == 0
    assert committed(out) == [6]
    handed, newest = flat(fmjax.restore(out)), flat(fmjax.restore(out, 6))
    assert all(np.array_equal(handed[path], newest[path]) for path in newest)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_saves_its_step(run, tmp_path, number):
    out = tmp_path / "stopped"
    # saves of its own only at the end
    flags = [
        flag if flag != "2" or SHORT[i - 1] != "--save-every" else "100"
        for i, flag in enumerate(SHORT)
    ]
    process = quickstart(out, *flags)
    while process.poll() is None and not (out / "metrics.jsonl").exists():
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 75
    [step] = committed(out)
    assert error == (
        f"fmjax: stopped by {number.name} after step {step}, which is saved; run the same command to go on\n"
    )
    assert finetune(out) == 0
    assert losses(out) == losses(run)


def test_a_signal_before_the_first_step_says_that_nothing_was_done(tmp_path, monkeypatch, capsys):
    from fmjax.programs import finetune as program

    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "open_source", interrupted)
    assert finetune(tmp_path / "run") == 75
    assert capsys.readouterr().err == (
        "fmjax: stopped; no step was done; run the same command to go on\n"
    )


def test_a_run_says_what_it_will_leave_on_the_disk(tmp_path, capsys, monkeypatch):
    assert finetune(tmp_path / "run", "--steps", "2", "--eval-every", "2") == 0
    assert (
        f"disk    8.18 MB a checkpoint, of which the newest 2 and the best stay in {tmp_path}"
        in (capsys.readouterr().out)
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000_000))
    assert finetune(tmp_path / "other") == 4
    assert "has 10 MB free, and a run that saves 8.18 MB a checkpoint needs 16.4 MB" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "other").exists()


def test_the_checkpoints_are_listed_verified_and_thinned_out(copy, tmp_path, capsys):
    assert main(["ckpt", "ls", str(copy)]) == 0
    assert "best" in capsys.readouterr().out
    assert main(["ckpt", "verify", str(copy)]) == 0
    assert capsys.readouterr().out.count(": good (") == len(committed(copy))
    flip(copy, 4)
    assert main(["ckpt", "verify", str(copy)]) == 4
    said = capsys.readouterr()
    assert "step 4: damaged: params/" in said.out
    assert f"{copy} has damaged steps: [4]" in said.err
    assert main(["ckpt", "verify", str(copy), "--json"]) == 4
    verdicts = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in verdicts if row["damaged"]] == [4]
    assert [row["step"] for row in verdicts] == committed(copy)
    before = flat(fmjax.restore(copy))
    assert main(["ckpt", "prune", str(copy), "--params-only"]) == 0
    assert "freed" in capsys.readouterr().out
    assert len(committed(copy)) <= 2
    after = flat(fmjax.restore(copy))
    assert all(np.array_equal(before[path], after[path]) for path in before)
    assert main(["ckpt", "verify", str(copy)]) == 0
    assert finetune(copy, "--keep", "4") == 4
    assert "has parameters only" in capsys.readouterr().err
    target = tmp_path / "x.safetensors"
    assert main(["ckpt", "export", str(copy), str(target), "--step", "6"]) == 0
    assert target.is_file()
    assert main(["ckpt", "verfy", str(copy)]) == 2
    assert "did you mean verify?" in capsys.readouterr().err
