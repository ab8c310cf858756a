"""A Recipe -> an optax chain: learning rates and decay are tables over paths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

from fmjax.config.recipe import Recipe
from fmjax.engine.freeze import STACK, Shapes, names, rate
from fmjax.trees import Params, first_match, nested

# What comes before the first block of a tower
EMBEDDING = re.compile(
    r"patch_(embed|norm)\..*|cls_token|summary_tokens|registers|pos_embed|norm_pre\..*"
)


def warmup_steps(recipe: Recipe, steps: int) -> int:
    """The steps of warm-up in a run of `steps`: as asked, or half of the run where that is not longer than them."""
    return recipe.warmup_steps if recipe.warmup_steps < steps else steps // 2


def schedule(recipe: Recipe, steps: int) -> optax.Schedule:
    """Linear warm-up, whose step t of w has t/w of the rate, then half a cosine down to final_lr * lr.

    A schedule counts from 0, so that the first step, count 0, has 1/w of the rate and count w - 1 all of it: with the
    more usual count/w the first step, and its batch, would teach nothing.
    """
    warmup = max(warmup_steps(recipe, steps), 1)
    return optax.warmup_cosine_decay_schedule(
        recipe.lr / warmup,
        recipe.lr,
        warmup - 1,
        max(steps, 1),
        recipe.lr * recipe.final_lr,
    )


def optimiser(
    recipe: Recipe,
    steps: int,
    shapes: Shapes,
    depths: Mapping[str, int],
    blocks: Mapping[str, int] | None = None,
) -> optax.GradientTransformation:
    """AdamW (arXiv:1711.05101) with decay and learning rate by table.

    shapes: of the trained parameters. depths: the blocks of each tower. blocks: how many leading ones of them are not
    trained.
    """
    blocks = blocks or {}
    decays = (*recipe.decay, (r".*", 0.0))
    decay = _factors(shapes, blocks, lambda name: first_match(name, decays))
    lr = _factors(
        shapes, blocks, lambda name: rate(name, recipe.rates) * layer_factor(name, recipe, depths)
    )
    # clipped first, as after Adam's scaling the size of a gradient says nothing
    # decay joins the update after Adam's scaling, so that it is not scaled itself; then each parameter's own rate
    return optax.chain(
        optax.clip_by_global_norm(recipe.clip_norm) if recipe.clip_norm else optax.identity(),
        optax.scale_by_adam(recipe.b1, recipe.b2, recipe.eps),
        _add_decay(recipe.weight_decay, decay),
        _scale(lr),
        optax.scale_by_learning_rate(schedule(recipe, steps)),
    )


def layer_factor(name: str, recipe: Recipe, depths: Mapping[str, int]) -> float:
    """layer_decay ** (distance from the head), inside a tower: its embedding is layer 0, block i is i + 1, what follows
    is depth + 1, and a part without blocks is a head."""
    part, _, inner = name.partition(".")
    if part not in depths:
        return 1.0
    # the layers as BEiT's fine-tuning counts them (arXiv:2106.08254), and MAE's after it
    block = re.fullmatch(r"blocks\.(\d+)\..*", inner)
    if block:
        return recipe.layer_decay ** (depths[part] - int(block[1]))
    return recipe.layer_decay ** (depths[part] + 1) if EMBEDDING.fullmatch(inner) else 1.0


def _factors(shapes: Shapes, blocks: Mapping[str, int], factor: Any) -> Params:
    """One number for each parameter; for a stacked one, a column of numbers along its depth."""
    out: dict[str, Any] = {}
    for path, shape in shapes.items():
        # blocks of one stack may differ, so that they get a column, which broadcasts over the rest of their shape
        values = np.asarray([factor(name) for name in names(path, shape, blocks)], np.float32)
        out[path] = (
            values.reshape(-1, *[1] * (len(shape) - 1)) if STACK.fullmatch(path) else values[0]
        )
    return nested(out)


def _add_decay(weight_decay: float, factors: Params) -> optax.GradientTransformation:
    # of the parameter, and not through the gradient, whose size Adam would divide by
    def update(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u, f, p: u + weight_decay * f * p, updates, factors, params)

    return optax.stateless(update)


def _scale(factors: Params) -> optax.GradientTransformation:
    return optax.stateless(
        lambda updates, params: jax.tree.map(lambda u, f: u * f, updates, factors)
    )
