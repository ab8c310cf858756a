"""What is trained, and how fast."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.config.recipe import Recipe
from fmjax.engine.freeze import frozen
from fmjax.engine.optim import optimiser, schedule, warmup_steps
from fmjax.errors import UsageError
from fmjax.models.build import param_shapes
from fmjax.trees import flat, nested
from tests.support.checkpoints import small

TOWER = param_shapes(small("dinov2_vits14", depth=4))
SHAPES = {
    **{f"backbone.{path}": shape for path, shape in TOWER.items()},
    "head.kernel": (96, 3),
    "head.bias": (3,),
}
DEPTHS = {"backbone": 4}


def still(*patterns: str) -> tuple[tuple[str, float], ...]:
    """A table of rates that trains none of these."""
    return tuple((pattern, 0.0) for pattern in patterns)


def test_leading_blocks_freeze_as_a_stack_of_their_own():
    freeze = frozen(SHAPES, still(r"backbone\.blocks\.[01]\..*", r"backbone\.patch_embed.*"))
    assert freeze.blocks == {"backbone": 2}
    assert "backbone.frozen_blocks.attn.q.kernel" in freeze.paths
    assert "backbone.blocks.attn.q.kernel" not in freeze.paths
    assert "backbone.patch_embed.kernel" in freeze.paths


def test_a_parameter_may_freeze_in_every_block():
    freeze = frozen(SHAPES, still(r"backbone\.blocks\.\d+\.norm1\..*"))
    assert freeze.blocks == {}
    assert freeze.paths == {"backbone.blocks.norm1.scale", "backbone.blocks.norm1.bias"}


def test_all_blocks_freeze_without_a_split():
    freeze = frozen(SHAPES, still(r"backbone\.blocks\..*"))
    assert freeze.blocks == {}
    assert {path for path in SHAPES if path.startswith("backbone.blocks.")} == freeze.paths


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ((r"backbone\.blocks\.[12]\..*",), r"in blocks \[1, 2\] only"),
        ((r"backbone\.blocks\.0\.attn\..*",), r"in blocks \[0\] only"),
        ((r".*",), "nothing to train"),
        ((r"layers\.0\..*",), "matches no parameter"),
    ],
)
def test_other_freezes_are_refused(patterns, message):
    with pytest.raises(UsageError, match=message):
        frozen(SHAPES, still(*patterns))


def test_schedule_warms_up_and_ends_low():
    rate = schedule(Recipe(lr=1.0, warmup_steps=10, final_lr=0.1), 100)
    assert [float(rate(s)) for s in (0, 4, 9, 100)] == pytest.approx([0.1, 0.5, 1, 0.1])
    assert np.all(np.diff([float(rate(s)) for s in range(9, 101)]) < 0)


@pytest.mark.parametrize("warmup", [0, 1, 2, 20])
def test_every_step_of_a_run_has_a_rate(warmup):
    rates = [float(schedule(Recipe(lr=1.0, warmup_steps=warmup), 25)(count)) for count in range(25)]
    assert min(rates) > 0
    assert max(rates) == rates[max(warmup - 1, 0)] == pytest.approx(1)


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, 0), (2, 1), (10, 5), (20, 10), (21, 20), (200, 20)]
)
def test_a_warm_up_that_does_not_fit_is_cut_to_half_of_the_run(steps, expected):
    config = Recipe(lr=1.0, warmup_steps=20)
    assert warmup_steps(config, steps) == expected
    rates = [float(schedule(config, steps)(count)) for count in range(steps)]
    assert rates[max(expected - 1, 0)] == pytest.approx(1)
    assert min(rates) > 0


def test_layer_decay_and_weight_decay_follow_the_tables():
    config = Recipe(
        lr=1.0, warmup_steps=0, weight_decay=0.5, layer_decay=0.5, clip_norm=0.0, final_lr=1.0
    )
    ones = nested({path: jnp.ones(shape) for path, shape in SHAPES.items()})
    zeros = nested({path: jnp.zeros(shape) for path, shape in SHAPES.items()})
    tx = optimiser(config, 10, SHAPES, DEPTHS)
    updates = flat(tx.update(zeros, tx.init(ones), ones)[0])
    kernel = np.asarray(updates["backbone.blocks.attn.q.kernel"])[:, 0, 0]
    assert kernel == pytest.approx([-0.5 * 0.5 ** (4 - i) for i in range(4)])
    assert float(updates["backbone.patch_embed.kernel"][0, 0]) == pytest.approx(-0.5 * 0.5**5)
    undecayed = ("blocks.norm1.scale", "blocks.attn.q.bias", "cls_token", "pos_embed", "norm.bias")
    assert not any(np.asarray(updates[f"backbone.{path}"]).any() for path in undecayed)


def test_a_head_has_a_rate_of_its_own():
    shapes = {
        "head.kernel": (8, 3),
        "backbone.norm.scale": (8,),
        "backbone.blocks.mlp.up.kernel": (4, 8, 8),
    }
    config = Recipe(
        lr=1.0,
        warmup_steps=0,
        weight_decay=0.5,
        clip_norm=0.0,
        final_lr=1.0,
        rates=((r"head\..*", 10.0),),
    )
    tx, ones = (
        optimiser(config, 10, shapes, DEPTHS),
        nested({path: jnp.ones(shape) for path, shape in shapes.items()}),
    )
    zeros = nested({path: jnp.zeros(shape) for path, shape in shapes.items()})
    updates = flat(tx.update(zeros, tx.init(ones), ones)[0])
    assert float(updates["head.kernel"][0, 0]) == pytest.approx(-5)
    assert float(updates["backbone.blocks.mlp.up.kernel"][3, 0, 0]) == pytest.approx(-0.5)


def test_layer_decay_counts_blocks_from_the_start_when_the_first_are_frozen():
    freeze = frozen(SHAPES, still(r"backbone\.blocks\.[01]\..*"))
    trained = {
        path: (2, *shape[1:]) if path.startswith("backbone.blocks.") else shape
        for path, shape in SHAPES.items()
    }
    config = Recipe(
        lr=1.0, warmup_steps=0, weight_decay=1.0, layer_decay=0.5, clip_norm=0.0, final_lr=1.0
    )
    tx = optimiser(config, 10, trained, DEPTHS, freeze.blocks)
    ones = nested({path: jnp.ones(shape) for path, shape in trained.items()})
    zeros = nested({path: jnp.zeros(shape) for path, shape in trained.items()})
    kernel = np.asarray(
        flat(tx.update(zeros, tx.init(ones), ones)[0])["backbone.blocks.mlp.up.kernel"]
    )[:, 0, 0]
    assert kernel == pytest.approx([-(0.5**2), -(0.5**1)])
