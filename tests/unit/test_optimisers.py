"""The optimisers of a recipe beside optax's own, and what their flags change."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers, muon

from fmjax.config.recipe import Recipe
from fmjax.engine.optim import optimiser, schedule
from fmjax.trees import flat, nested

LR = 1e-2
# no clipping, no schedule, no decay but where a test says so
PLAIN = Recipe(
    lr=LR,
    schedule="constant",
    warmup_steps=0,
    clip_norm=0.0,
    weight_decay=0.0,
    decay=((".*", 1.0),),
)
# large enough for Adafactor to keep a row and a column
SHAPES = {"head.kernel": (130, 140), "head.bias": (140,), "backbone.cls_token": (9,)}
STACKED = {"backbone.blocks.mlp.up.kernel": (3, 130, 128), "backbone.blocks.mlp.up.bias": (3, 128)}
OPTIMISERS = ("adamw", "sgd", "lion", "adafactor", "muon")


def drawn(shapes, seed):
    """A tree of random numbers."""
    rng = np.random.default_rng(seed)
    return nested(
        {path: jnp.asarray(rng.normal(size=shape), jnp.float32) for path, shape in shapes.items()}
    )


def stepped(tx, shapes, steps=2):
    """The updates of the last of some steps with random gradients, and the state after it."""
    params = drawn(shapes, 0)
    state = tx.init(params)
    updates = None
    for step in range(steps):
        updates, state = tx.update(drawn(shapes, step + 1), state, params)
        params = optax.apply_updates(params, updates)
    return flat(updates), state


def ours(recipe, shapes, **more):
    return optimiser(replace(recipe, **more), 10, shapes, {"backbone": 3})


@pytest.mark.parametrize(
    ("recipe", "stock"),
    [
        ({"weight_decay": 0.1}, optax.adamw(LR, weight_decay=0.1)),
        (
            {"b1": 0.8, "b2": 0.95, "eps": 1e-3},
            optax.adamw(LR, 0.8, 0.95, eps=1e-3, weight_decay=0.0),
        ),
        ({"nesterov": True}, optax.nadamw(LR, weight_decay=0.0)),
        ({"optimiser": "sgd"}, optax.sgd(LR, momentum=0.9)),
        (
            {"optimiser": "sgd", "momentum": 0.5, "nesterov": True},
            optax.sgd(LR, 0.5, nesterov=True),
        ),
        ({"optimiser": "sgd", "momentum": 0.0}, optax.sgd(LR)),
        ({"optimiser": "lion", "weight_decay": 0.2}, optax.lion(LR, weight_decay=0.2)),
        ({"optimiser": "adafactor"}, optax.adafactor(LR, multiply_by_parameter_scale=False)),
        (
            {"optimiser": "adafactor", "momentum": 0.9},
            optax.adafactor(LR, multiply_by_parameter_scale=False, momentum=0.9),
        ),
        ({"moments": "bfloat16"}, optax.adamw(LR, weight_decay=0.0, mu_dtype=jnp.bfloat16)),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_an_optimiser_without_tables_is_optax_s_own(recipe, stock):
    found, expected = stepped(ours(PLAIN, SHAPES, **recipe), SHAPES)[0], stepped(stock, SHAPES)[0]
    for path in SHAPES:
        # optax multiplies by Adafactor's rate before its momentum: of updates of 1e-2 the last digit
        tolerance = 1e-8 if recipe.get("optimiser") == "adafactor" else 0
        np.testing.assert_allclose(found[path], expected[path], rtol=0, atol=tolerance)


def test_muon_is_optax_s_own_for_each_matrix_of_a_stack_and_adamw_for_the_rest():
    shapes = SHAPES | STACKED
    found = stepped(ours(PLAIN, shapes, optimiser="muon"), shapes)[0]
    path = "backbone.blocks.mlp.up.kernel"
    stock = muon(
        LR,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=MuonDimensionNumbers(1, 2),
    )
    alone = stepped(stock, {path: shapes[path]})[0]
    rest = stepped(optax.adamw(LR, weight_decay=0.0), shapes)[0]
    np.testing.assert_array_equal(found["head.kernel"], rest["head.kernel"])
    np.testing.assert_array_equal(
        found["backbone.blocks.mlp.up.bias"], rest["backbone.blocks.mlp.up.bias"]
    )
    only = stepped(ours(PLAIN, {path: shapes[path]}, optimiser="muon"), {path: shapes[path]})[0]
    np.testing.assert_allclose(only[path], alone[path], rtol=1e-5, atol=1e-8)
    # nearly orthogonal, so that most singular values of a block's update are alike; those of a gradient are not
    values = np.linalg.svd(np.asarray(found[path]), compute_uv=False)
    assert (np.quantile(values, 0.9, axis=-1) < 2 * np.quantile(values, 0.1, axis=-1)).all()


@pytest.mark.parametrize("name", ["adafactor", "muon", "lion"])
def test_the_blocks_of_a_stack_do_not_know_of_each_other(name):
    tx = ours(PLAIN, STACKED, optimiser=name)
    grads = drawn(STACKED, 1)
    # one block's gradient many times the others'
    louder = jax.tree.map(lambda g: g.at[0].multiply(1e3), grads)
    params = drawn(STACKED, 0)
    both = [flat(tx.update(g, tx.init(params), params)[0]) for g in (grads, louder)]
    for path in STACKED:
        np.testing.assert_array_equal(both[0][path][1:], both[1][path][1:])


@pytest.mark.parametrize("name", OPTIMISERS)
def test_decay_is_decoupled_and_every_optimiser_has_the_tables(name):
    recipe = replace(
        PLAIN,
        optimiser=name,
        weight_decay=0.5,
        layer_decay=0.5,
        decay=((r".*\.kernel", 1.0),),
        rates=((r"head\..*", 10.0),),
    )
    shapes = SHAPES | STACKED
    tx = optimiser(recipe, 10, shapes, {"backbone": 3})
    ones = nested({path: jnp.ones(shape) for path, shape in shapes.items()})
    zeros = jax.tree.map(jnp.zeros_like, ones)
    # without a gradient all that is left is decay, at each parameter's own rate
    updates = flat(tx.update(zeros, tx.init(ones), ones)[0])
    assert float(updates["head.kernel"][0, 0]) == pytest.approx(-10 * LR * 0.5)
    blocks = np.asarray(updates["backbone.blocks.mlp.up.kernel"])[:, 0, 0]
    assert blocks == pytest.approx([-LR * 0.5 * 0.5 ** (3 - i) for i in range(3)])
    assert not np.asarray(updates["head.bias"]).any()


@pytest.mark.parametrize(
    ("recipe", "kept"),
    [
        ({}, {"mu": "bfloat16", "nu": "float32"}),
        ({"optimiser": "sgd"}, {"trace": "bfloat16"}),
        ({"optimiser": "lion"}, {"mu": "bfloat16"}),
        ({"optimiser": "adafactor", "momentum": 0.5}, {"ema": "bfloat16"}),
    ],
)
def test_the_first_moment_is_kept_as_asked(recipe, kept):
    _, state = stepped(ours(PLAIN, SHAPES, moments="bfloat16", **recipe), SHAPES)
    for field, dtype in kept.items():
        [tree] = [value for _, value in optax.tree.get_all_with_path(state, field)]
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(tree)} == {dtype}


def test_adafactor_keeps_a_row_and_a_column_of_a_matrix():
    shapes = {"backbone.blocks.mlp.up.kernel": (3, 130, 128)}
    state = ours(PLAIN, shapes, optimiser="adafactor").init(drawn(shapes, 0))
    largest = max(leaf.size for leaf in jax.tree.leaves(state))
    assert largest == 3 * 130


def test_clipping_is_of_all_gradients_or_of_each_part():
    params = {"backbone": {"scale": jnp.zeros(4)}, "head": {"kernel": jnp.zeros(4)}}
    grads = {"backbone": {"scale": jnp.full(4, 0.01)}, "head": {"kernel": jnp.full(4, 50.0)}}
    shapes = {path: leaf.shape for path, leaf in flat(params).items()}
    plain = replace(PLAIN, optimiser="sgd", momentum=0.0, clip_norm=1.0, lr=1.0)
    found = {}
    for by in ("all", "part"):
        tx = ours(plain, shapes, clip_by=by)
        found[by] = flat(tx.update(grads, tx.init(params), params)[0])
    norms = {
        by: {path: float(jnp.linalg.norm(u)) for path, u in f.items()} for by, f in found.items()
    }
    # the head alone is over the norm, and takes the backbone down with it or not
    assert norms["part"] == pytest.approx({"backbone.scale": 0.02, "head.kernel": 1.0})
    assert norms["all"] == pytest.approx({"backbone.scale": 0.0002, "head.kernel": 1.0}, rel=1e-3)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (
            {"schedule": "linear", "final_lr": 0.1},
            {0: 0.25, 3: 1.0, 55: 1 - 0.9 * 52 / 97, 100: 0.1},
        ),
        ({"schedule": "constant"}, {0: 0.25, 3: 1.0, 50: 1.0, 99: 1.0}),
        ({"schedule": "step"}, {0: 0.25, 3: 1.0, 59: 1.0, 60: 0.1, 79: 0.1, 80: 0.01, 99: 0.01}),
        (
            {"schedule": "step", "step_at": (0.5,), "step_factor": 0.5},
            {49: 1.0, 50: 0.5, 99: 0.5},
        ),
        ({"schedule": "step", "step_at": (0.5, 0.501)}, {49: 1.0, 50: 0.01}),
    ],
)
def test_a_schedule_goes_down_as_asked_after_the_same_warm_up(recipe, expected):
    rate = schedule(Recipe(lr=1.0, warmup_steps=4, **recipe), 100)
    assert {count: float(rate(count)) for count in expected} == pytest.approx(expected)


def test_the_default_state_is_what_stored_runs_have():
    state = optimiser(Recipe(), 10, SHAPES, {}).init(drawn(SHAPES, 0))
    kinds = [type(part).__name__ for part in state]
    assert kinds == [
        "EmptyState",
        "ScaleByAdamState",
        "EmptyState",
        "EmptyState",
        "ScaleByScheduleState",
    ]
    moments = state[1]
    leaves = jax.tree.leaves((moments.mu, moments.nu))
    assert {str(leaf.dtype) for leaf in leaves} == {"float32"}


@pytest.mark.parametrize(
    ("name", "factor"), [("sgd", 1 / 16), ("adamw", 1 / 4), ("lion", 1 / 4), ("muon", 1 / 4)]
)
def test_a_rate_follows_the_size_of_the_batch(name, factor):
    # gradients of SGD are taken as they are, the others divide by their size
    recipe = Recipe(optimiser=name, lr=0.1, lr_base_size=256)
    assert recipe.of_batch(16).lr == pytest.approx(0.1 * factor)
    assert recipe.of_batch(256).lr == 0.1
    # once it is of a batch, it is of that batch
    assert recipe.of_batch(16).of_batch(512) == recipe.of_batch(16)
    assert Recipe(optimiser=name, lr=0.1).of_batch(16).lr == 0.1
