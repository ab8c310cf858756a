"""A Recipe -> an optax chain: learning rates and decay are tables over paths."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from fmjax.config.recipe import Recipe
from fmjax.engine.freeze import STACK, Shapes, names, rate
from fmjax.trees import Params, first_match, flat, nested

# What comes before the first block of a tower
EMBEDDING = re.compile(
    r"patch_(embed|norm)\..*|cls_token|summary_tokens|registers|pos_embed|norm_pre\..*"
)
MATRIX = re.compile(r"\w+\.blocks\..*\.kernel")  # of the blocks that are trained


def warmup_steps(recipe: Recipe, steps: int) -> int:
    """The steps of warm-up in a run of `steps`: as asked, or half of the run where that is not longer than them."""
    return recipe.warmup_steps if recipe.warmup_steps < steps else steps // 2


def schedule(recipe: Recipe, steps: int) -> optax.Schedule:
    """Linear warm-up, whose step t of w has t/w of the rate, then the recipe's way down.

    A schedule counts from 0, so that the first step, count 0, has 1/w of the rate and count w - 1 all of it: with the
    more usual count/w the first step, and its batch, would teach nothing.
    """
    warmup = max(warmup_steps(recipe, steps), 1)
    grows = optax.linear_schedule(recipe.lr / warmup, recipe.lr, warmup - 1)
    return optax.join_schedules([grows, _after(recipe, warmup - 1, max(steps, 1))], [warmup - 1])


def _after(recipe: Recipe, start: int, steps: int) -> optax.Schedule:
    """The rate from the step `start` of a run on, which is its 0; half a cosine, a line, stairs, or no change."""
    lr, last, left = recipe.lr, recipe.lr * recipe.final_lr, steps - start
    if recipe.schedule == "cosine":
        return optax.cosine_decay_schedule(lr, left, last / lr)
    if recipe.schedule == "linear":
        return optax.linear_schedule(lr, last, left)
    # a constant rate is a stair without steps; in a short run two steps may fall on one count
    stairs: dict[int, float] = {}
    for share in recipe.step_at if recipe.schedule == "step" else ():
        at = round(share * steps) - start
        stairs[at] = stairs.get(at, 1.0) * recipe.step_factor
    return optax.piecewise_constant_schedule(lr, stairs)


def optimiser(
    recipe: Recipe,
    steps: int,
    shapes: Shapes,
    depths: Mapping[str, int],
    blocks: Mapping[str, int] | None = None,
) -> optax.GradientTransformation:
    """The recipe's optimiser with decoupled decay (arXiv:1711.05101), and decay and learning rate by table.

    shapes: of the trained parameters. depths: the blocks of each tower. blocks: how many leading ones of them are not
    trained.
    """
    blocks = blocks or {}
    decay = _factors(shapes, blocks, lambda name: decay_factor(name, recipe))
    lr = _factors(
        shapes, blocks, lambda name: rate(name, recipe.rates) * layer_factor(name, recipe, depths)
    )
    # clipped first, as after the optimiser's scaling the size of a gradient says nothing
    # decay joins the update after that scaling, so that it is not scaled itself; then each parameter's own rate
    return optax.chain(
        _clip(recipe),
        SCALINGS[recipe.optimiser](recipe, shapes),
        _add_decay(recipe.weight_decay, decay),
        _scale(lr),
        optax.scale_by_learning_rate(schedule(recipe, steps)),
    )


def _clip(recipe: Recipe) -> optax.GradientTransformation:
    """To the largest norm of all gradients together, or of each part by itself: a new head's are many times a tower's,
    which they would scale down with themselves."""
    if not recipe.clip_norm:
        return optax.identity()
    whole = optax.clip_by_global_norm(recipe.clip_norm)
    if recipe.clip_by == "all":
        return whole

    def update(updates: Any, params: Any) -> Any:
        return {part: whole.update(inner, optax.EmptyState())[0] for part, inner in updates.items()}

    return optax.stateless(update)


def _kept_as(recipe: Recipe) -> Any:
    """The dtype of the first moment; None is the parameter's own."""
    return None if recipe.moments == "float32" else jnp.dtype(recipe.moments)


def _adamw(recipe: Recipe, shapes: Shapes) -> optax.GradientTransformation:
    kept, ahead = _kept_as(recipe), recipe.nesterov
    return optax.scale_by_adam(recipe.b1, recipe.b2, recipe.eps, mu_dtype=kept, nesterov=ahead)


def _sgd(recipe: Recipe, shapes: Shapes) -> optax.GradientTransformation:
    if not recipe.keeps_moment:
        return optax.identity()
    return optax.trace(recipe.old_share, recipe.nesterov, _kept_as(recipe))


def _lion(recipe: Recipe, shapes: Shapes) -> optax.GradientTransformation:
    return optax.scale_by_lion(recipe.b1, recipe.old_share, _kept_as(recipe))


def _adafactor(recipe: Recipe, shapes: Shapes) -> optax.GradientTransformation:
    """Second moments as a row and a column (arXiv:1804.04235), without its scaling by the size of a parameter, as
    arXiv:2106.04560 trains ViTs: a head that starts at zero would hardly move."""
    parts = [optax.scale_by_factored_rms(), _clip_rms(1.0)]
    if recipe.keeps_moment:
        kept = _kept_as(recipe)
        parts.append(optax.ema(recipe.old_share, debias=False, accumulator_dtype=kept))
    return optax.chain(*parts)


def _clip_rms(threshold: float) -> optax.GradientTransformation:
    """Adafactor's update clipping (arXiv:1804.04235 sec. 6), of each block's parameter by itself."""
    clip = optax.clip_by_block_rms(threshold)

    def one(update: Any) -> Any:
        return clip.update(update, optax.EmptyState())[0]

    # a stack is one array of many blocks, of which none may decide for the others
    def update(updates: Any, params: Any) -> Any:
        leaves = flat(updates)
        return nested({path: _each(one, path)(leaf) for path, leaf in leaves.items()})

    return optax.stateless(update)


def _each(function: Callable[[Any], Any], path: str) -> Callable[[Any], Any]:
    """A function of one block's parameter for a whole stack of them; itself for all other parameters."""
    return jax.vmap(function) if STACK.fullmatch(path) else function


def _muon(recipe: Recipe, shapes: Shapes) -> optax.GradientTransformation:
    """Muon for the matrices inside blocks, AdamW for all else, as its author advises for embeddings and heads."""
    matrices = {path: "muon" for path in shapes if MATRIX.fullmatch(path)}
    labels = dict.fromkeys(shapes, "adamw") | matrices

    # every leaf that comes here is [depth, in, out]: the matrices of a stack are made orthogonal one by one
    def numbers(updates: Any) -> Any:
        return jax.tree.map(lambda _: MuonDimensionNumbers(1, 2), updates)

    muon = scale_by_muon(
        beta=recipe.old_share,
        eps=recipe.eps,
        mu_dtype=_kept_as(recipe),
        weight_dimension_numbers=numbers,
    )
    scaled = optax.chain(muon, optax.stateless(_as_large_as_adams))
    return optax.partition({"muon": scaled, "adamw": _adamw(recipe, shapes)}, nested(labels))


def _as_large_as_adams(updates: Any, params: Any) -> Any:
    # an orthogonal matrix has 1 / sqrt(its larger side) in a place, and AdamW's updates about 0.2 (arXiv:2502.16982
    # sec. 2.2): brought there, matrices and all else share one rate and one decay, which are AdamW's
    return jax.tree.map(lambda u: 0.2 * max(u.shape[1:]) ** 0.5 * u, updates)


# A name -> what turns a gradient into a step, before decay and rates
SCALINGS: dict[str, Callable[[Recipe, Shapes], optax.GradientTransformation]] = {
    "adamw": _adamw,
    "sgd": _sgd,
    "lion": _lion,
    "adafactor": _adafactor,
    "muon": _muon,
}


def decay_factor(name: str, recipe: Recipe) -> float:
    """The weight decay of a parameter in units of the recipe's: 0 where no row of its table names it."""
    return first_match(name, (*recipe.decay, (r".*", 0.0)))


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
