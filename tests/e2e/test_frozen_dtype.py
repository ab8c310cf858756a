"""Kernels that are not trained, kept in bfloat16: the same run in less memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import fmjax
from fmjax.cli import main
from fmjax.config import AverageConfig, ModelConfig, Recipe
from fmjax.engine.checkpoint import as_saved
from fmjax.errors import UsageError
from fmjax.models.build import initialise
from fmjax.programs.average import main as average
from fmjax.programs.dry_run import dry_run
from fmjax.programs.finetune import finetune
from fmjax.trees import flat
from fmjax.weights.export import export
from tests.support import tiny as tiny_network
from tests.support.runs import losses

pytestmark = pytest.mark.usefixtures("quick_compiler")

NAME = "stored_vit.none"
RECIPE = Recipe(lr=3e-2, warmup_steps=0, lora_rank=2)
HALF = replace(RECIPE, frozen="bfloat16")
KERNEL = "backbone.blocks.mlp.up.kernel"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    with tiny_network.known() as preset:
        weights = tmp_path_factory.mktemp("base") / "base.safetensors"
        export(initialise(fmjax.get_spec("stored_vit")), weights)
        model = ModelConfig(name=NAME, checkpoint=str(weights), dtype="bfloat16")
        yield replace(
            preset, model=model, steps=4, eval_every=2, save_every=2, export="timm", recipe=HALF
        )


@pytest.fixture(scope="module")
def half(settings, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "half"
    finetune(replace(settings, out=str(out)))
    return out


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    finetune(replace(settings, recipe=RECIPE, out=str(out)))
    return out


def saved(run: Path) -> dict[str, np.ndarray]:
    return flat(as_saved(run / "checkpoints" / "4" / "params"))


def test_the_steps_are_those_of_the_run_in_float32(half, whole):
    assert losses(half) == losses(whole)
    ours, theirs = saved(half), saved(whole)
    narrow = {path for path, leaf in ours.items() if leaf.dtype == jnp.bfloat16}
    assert narrow == {path for path in ours if ".blocks." in path and path.endswith(".kernel")}
    for path, leaf in ours.items():
        expected = theirs[path].astype(leaf.dtype)
        assert np.array_equal(leaf, expected), path


def test_it_goes_on_from_what_it_has_saved(half, settings, tmp_path):
    out = tmp_path / "run"
    finetune(replace(settings, out=str(out)))
    first, second = (flat(as_saved(out / "checkpoints" / step / "params")) for step in ("2", "4"))
    assert first[KERNEL].dtype == second[KERNEL].dtype == jnp.bfloat16
    (out / "checkpoints" / "4").rename(tmp_path / "4")
    finetune(replace(settings, out=str(out)))
    assert losses(out)[-1] == losses(half)[-1]
    with pytest.raises(UsageError, match=r"recipe\.frozen: 'bfloat16' -> 'float32'"):
        finetune(replace(settings, out=str(out), recipe=RECIPE))


def test_its_files_are_float32_of_the_rounded_kernels(half, settings, tmp_path, capsys):
    written = load_file(half / "model.timm.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {np.dtype(np.float32)}
    base = load_file(settings.model.checkpoint)
    up = "blocks.0.mlp.fc1.weight"
    assert np.array_equal(written[up], base[up].astype(jnp.bfloat16).astype(np.float32))
    # keys are beside queries and values, to which the adapters were added
    joined = "blocks.0.attn.qkv.weight"
    moved = np.abs(written[joined] - base[joined].astype(jnp.bfloat16).astype(np.float32))
    q, k, v = np.split(moved, 3)
    assert min(q.max(), v.max()) > 1e-4 > k.max() == 0

    assert main(["eval", str(half)]) == 0
    assert "accuracy" in capsys.readouterr().out
    model = fmjax.restore(half)
    assert model.blocks.attn.q.kernel.dtype == jnp.float32  # with what was added
    assert model.blocks.mlp.up.kernel.dtype == jnp.bfloat16


def test_its_adapters_go_onto_the_weights_as_they_are_published(half, whole, settings, tmp_path):
    for run in (half, whole):
        file = tmp_path / f"{run.name}.safetensors"
        assert main(["export", str(run), str(file), "--adapters"]) == 0
        model = fmjax.load(NAME, checkpoint=settings.model.checkpoint, adapters=file)
        assert {leaf.dtype for leaf in flat(model).values()} == {jnp.dtype(jnp.float32)}
    one, other = (load_file(tmp_path / f"{run.name}.safetensors") for run in (half, whole))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_mean_of_such_runs_is_float32(half, whole, tmp_path):
    average([str(half), str(whole)], AverageConfig(out=str(tmp_path / "soup")))
    [step] = (tmp_path / "soup" / "checkpoints").iterdir()
    mean = flat(as_saved(step / "params"))[KERNEL]
    assert mean.dtype == np.float32
    ours, theirs = (saved(run)[KERNEL].astype(np.float32) for run in (half, whole))
    np.testing.assert_allclose(mean, (ours + theirs) / 2, rtol=1e-6)


def test_half_the_state_is_what_a_dry_run_says(settings, capsys):
    said = {}
    for recipe in (RECIPE, HALF):
        dry_run(replace(settings, recipe=recipe, model=replace(settings.model, init="random")))
        said[recipe.frozen] = next(
            line for line in capsys.readouterr().out.splitlines() if line.startswith("memory")
        )
    assert said["bfloat16"] != said["float32"]


def test_where_every_kernel_is_trained_it_is_refused(settings, tmp_path):
    every = replace(HALF, lora_rank=0)
    with pytest.raises(UsageError, match="no kernel is left alone in all blocks"):
        finetune(replace(settings, recipe=every, out=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_a_head_alone_leaves_all_kernels_alone(settings, tmp_path):
    head = Recipe(lr=1e-2, train="head", frozen="bfloat16")
    finetune(replace(settings, recipe=head, out=str(tmp_path / "run")))
    assert saved(tmp_path / "run")[KERNEL].dtype == jnp.bfloat16


def test_weights_are_read_in_the_dtypes_that_are_asked_for(settings):
    path = "blocks.attn.out.kernel"
    model = fmjax.load(
        NAME, checkpoint=settings.model.checkpoint, param_dtypes={path: jnp.bfloat16}
    )
    kinds = {name: leaf.dtype for name, leaf in flat(model).items()}
    assert kinds.pop(path) == jnp.bfloat16
    assert set(kinds.values()) == {jnp.dtype(jnp.float32)}
