"""A run from the command line to its files: trained, killed, resumed, evaluated, exported."""

from __future__ import annotations

import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import fmjax
from fmjax.cli import main
from fmjax.config.presets import load_preset
from fmjax.data.split import read_split
from fmjax.engine import predictions
from fmjax.engine.records import read_run, write_run
from fmjax.errors import DivergedError
from fmjax.preprocessing import preprocess_config
from fmjax.programs.finetune import finetune
from fmjax.trees import flat
from tests.support import browser, torch_reference
from tests.support.runs import SHORT as FEW
from tests.support.runs import losses, quickstart, rows

assert torch_reference  # declares what torchvision needs before it is imported
# the first blocks and the embedding
STILL = (
    (r"backbone\.blocks\.[0-3]\..*", 0.0),
    (r"backbone\.(patch_embed.*|cls_token|pos_embed)", 0.0),
)
SHORT = [*FEW, "--recipe.warmup-steps", "2", "--no-compare-random", "--mesh.data", "8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """An uninterrupted run of six steps."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["finetune", "quickstart", "--out", str(out), *SHORT]) == 0
    return out


def best(run: Path) -> int:
    """The step with the best accuracy, the later one of equals."""
    scored = [(row["val_accuracy"], row["step"]) for row in rows(run) if "val_accuracy" in row]
    return max(scored)[1]


def test_run_leaves_what_it_promises(run):
    assert {p.name for p in run.iterdir()} == {
        ".lock",
        "checkpoints",
        "classes.json",
        "config.json",
        "confusion.png",
        "curves.png",
        "metrics.jsonl",
        "model.timm.safetensors",
        "per_class.csv",
        "predictions.npz",
        "preprocessing.json",
        "report.html",
        "spec.json",
        "split.jsonl",
    }
    assert [step for step, _, _ in losses(run)] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows(run) if "val_accuracy" in row] == [3, 6]
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == sorted(
        {"4", "6", str(best(run))}
    )


def test_every_parameter_but_the_frozen_moved(run):
    start = flat(fmjax.load("demo_vit_ti4.fashion_mnist", num_classes=10))
    end = flat(fmjax.restore(run))
    still = {path for path, leaf in end.items() if np.array_equal(leaf, start[path])}
    assert still <= {"blocks.attn.k.bias"}  # its true gradient is zero


def test_export_loads_strictly_in_timm_with_equal_logits(run):
    from timm.models.vision_transformer import VisionTransformer

    reference = VisionTransformer(28, 4, embed_dim=96, depth=6, num_heads=3, num_classes=10).eval()
    exported = load_file(run / "model.timm.safetensors")
    reference.load_state_dict({key: torch.from_numpy(value) for key, value in exported.items()})
    images = np.random.default_rng(0).standard_normal((4, 28, 28, 3), np.float32)
    with torch.no_grad():
        expected = reference(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    found = np.asarray(fmjax.restore(run)(jnp.asarray(images)).logits)
    assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()


def test_eval_gives_the_score_of_the_run(run, capsys):
    for flags, step in (([], best(run)), (["--step", "6"], 6)):
        assert main(["eval", str(run), *flags]) == 0
        [row] = [row for row in rows(run) if row["step"] == step and "val_accuracy" in row]
        out = capsys.readouterr().out
        assert f"step    {step}\n" in out
        assert f"accuracy {row['val_accuracy']:.1%}" in out


def test_running_again_resumes_and_other_settings_are_refused(run, tmp_path, capsys):
    before = losses(run)
    assert main(["finetune", "quickstart", "--out", str(run), *SHORT]) == 0
    assert "resumed from step 6" in capsys.readouterr().out
    assert losses(run) == before
    assert main(["finetune", "quickstart", "--out", str(run), *SHORT, "--recipe.lr", "0.1"]) == 2
    assert "recipe.lr: 0.001 -> 0.1" in capsys.readouterr().err
    assert main(["finetune", "quickstart", "--out", str(run), *SHORT, "--data.threads", "2"]) == 0
    fewer = ["--steps", "5"]
    assert main(["finetune", "quickstart", "--out", str(run), *SHORT, *fewer]) == 2
    assert "is at step 6 already" in capsys.readouterr().err


def test_a_damaged_config_is_one_sentence(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "config.json").write_text("{")
    assert main(["eval", str(copy)]) == 4
    assert "is damaged" in capsys.readouterr().err


def test_a_damaged_log_and_an_empty_step_do_not_stop_a_resume(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints" / "6")
    (copy / "checkpoints" / "999").mkdir()
    kept = [row for row in rows(copy) if row["step"] <= 4]
    with (copy / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 7, "lo')
    assert main(["finetune", "quickstart", "--out", str(copy), *SHORT]) == 0
    out = capsys.readouterr().out
    assert "resumed from step 4" in out
    assert f"metrics.jsonl: line {len(rows(run)) + 1} is damaged and left out" in out
    assert losses(copy) == losses(run)
    assert rows(copy)[: len(kept)] == kept
    assert not (copy / "checkpoints" / "999").exists()


def test_the_first_step_trains_and_a_long_warm_up_is_cut_with_a_sentence(run, tmp_path, capsys):
    assert next(row["lr"] for row in rows(run) if "lr" in row) > 0
    flags = [
        "--steps",
        "2",
        "--batch-size",
        "8",
        "--no-compare-random",
        "--mesh.data",
        "8",
        "--export",
        "none",
    ]
    assert main(["finetune", "quickstart", "--out", str(tmp_path / "run"), *flags]) == 0
    out = capsys.readouterr().out
    assert "a warm-up of 20 steps does not fit a run of 2; it is cut to 1" in out
    assert max(map(len, (line for line in out.splitlines() if line.startswith("step ")))) <= 80


def test_run_exports_without_its_classifier_to_the_other_dialects(run, tmp_path, capsys):
    target = str(tmp_path / "x.safetensors")
    assert main(["export", str(run), target, "--dialect", "dinov2"]) == 4
    assert "--no-classifier" in capsys.readouterr().err
    assert main(["export", str(run), target, "--dialect", "timm", "--no-classifier"]) == 0
    assert "head.weight" not in load_file(target)


def test_killed_run_resumes_to_the_same_bits(run, tmp_path):
    out = tmp_path / "killed"
    process = quickstart(out, *SHORT)
    while process.poll() is None and not list(out.glob("checkpoints/2/_CHECKPOINT_METADATA")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert main(["finetune", "quickstart", "--out", str(out), *SHORT]) == 0
    assert losses(out) == losses(run)
    whole, resumed = flat(fmjax.restore(run)), flat(fmjax.restore(out))
    assert all(np.array_equal(whole[path], resumed[path]) for path in whole)
    files = [load_file(folder / "model.timm.safetensors") for folder in (run, out)]
    assert all(np.array_equal(files[0][key], files[1][key]) for key in files[0])


def test_frozen_prefix_resumes_and_restores(tmp_path):
    preset = load_preset("quickstart")
    config = replace(
        preset,
        out=str(tmp_path / "run"),
        steps=2,
        batch_size=16,
        compare_random=False,
        recipe=replace(preset.recipe, warmup_steps=1, rates=STILL),
    )
    finetune(config)
    start, end = (
        flat(fmjax.load("demo_vit_ti4.fashion_mnist", num_classes=10)),
        flat(fmjax.restore(tmp_path / "run")),
    )
    kernel = np.asarray(end["blocks.attn.q.kernel"])
    assert np.array_equal(kernel[:4], start["blocks.attn.q.kernel"][:4])
    assert not np.array_equal(kernel[4:], start["blocks.attn.q.kernel"][4:])
    finetune(replace(config, steps=3))
    assert np.array_equal(flat(fmjax.restore(tmp_path / "run", 2))["blocks.attn.q.kernel"], kernel)


def test_diverging_loss_stops_the_run(tmp_path):
    preset = load_preset("quickstart")
    recipe = replace(preset.recipe, lr=1e20, warmup_steps=0, clip_norm=0.0)
    config = replace(
        preset,
        out=str(tmp_path / "run"),
        steps=20,
        batch_size=16,
        log_every=1,
        compare_random=False,
        recipe=recipe,
    )
    with pytest.raises(DivergedError, match=r"lower --recipe\.lr"):
        finetune(config)


def test_bf16_compute_keeps_float32_parameters(tmp_path):
    preset = load_preset("quickstart")
    config = replace(
        preset,
        out=str(tmp_path / "run"),
        steps=2,
        batch_size=16,
        compare_random=False,
        drop_path=0.1,
        remat="dots",
        recipe=replace(preset.recipe, warmup_steps=1),
        model=replace(preset.model, dtype="bfloat16"),
    )
    finetune(config)
    model = fmjax.restore(tmp_path / "run")
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {np.dtype(np.float32)}
    assert model(jnp.zeros((1, 28, 28, 3))).cls.dtype == "bfloat16"


def test_the_rows_of_the_best_evaluation_are_kept(run, tmp_path, capsys):
    found = predictions.read(run)
    assert found is not None
    split = read_split(run)
    assert split is not None
    assert found.about.step == best(run)
    assert list(found.names) == [split.val.names[i] for i in found.rows["index"]]
    [row] = [row for row in rows(run) if row["step"] == best(run) and "val_accuracy" in row]
    right = found.rows["logits"].argmax(-1) == found.rows["label"]
    assert right.mean() == pytest.approx(row["val_accuracy"], abs=1e-6)
    # an evaluation of the same step makes the same ones anew
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / predictions.PREDICTIONS).unlink()
    assert main(["eval", str(copy)]) == 0
    again = predictions.read(copy)
    assert again is not None
    assert np.allclose(again.rows["logits"], found.rows["logits"], atol=1e-4)
    # and a run that starts over has none of them
    fresh = replace(read_run(copy)[0], fresh=True)
    spec = fmjax.get_spec("demo_vit_ti4")
    write_run(copy, fresh, split, spec, preprocess_config(spec))
    assert not (copy / predictions.PREDICTIONS).exists()
    assert not (copy / "report.html").exists()


def test_its_report_in_a_browser(run, tmp_path):
    at_end = (run / "report.html").read_text()
    assert 'id="confusion"' in at_end
    assert 'id="features"' not in at_end
    target = tmp_path / "whole.html"
    assert main(["report", str(run), "--out", str(target), "--maps", "2", "--atlas", "40"]) == 0
    sections = ["curves", "confusion", "classes", "mistakes", "calibration", "features"]
    for width, scheme in ((browser.DESKTOP, "light"), (browser.PHONE, "dark")):
        found = browser.look(target, width, scheme)
        assert found["said"] == []
        assert found["requests"] == [target.as_uri()]
        assert found["sections"] == [*sections, "data", "speed", "run"]
        faults = ("overflow", "without_alt", "broken", "unnamed", "without_caption")
        assert {name: found[name] for name in (*faults, "links_to_nowhere")} == dict.fromkeys(
            (*faults, "links_to_nowhere"), 0
        )
        assert found["images"] > 20
        falling, rising = found["sorted"]
        assert falling == sorted(falling, reverse=True)
        assert rising == sorted(rising)
        assert "digit " in found["tip"]
        assert found["printed_nav"] == "none"
        dark = {"light": "rgb(255, 255, 255)", "dark": "rgb(16, 19, 22)"}
        assert found["background"] == dark[scheme]
