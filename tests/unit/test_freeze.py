"""What is not trained: what the loss does not depend on, and blocks in stacks of their own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fmjax.config.recipe import Recipe
from fmjax.engine.freeze import frozen, join_stacks, names, split_stacks, unused
from fmjax.engine.optim import layer_factor
from fmjax.models.build import abstract
from fmjax.models.heads import classifier_head, classifier_input
from fmjax.trees import bind, flat, nested
from tests.support.checkpoints import small

PARAMS = {
    "backbone": {
        "blocks": {"norm": {"scale": jnp.arange(12.0).reshape(4, 3)}},
        "cls_token": jnp.ones(3),
    },
    "head": {"kernel": jnp.ones((3, 2))},
}


def test_stacks_are_split_and_joined_without_loss():
    split = split_stacks(PARAMS, {"backbone": 1})
    assert split["backbone"]["frozen_blocks"]["norm"]["scale"].shape == (1, 3)
    assert split["backbone"]["blocks"]["norm"]["scale"].shape == (3, 3)
    jax.tree.map(np.testing.assert_array_equal, join_stacks(split), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, join_stacks(PARAMS), PARAMS)
    assert "frozen_blocks" not in PARAMS["backbone"]  # what was passed is as it was


def test_tables_know_a_block_by_its_number_wherever_its_stack_begins():
    assert names("backbone.blocks.norm.scale", (2, 3)) == [
        "backbone.blocks.0.norm.scale",
        "backbone.blocks.1.norm.scale",
    ]
    assert names("backbone.blocks.norm.scale", (1, 3), {"backbone": 3}) == [
        "backbone.blocks.3.norm.scale"
    ]
    assert names("backbone.frozen_blocks.norm.scale", (1, 3), {"backbone": 3}) == [
        "backbone.blocks.0.norm.scale"
    ]
    assert names("head.kernel", (3, 2)) == ["head.kernel"]


@pytest.mark.parametrize(
    ("name", "seen", "expected"),
    [
        # a classifier over the tokens before the projection; over the class token, where the model pools by attention
        ("ViT-B-16", "pool", {"backbone.proj.kernel"}),
        ("ViT-B-16-SigLIP", "pool", set()),
        ("ViT-B-16-SigLIP", "patches", "backbone.pool."),
        ("dinov2_vits14", "cls", set()),
    ],
)
def test_what_the_loss_does_not_depend_on_is_found(name, seen, expected):
    spec = small(name)
    backbone = abstract(spec)
    net = {
        "backbone": backbone,
        "head": jax.eval_shape(lambda: classifier_head(spec, 3, seen, rngs=nnx.Rngs(0))),
    }

    def loss(params, images):
        bound = bind(net, params)
        return bound["head"](classifier_input(bound["backbone"].unprojected(images), seen)).sum()

    height, width = spec.image_size
    found = unused(
        loss, nested(flat(net)), jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    )
    if isinstance(expected, str):
        assert found == {path for path in flat(net) if path.startswith(expected)}
    else:
        assert found == expected


def test_what_is_unused_is_not_trained():
    shapes = {path: leaf.shape for path, leaf in flat(PARAMS).items()}
    assert frozen(shapes, (), frozenset({"head.kernel"})).paths == {"head.kernel"}


def test_layer_decay_is_of_towers():
    recipe, depths = Recipe(layer_decay=0.5), {"backbone": 4}
    factors = {
        name: layer_factor(name, recipe, depths) for name in ("head.kernel", "backbone.norm.scale")
    }
    assert set(factors.values()) == {1.0}
    assert layer_factor("backbone.blocks.3.norm1.scale", recipe, depths) == 0.5
    assert layer_factor("backbone.patch_embed.kernel", recipe, depths) == 0.5**5
