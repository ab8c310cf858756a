"""What is trained, and how fast."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.config.recipe import OptimConfig
from fmjax.engine.optim import frozen, optimiser, schedule, warmup_steps
from fmjax.errors import UsageError
from fmjax.models.build import param_shapes
from fmjax.trees import flat, nested
from tests.support.checkpoints import small

SHAPES = param_shapes(small("dinov2_vits14", depth=4))


def test_leading_blocks_freeze_as_a_stack_of_their_own():
    freeze = frozen(SHAPES, (r"blocks\.[01]\..*", "patch_embed.*"), 4)
    assert freeze.blocks == 2
    assert "frozen_blocks.attn.q.kernel" in freeze.paths
    assert "blocks.attn.q.kernel" not in freeze.paths
    assert "patch_embed.kernel" in freeze.paths


def test_a_parameter_may_freeze_in_every_block():
    freeze = frozen(SHAPES, (r"blocks\.\d+\.norm1\..*",), 4)
    assert freeze.blocks == 0
    assert freeze.paths == {"blocks.norm1.scale", "blocks.norm1.bias"}


def test_all_blocks_freeze_without_a_split():
    freeze = frozen(SHAPES, (r"blocks\..*",), 4)
    assert freeze.blocks == 0
    assert {path for path in SHAPES if path.startswith("blocks.")} == freeze.paths


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ((r"blocks\.[12]\..*",), r"in blocks \[1, 2\] only"),
        ((r"blocks\.0\.attn\..*",), r"in blocks \[0\] only"),
        ((r".*",), "nothing to train"),
        ((r"layers\.0\..*",), "matches no parameter"),
    ],
)
def test_other_freezes_are_refused(patterns, message):
    with pytest.raises(UsageError, match=message):
        frozen(SHAPES, patterns, 4)


def test_schedule_warms_up_and_ends_low():
    rate = schedule(OptimConfig(lr=1.0, warmup_steps=10, final_lr=0.1), 100)
    assert [float(rate(s)) for s in (0, 4, 9, 100)] == pytest.approx([0.1, 0.5, 1, 0.1])
    assert np.all(np.diff([float(rate(s)) for s in range(9, 101)]) < 0)


@pytest.mark.parametrize("warmup", [0, 1, 2, 20])
def test_every_step_of_a_run_has_a_rate(warmup):
    rates = [float(schedule(OptimConfig(lr=1.0, warmup_steps=warmup), 25)(count)) for count in range(25)]
    assert min(rates) > 0
    assert max(rates) == rates[max(warmup - 1, 0)] == pytest.approx(1)


@pytest.mark.parametrize(("steps", "expected"), [(1, 0), (2, 1), (10, 5), (20, 10), (21, 20), (200, 20)])
def test_a_warm_up_that_does_not_fit_is_cut_to_half_of_the_run(steps, expected):
    config = OptimConfig(lr=1.0, warmup_steps=20)
    assert warmup_steps(config, steps) == expected
    rates = [float(schedule(config, steps)(count)) for count in range(steps)]
    assert rates[max(expected - 1, 0)] == pytest.approx(1)
    assert min(rates) > 0


def test_layer_decay_and_weight_decay_follow_the_tables():
    config = OptimConfig(lr=1.0, warmup_steps=0, weight_decay=0.5, layer_decay=0.5, clip_norm=0.0, final_lr=1.0)
    ones = nested({path: jnp.ones(shape) for path, shape in SHAPES.items()})
    zeros = nested({path: jnp.zeros(shape) for path, shape in SHAPES.items()})
    tx = optimiser(config, 10, SHAPES, 4)
    updates = flat(tx.update(zeros, tx.init(ones), ones)[0])
    kernel = np.asarray(updates["blocks.attn.q.kernel"])[:, 0, 0]
    assert kernel == pytest.approx([-0.5 * 0.5 ** (4 - i) for i in range(4)])
    assert float(updates["patch_embed.kernel"][0, 0]) == pytest.approx(-0.5 * 0.5**5)
    still = ("blocks.norm1.scale", "blocks.attn.q.bias", "cls_token", "pos_embed", "norm.bias")
    assert not any(np.asarray(updates[path]).any() for path in still)


def test_the_classifier_has_a_rate_of_its_own():
    shapes = {"classifier.kernel": (8, 3), "norm.scale": (8,), "blocks.mlp.up.kernel": (4, 8, 8)}
    config = OptimConfig(lr=1.0, warmup_steps=0, weight_decay=0.5, clip_norm=0.0, final_lr=1.0, classifier_lr=10.0)
    tx, ones = optimiser(config, 10, shapes, 4), nested({path: jnp.ones(shape) for path, shape in shapes.items()})
    zeros = nested({path: jnp.zeros(shape) for path, shape in shapes.items()})
    updates = flat(tx.update(zeros, tx.init(ones), ones)[0])
    assert float(updates["classifier.kernel"][0, 0]) == pytest.approx(-5)
    assert float(updates["blocks.mlp.up.kernel"][3, 0, 0]) == pytest.approx(-0.5)


def test_layer_decay_counts_blocks_from_the_start_when_the_first_are_frozen():
    freeze = frozen(SHAPES, (r"blocks\.[01]\..*",), 4)
    trained = {path: (2, *shape[1:]) if path.startswith("blocks.") else shape for path, shape in SHAPES.items()}
    config = OptimConfig(lr=1.0, warmup_steps=0, weight_decay=1.0, layer_decay=0.5, clip_norm=0.0, final_lr=1.0)
    tx = optimiser(config, 10, trained, 4, freeze.blocks)
    ones = nested({path: jnp.ones(shape) for path, shape in trained.items()})
    zeros = nested({path: jnp.zeros(shape) for path, shape in trained.items()})
    kernel = np.asarray(flat(tx.update(zeros, tx.init(ones), ones)[0])["blocks.mlp.up.kernel"])[:, 0, 0]
    assert kernel == pytest.approx([-(0.5**2), -(0.5**1)])
