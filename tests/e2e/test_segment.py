"""A segmentation from the command line to its files: trained, resumed, evaluated, exported, on eight devices."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import fmjax
from fmjax.cli import main
from fmjax.engine import predictions
from fmjax.report.masks import image_ious
from fmjax.trees import flat
from tests.support import browser
from tests.support.runs import SHORT as FEW
from tests.support.runs import losses, rows
from tests.support.scenes import drawn

pytestmark = pytest.mark.usefixtures("quick_compiler")

MODEL = ["--model.name", "demo_vit_ti4.fashion_mnist", "--task.layers", "2"]
SHORT = [
    *FEW,
    *["--recipe.warmup-steps", "2", "--recipe.lr", "1e-3", "--mesh.data", "4", "--mesh.fsdp", "2"],
]


def command(scenes: Path, out: Path, *flags: str, preset: str = "segment_tune") -> list[str]:
    return [
        "finetune",
        preset,
        "--out",
        str(out),
        "--data.source",
        f"masks:{scenes}",
        *MODEL,
        *SHORT,
        *flags,
    ]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return drawn(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory) -> Path:
    """An uninterrupted run of six steps, all trained."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(command(scenes, out)) == 0
    return out


def test_run_leaves_what_it_promises(run):
    made = {
        ".lock",
        "checkpoints",
        "classes.json",
        "config.json",
        "curves.png",
        "metrics.jsonl",
        "predictions.png",
    }
    assert {path.name for path in run.iterdir()} == made | {
        "model.timm.safetensors",
        "predictions.npz",
        "preprocessing.json",
        "report.html",
        "spec.json",
        "split.jsonl",
    }
    assert json.loads((run / "classes.json").read_text()) == ["background", "disc", "square"]
    assert [row["step"] for row in rows(run) if "val_miou" in row] == [3, 6]
    found = [loss for _, loss, _ in losses(run)]
    # of a guess: pixels of no class are no part of it
    assert found[0] == pytest.approx(np.log(3), rel=1e-4)
    assert found[-1] < found[0]


def test_eval_gives_the_score_of_the_run_on_another_mesh(run, capsys):
    assert main(["eval", str(run), "--mesh.data", "8", "--batch-size", "8"]) == 0
    final = [row for row in rows(run) if "val_miou" in row][-1]
    said = capsys.readouterr().out
    assert f"miou {final['val_miou']:.1%}, pixel_accuracy {final['val_pixel_accuracy']:.1%}" in said
    assert "IoU background " in said


def test_a_run_that_goes_on_has_the_same_bits(run, scenes, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints" / "6")
    assert main(command(scenes, copy)) == 0
    assert "resumed from step 4" in capsys.readouterr().out
    assert losses(copy) == losses(run)
    whole, resumed = flat(fmjax.restore(run)), flat(fmjax.restore(copy))
    assert all(np.array_equal(whole[path], resumed[path]) for path in whole)


def test_what_comes_back_and_is_exported_is_the_tuned_backbone(run):
    restored = fmjax.restore(run)
    assert restored.classifier is None
    given = fmjax.load("demo_vit_ti4.fashion_mnist")
    again = fmjax.load("demo_vit_ti4.fashion_mnist", checkpoint=run / "model.timm.safetensors")
    images = jnp.asarray(np.random.default_rng(0).standard_normal((2, 28, 28, 3)), jnp.float32)
    patches = [np.asarray(model(images).patches) for model in (restored, again, given)]
    assert np.array_equal(patches[0], patches[1])
    assert not np.allclose(patches[0], patches[2], atol=1e-3)
    assert not [key for key in load_file(run / "model.timm.safetensors") if key.startswith("head")]


def test_a_frozen_backbone_stays_as_it_was_and_learns_the_shapes(scenes, tmp_path):
    flags = [
        "--steps",
        "40",
        "--eval-every",
        "40",
        "--save-every",
        "40",
        "--recipe.lr",
        "3e-2",
        "--export",
        "none",
    ]
    assert main(command(scenes, tmp_path / "run", *flags, preset="segment_linear")) == 0
    start, end = (
        flat(fmjax.load("demo_vit_ti4.fashion_mnist")),
        flat(fmjax.restore(tmp_path / "run")),
    )
    assert all(np.array_equal(end[path], start[path]) for path in start)
    assert rows(tmp_path / "run")[-1]["val_miou"] > 0.4  # 0.27 where all is background


def test_mesh_and_accumulation_do_not_change_what_is_learned(run, scenes, tmp_path):
    flags = ["--mesh.data", "8", "--mesh.fsdp", "1", "--recipe.accumulate", "2", "--export", "none"]
    assert main(command(scenes, tmp_path / "run", *flags)) == 0
    found, expected = (
        np.asarray([loss for _, loss, _ in losses(out)]) for out in (tmp_path / "run", run)
    )
    assert np.abs(found / expected - 1).max() < 1e-4


def test_running_averages_are_saved_and_scored_with(scenes, tmp_path, capsys):
    flags = ["--task.head", "batch_norm", "--export", "none"]
    assert main(command(scenes, tmp_path / "run", *flags, preset="segment_linear")) == 0
    assert main(["eval", str(tmp_path / "run"), "--mesh.data", "8"]) == 0
    final = [row for row in rows(tmp_path / "run") if "val_miou" in row][-1]
    miou, accuracy, loss = (final[f"val_{name}"] for name in ("miou", "pixel_accuracy", "loss"))
    said = f"miou {miou:.1%}, pixel_accuracy {accuracy:.1%}, loss {loss:.4g}"
    assert capsys.readouterr().out.count(said) >= 2  # of the run, and of its evaluation


def test_its_report_in_a_browser(run, tmp_path):
    target = tmp_path / "page.html"
    assert main(["report", str(run), "--out", str(target), "--maps", "2", "--atlas", "0"]) == 0
    found = browser.look(target, browser.PHONE)
    assert found["said"] == []
    assert found["requests"] == [target.as_uri()]
    assert found["sections"] == [
        "curves",
        "classes",
        "mistakes",
        "features",
        "data",
        "speed",
        "run",
    ]
    assert (found["overflow"], found["without_alt"], found["broken"]) == (0, 0, 0)
    assert "disc" in found["text"]
    kept = predictions.read(run)
    assert kept is not None
    # the picture that was marked worst stands first
    worst = np.argmin(image_ious(kept.rows["overlap"]))
    first = found["text"].index(kept.names[int(worst)])
    assert all(
        first <= found["text"].find(name) or name not in found["text"] for name in kept.names
    )


def test_a_run_without_a_report_has_none(scenes, tmp_path):
    flags = ["--steps", "2", "--export", "none", "--no-report"]
    assert main(command(scenes, tmp_path / "run", *flags)) == 0
    assert not (tmp_path / "run/report.html").exists()
    assert (tmp_path / "run/predictions.npz").exists()
