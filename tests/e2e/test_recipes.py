"""Recipes from the command line to a run's files: averages that are handed out, a head that another run has trained,
named recipes, and each optimiser on a mesh."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fmjax
from fmjax.cli import main
from fmjax.engine.checkpoint import as_saved
from fmjax.engine.evaluate import Scores
from fmjax.engine.steps import committed
from fmjax.models.build import initialise
from fmjax.names import get_spec
from fmjax.programs.finetune import finetune
from fmjax.sharding import make_mesh
from fmjax.trees import flat
from tests.support import tiny as tiny_network
from tests.support.runs import rows, started

pytestmark = pytest.mark.usefixtures("quick_compiler")

TINY = str(tiny_network.TINY)
FEW = ["--steps", "4", "--eval-every", "2", "--save-every", "2", "--drop-path", "0"]
AVERAGED = ["--recipe.ema", "0.5", "--recipe.last-blocks", "1", "--recipe.layer-decay", "1"]


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """A very small network and its preset, known while these tests run."""
    with tiny_network.known() as preset:
        yield preset


@pytest.fixture(scope="module")
def averaged(tmp_path_factory) -> Path:
    """A run whose average is handed out, of the last of two blocks."""
    out = tmp_path_factory.mktemp("runs") / "averaged"
    assert main(["finetune", TINY, "--out", str(out), *FEW, *AVERAGED]) == 0
    return out


@pytest.fixture(scope="module")
def probed(tmp_path_factory) -> Path:
    """A finished run that has trained a head, by the named recipe."""
    out = tmp_path_factory.mktemp("runs") / "probed"
    flags = ["--with-recipe", "linear_probe", "--recipe.lr", "0.05", "--recipe.lr-base-size", "0"]
    assert main(["finetune", TINY, "--out", str(out), *FEW, *flags]) == 0
    return out


def saved(run: Path, step: int, item: str) -> dict[str, np.ndarray]:
    tree = as_saved((run / "checkpoints" / str(step) / item).absolute())
    return {path: np.asarray(leaf) for path, leaf in flat(tree).items()}


def test_the_average_is_scored_restored_and_exported(averaged, tmp_path, capsys):
    step = committed(averaged)[-1]
    params, average = saved(averaged, step, "params"), saved(averaged, step, "ema")
    # of the first block, which is not trained, there is none
    path = "blocks.mlp.up.kernel"
    assert average[f"backbone.{path}"].shape[0] == 1
    assert not np.array_equal(average["head.kernel"], params["head.kernel"])
    restored = {
        name: np.asarray(leaf) for name, leaf in flat(fmjax.restore(averaged, step)).items()
    }
    np.testing.assert_array_equal(restored["classifier.kernel"], average["head.kernel"])
    np.testing.assert_array_equal(restored[path][:1], params[f"backbone.{path}"][:1])
    np.testing.assert_array_equal(restored[path][1:], average[f"backbone.{path}"])

    # the score in the run's log is the average's, as it is read back
    scored = {row["step"]: row for row in rows(averaged) if "val_loss" in row}
    capsys.readouterr()
    assert main(["eval", str(averaged), "--preset", TINY, "--step", str(step)]) == 0
    said = capsys.readouterr().out
    assert f"step    {step}, the average of its parameters" in said
    assert f"loss {scored[step]['val_loss']:.4f}" in said
    # and the file that is written on demand
    target = tmp_path / "model.safetensors"
    flags = ["--step", str(step), "--dialect", "timm", "--preset", TINY]
    assert main(["ckpt", "export", str(averaged), str(target), *flags]) == 0
    from safetensors.numpy import load_file

    np.testing.assert_array_equal(load_file(target)["head.weight"], average["head.kernel"].T)


def test_the_parameters_are_handed_out_where_that_is_asked_for(averaged, tmp_path):
    copy = tmp_path / "newest"
    shutil.copytree(averaged, copy)
    config = json.loads((copy / "config.json").read_text())
    config["recipe"]["ema_eval"] = False
    (copy / "config.json").write_text(json.dumps(config))
    restored = np.asarray(flat(fmjax.restore(copy, 4))["classifier.kernel"])
    np.testing.assert_array_equal(restored, saved(copy, 4, "params")["head.kernel"])
    assert not np.array_equal(restored, saved(copy, 4, "ema")["head.kernel"])


def test_an_average_goes_on_with_the_run_and_outlives_a_pruning(averaged, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(averaged, copy)
    shutil.rmtree(copy / "checkpoints" / "4")
    assert main(["finetune", TINY, "--out", str(copy), *FEW, *AVERAGED]) == 0
    assert "resumed from step 2" in capsys.readouterr().out
    for item in ("params", "ema"):
        again, before = saved(copy, 4, item), saved(averaged, 4, item)
        assert all(np.array_equal(again[path], before[path]) for path in before)
    assert main(["ckpt", "prune", str(copy), "--params-only", "--preset", TINY]) == 0
    assert main(["eval", str(copy), "--preset", TINY, "--step", "4"]) == 0
    shutil.rmtree(copy / "checkpoints" / "4" / "ema")
    assert main(["eval", str(copy), "--preset", TINY, "--step", "4"]) != 0
    assert "has no average of its parameters" in capsys.readouterr().err


def test_a_named_recipe_is_a_start_that_other_flags_change(probed, capsys):
    recipe = json.loads((probed / "config.json").read_text())["recipe"]
    assert (recipe["train"], recipe["optimiser"], recipe["lr"]) == ("head", "sgd", 0.05)
    # only the head has moved
    moments = [path for path in saved(probed, 4, "opt") if "trace" in path]
    assert sorted(path[-11:] for path in moments) == ["e.head.bias", "head.kernel"]
    assert main(["finetune", TINY, "--with-recipe", "linear_prob"]) == 2
    assert "did you mean linear_probe" in capsys.readouterr().err
    assert main(["finetune", TINY, "--with-recipe"]) == 2
    assert "--with-recipe needs a name" in capsys.readouterr().err


def test_groups_are_said_before_the_first_step(tmp_path, capsys):
    flags = ["--with-recipe=last_blocks", "--recipe.last-blocks", "1", "--dry-run"]
    flags += ["--batch-size", "16"]
    assert main(["finetune", TINY, *flags, "--out", str(tmp_path / "none")]) == 0
    said = capsys.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(said) if line.startswith("groups  part"))
    assert [line.split()[0] for line in said[at + 1 : at + 3]] == ["backbone", "backbone"]
    table = [line for line in said if line.startswith("        ")]
    assert any("blocks 0 " in line and "not trained" in line for line in table)
    assert any("blocks 1 " in line and "0.000125" in line for line in table)
    # the rate of its authors, and what a batch of this size makes of it
    assert any("lr 0.0005 is of a batch of 256; one of 16 has 0.000125" in line for line in said)
    assert any(line.startswith("recipe  lr 0.000125,") for line in said)
    assert max(map(len, table)) <= 80


def test_a_run_starts_with_the_head_of_another(probed, tiny, tmp_path, capsys):
    out = tmp_path / "tuned"
    # of larger images, whose table of positions is another one
    flags = ["--with-recipe", "lp_ft", "--recipe.lr", "1e-9", "--head-from", str(probed)]
    flags += ["--model.image-size", "12", "12"]
    assert main(["finetune", TINY, "--out", str(out), *FEW, *flags]) == 0
    assert f"head    from {probed}" in capsys.readouterr().out
    best = np.asarray(flat(fmjax.restore(probed))["classifier.kernel"])
    assert np.abs(best).max() > 0.01
    np.testing.assert_allclose(saved(out, 2, "params")["head.kernel"], best, atol=1e-6)

    # what goes on has a head of its own: the other run may be gone
    shutil.rmtree(out / "checkpoints" / "4")
    moved = probed.rename(probed.with_name("elsewhere"))
    try:
        assert main(["finetune", TINY, "--out", str(out), *FEW, *flags]) == 0
    finally:
        moved.rename(probed)
    assert committed(out)[-1] == 4


def test_a_head_that_does_not_fit_is_refused_before_anything_is_written(probed, tmp_path, capsys):
    out = tmp_path / "never"
    start = ["finetune", TINY, "--out", str(out), "--head-from"]

    def refused(run: Path, *flags: str) -> str:
        assert main([*start, str(run), *flags]) != 0
        assert not out.exists()
        return capsys.readouterr().err

    assert "is not the folder of a run" in refused(tmp_path)
    assert "its head.kernel is (16, 10), and this run's (32, 10)" in refused(
        probed, "--task.classifier", "cls_patches", "--export", "none"
    )
    said = refused(probed, "--model.name", "demo_vit_ti4.fashion_mnist")
    assert "its model is stored_vit.none, and this run demo_vit_ti4.fashion_mnist" in said
    assert (
        main(["finetune", TINY, "--out", str(probed), "--fresh", "--head-from", str(probed)]) == 2
    )
    assert "it is this run's own folder" in capsys.readouterr().err
    assert committed(probed)[-1] == 4
    # a run that stopped on its way, and one of other classes
    early, other = tmp_path / "early", tmp_path / "other"
    for copy in (early, other):
        shutil.copytree(probed, copy)
    shutil.rmtree(early / "checkpoints" / "4")
    assert "it is at step 2 of 4; run its command to the end" in refused(early)
    classes = json.loads((other / "classes.json").read_text())
    (other / "classes.json").write_text(json.dumps(["zero", *classes[1:]]))
    assert "its classes are others" in refused(other)


def test_the_run_from_random_weights_has_a_head_of_its_own(tiny, monkeypatch):
    asked, scores = [], Scores({"accuracy": 0.5}, {}, 0)

    def one_run(config, share=None):
        asked.append((config.model.init, config.head_from))
        return scores, None

    monkeypatch.setattr("fmjax.programs.finetune.one_run", one_run)
    monkeypatch.setattr("fmjax.programs.finetune.compared", lambda *_: "")
    model = replace(tiny.model, init="pretrained")
    finetune(replace(tiny, model=model, compare_random=True, head_from="runs/probe"))
    assert asked == [("random", ""), ("pretrained", "runs/probe")]


@pytest.mark.parametrize("name", ["adafactor", "muon"])
def test_a_state_with_other_moments_lies_on_a_mesh(tiny, name):
    recipe = replace(tiny.recipe, optimiser=name)
    # wide enough for Adafactor to keep rows and columns
    sizes = {"width": 128, "depth": 2, "num_heads": 2, "mlp_dim": 128, "image_size": (8, 8)}
    spec, mesh = replace(get_spec("demo_vit_ti4"), **sizes), make_mesh(2, 4)
    run = started(replace(tiny, recipe=recipe), mesh, initialise(spec, mesh=mesh))
    path = "backbone.blocks.mlp.up.kernel"
    where = flat(run.state.params)[path].sharding
    held = {found: leaf for found, leaf in flat(run.state.opt).items() if found.endswith(path)}
    whole = {found for found, leaf in held.items() if leaf.shape == (2, 128, 128)}
    assert {field.rpartition("." + path)[0].rpartition(".")[2] for field in whole} == MOMENTS[name]
    assert all(held[found].sharding == where for found in whole)
    assert all(held[found].sharding.is_fully_replicated for found in held.keys() - whole)
    # a step takes it and gives it back in the same places
    run.functions.step.lower(run.state, run.batch())


# what has the shape of a matrix in a block: a row and a column are no moments
MOMENTS = {"adafactor": set(), "muon": {"mu"}}
