"""Numbers that go wrong in the middle of a run: it goes on, or ends with the way back."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fmjax.config.presets import load_preset
from fmjax.config.run import RunConfig
from fmjax.engine import steps
from fmjax.errors import DivergedError
from fmjax.programs.finetune import finetune
from tests.support.faulty import FaultyConfig
from tests.support.runs import losses, rows


def config(out: Path, *faults: tuple[str, int, int], **options) -> RunConfig:
    preset = load_preset("quickstart")
    task = FaultyConfig(faults=faults)
    same = {"steps": 6, "batch_size": 16, "eval_every": 3, "save_every": 2, "log_every": 1}
    return replace(
        preset, out=str(out), task=task, compare_random=False, export="none", **(same | options)
    )


def test_a_run_goes_on_over_numbers_that_go_wrong_and_says_so(tmp_path, capsys):
    faults = (("loss", 2, 3), ("gradient", 5, 5), ("leap", 14, 14))
    finetune(config(tmp_path, *faults, log_every=4, steps=14, eval_every=20))
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if "skipped: loss" in line]
    assert [line.partition(" skipped")[0] for line in told] == ["step 2", "step 3", "step 5"]
    examples = told[0].partition("examples: ")[2].split(", ")
    assert len({int(index) for index in examples}) == 16
    assert "skipped 3 of 14 steps, whose loss or gradient was not finite" in lines
    leaps = [line for line in lines if "leaps" in line]
    assert len(leaps) == 1
    assert leaps[0].startswith("step 14: loss 1002 leaps above the last 11, of median 2.")

    # the loss of a step that was skipped is no number, and has no place in JSON
    found = {row["step"]: row for row in rows(tmp_path) if "lr" in row}
    assert list(found) == [2, 4, 6, 8, 10, 12, 14]
    assert [row.get("skipped") for row in found.values()] == [1, 2, 3, 3, 3, 3, 3]
    assert "loss" not in found[2]


def test_a_run_that_is_lost_ends_with_the_way_back(tmp_path):
    lost = config(tmp_path, ("gradient", 6, 99), steps=40, eval_every=50)
    lost = replace(lost, recipe=replace(lost.recipe, max_skipped=2))
    with pytest.raises(DivergedError) as caught:
        finetune(lost)
    assert str(caught.value).startswith(
        "steps 6 to 8 were skipped, as their loss or gradient is not"
    )
    assert "go on from step 4, the last good one that is saved, with --from-step 4" in str(
        caught.value
    )
    # the state of steps that learned nothing has pushed no good one out
    assert steps.committed(tmp_path) == [2, 4]


def test_scores_that_are_no_numbers_end_the_run_with_the_way_back(tmp_path):
    preset = config(tmp_path, steps=3, save_every=1, eval_every=9)
    recipe = replace(preset.recipe, lr=1e25, warmup_steps=0, clip_norm=0.0)
    with pytest.raises(
        DivergedError, match=r"'logits' are not finite for \d+ of \d+ images"
    ) as caught:
        finetune(replace(preset, recipe=recipe))
    assert "lower --recipe.lr" in str(caught.value)


def test_float16_is_said_and_a_resumed_run_keeps_its_scale_and_count(tmp_path, capsys):
    whole = config(tmp_path / "whole", ("loss", 2, 2), ("gradient", 3, 3), keep=3)
    whole = replace(whole, model=replace(whole.model, dtype="float16"))
    finetune(whole)
    out = capsys.readouterr().out
    assert "float16: asked for by --model.dtype; the loss is scaled, by 65536 at first" in out
    assert "step 3: the gradient overflowed in float16" in out
    assert [row["loss_scale"] for row in rows(tmp_path / "whole") if "lr" in row][2:] == [
        2.0**15
    ] * 4

    # from the step after both: the same bits, the same scale and the same count
    cut = shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(cut / "checkpoints" / "6")
    finetune(replace(whole, out=str(cut)))
    assert losses(cut) == losses(tmp_path / "whole")
    last = [[row for row in rows(run) if "lr" in row][-1] for run in (tmp_path / "whole", cut)]
    assert [(row["loss_scale"], row["skipped"]) for row in last] == [(2.0**15, 1)] * 2
