"""What a recipe trains, in words: its short forms, the groups that come of it, and what has no decay."""

from __future__ import annotations

import math
import re

import pytest

import fmjax
from fmjax.config.recipe import Recipe
from fmjax.engine.freeze import frozen
from fmjax.engine.groups import groups, lines, resolved, said
from fmjax.engine.optim import decay_factor
from fmjax.errors import UsageError
from fmjax.models.build import param_shapes
from fmjax.recipes import RECIPES
from tests.support.checkpoints import small

TOWER = param_shapes(small("dinov2_vits14_reg", depth=4))
SHAPES = {
    **{f"backbone.{path}": shape for path, shape in TOWER.items()},
    "head.kernel": (96, 3),
    "head.bias": (3,),
}
TOTAL = sum(map(math.prod, SHAPES.values()))
# what is no matrix: norms and LayerScale, biases, tokens, and tables of positions
UNDECAYED = {"scale", "bias", "cls_token", "summary_tokens", "registers", "pos_embed", "probe"}


def found(recipe: Recipe):
    """The groups of a recipe, and what of it is not trained."""
    table = resolved(recipe, SHAPES)
    freeze = frozen(SHAPES, table.rates, said=said(recipe))
    return groups(SHAPES, freeze, table), freeze


def trained(recipe: Recipe) -> set[str]:
    """The paths that a recipe trains, in one stack a tower."""
    return SHAPES.keys() - found(recipe)[1].paths


def test_the_last_blocks_are_trained_with_what_follows_them():
    recipe = Recipe(last_blocks=1)
    assert found(recipe)[1].blocks == {"backbone": 3}
    still = SHAPES.keys() - trained(recipe)
    assert still == {
        f"backbone.{path}"
        for path in (
            "cls_token",
            "pos_embed",
            "registers",
            "patch_embed.kernel",
            "patch_embed.bias",
        )
    }
    # all of its blocks: the embedding alone is left out
    assert found(Recipe(last_blocks=4))[1].blocks == {}
    assert SHAPES.keys() - trained(Recipe(last_blocks=4)) == still


def test_the_head_alone_is_trained():
    assert trained(Recipe(train="head")) == {"head.kernel", "head.bias"}


def test_norms_and_biases_are_trained_with_the_whole_head():
    paths = trained(Recipe(train="norms_and_biases"))
    assert {"head.kernel", "backbone.blocks.norm1.scale", "backbone.norm.bias"} <= paths
    assert {"backbone.blocks.attn.q.bias", "backbone.patch_embed.bias"} <= paths
    # a factor of LayerScale is no norm's
    others = {path for path in paths if not path.startswith("head.")}
    assert not [path for path in others if re.search(r"kernel|token|embed$|registers|ls\d", path)]
    both = trained(Recipe(train="norms_and_biases", last_blocks=2))
    assert "backbone.patch_embed.bias" in paths - both
    assert "backbone.blocks.attn.q.bias" in both


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(last_blocks=5), r"--recipe.last-blocks is 5; it must be at most 4"),
        (
            Recipe(last_blocks=1, rates=((r"backbone\.blocks\.0\..*", 2.0),)),
            r"is of parameters that --recipe.last-blocks 1 does not train",
        ),
        (
            Recipe(train="head", rates=((r"backbone\..*", 0.1),)),
            r"is of parameters that --recipe.train head does not train",
        ),
        (
            Recipe(train="head", rates=((r"head\..*", 0.0),)),
            r"--recipe.train head --recipe.rates head\\\.\.\* 0 leaves nothing to train",
        ),
        (Recipe(last_blocks=1, rates=((r"layers\..*", 2.0),)), "matches no parameter"),
    ],
)
def test_what_contradicts_itself_is_refused(recipe, message):
    with pytest.raises(UsageError, match=message):
        found(recipe)


def test_a_rate_of_what_is_trained_holds_beside_a_short_form():
    rows, _ = found(Recipe(lr=1e-3, last_blocks=2, rates=((r"head\..*", 20.0), (r".*\.bias", 3.0))))
    rates = {(group.part, group.where): group.lr for group in rows if group.trained}
    assert rates["head", ""] == (0.02, 0.02)
    tops = {group.lr[1] for group in rows if group.where == "blocks 2-3"}
    assert sorted(tops) == pytest.approx([1e-3, 3e-3])


def test_groups_are_all_parameters_with_their_rates_and_decays():
    rows, _ = found(Recipe(lr=1.0, weight_decay=0.1, layer_decay=0.5))
    assert sum(group.parameters for group in rows) == TOTAL
    assert [(group.where, group.decay) for group in rows if group.part == "backbone"] == [
        ("embedding", 0.1),
        ("embedding", 0.0),
        ("blocks 0-3", 0.1),
        ("blocks 0-3", 0.0),
        ("output", 0.0),
    ]
    assert [group.lr for group in rows] == [
        (0.5**5, 0.5**5),
        (0.5**5, 0.5**5),
        (0.5**4, 0.5),
        (0.5**4, 0.5),
        (1.0, 1.0),
        (1.0, 1.0),
        (1.0, 1.0),
    ]
    assert all(group.trained for group in rows)


def test_what_the_loss_does_not_use_and_what_is_frozen_is_said_not_to_be_trained():
    table = resolved(Recipe(last_blocks=1), SHAPES)
    rows = groups(SHAPES, frozen(SHAPES, table.rates, frozenset({"backbone.norm.bias"})), table)
    still = {(group.where, group.parameters) for group in rows if not group.trained}
    each = sum(math.prod(shape) for path, shape in SHAPES.items() if ".blocks." in path) // 4
    assert ("blocks 0-2", 3 * each) in still
    assert ("output", SHAPES["backbone.norm.bias"][0]) in still
    assert sum(group.parameters for group in rows) == TOTAL


@pytest.mark.parametrize("name", RECIPES)
def test_a_named_recipe_fits_a_tower_and_its_table_80_columns(name):
    shapes = {
        **{f"backbone.{path}": shape for path, shape in param_shapes(BIG).items()},
        "head.kernel": (1024, 1000),
    }
    table = resolved(RECIPES[name], shapes)
    rows = groups(shapes, frozen(shapes, table.rates), table)
    assert sum(group.parameters for group in rows) == sum(map(math.prod, shapes.values()))
    shown = lines(rows)
    assert len(shown) == len(rows) + 1
    assert max(map(len, shown)) <= 80


BIG = fmjax.get_spec("ViT-L-14")


def test_by_default_matrices_decay_and_nothing_else_does():
    paths = {"head.kernel": 2, "head.bias": 1}
    for name in fmjax.list_models():
        shapes = param_shapes(fmjax.get_spec(name))
        paths |= {f"backbone.{path}": len(shape) for path, shape in shapes.items()}
    decayed = {path for path in paths if decay_factor(path, Recipe())}
    # of one block: the first axis of a stack is its depth
    flat = {path for path in decayed if paths[path] - (".blocks." in path) != 2}
    assert flat == set()
    assert {path.rpartition(".")[2] for path in decayed} == {"kernel"}
    # a new kind of token or table is to be thought of
    assert {path.rpartition(".")[2] for path in paths.keys() - decayed} == UNDECAYED
