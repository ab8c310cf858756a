"""OptimConfig -> an optax chain, and which parameters it trains: freeze, learning rate and decay are tables over
paths."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fmjax.config.recipe import OptimConfig
from fmjax.errors import UsageError
from fmjax.trees import Params, first_match, flat, nested, virtual_paths

Shapes = Mapping[str, tuple[int, ...]]
# What a classifier's logits do not depend on, where it sees the pooled tokens and where not: decay would only shrink it
UNUSED = {True: (r"proj\..*",), False: (r"proj\..*", r"pool\..*")}
DECAY = (
    (r".*\.(bias|scale)|cls_token|summary_tokens|pos_embed|registers|pool\.probe", 0.0),
    (r".*", 1.0),
)


@dataclass(frozen=True)
class Freeze:
    """What is not trained: the first `blocks` blocks, and these parameters of the rest (paths after the split)."""

    blocks: int
    paths: frozenset[str]


def frozen(shapes: Shapes, patterns: Sequence[str], depth: int) -> Freeze:
    """Resolves freeze patterns against a model's parameters.

    Leading blocks may be frozen as a whole, and a parameter may be frozen in all other blocks; raises UsageError for
    any other partial freeze, for a pattern that matches nothing, and where nothing would be left to train.
    """
    hit = {path: [_any(patterns, name) for name in virtual_paths(path, depth)] for path in shapes}
    _no_idle_pattern(patterns, shapes, depth)
    stacks = [flags for path, flags in hit.items() if path.startswith("blocks.")]
    leading = int(np.argmin([*np.all(stacks, 0), False])) if stacks else 0
    paths = set()
    for path, flags in hit.items():
        rest = flags[leading:] if path.startswith("blocks.") else flags
        if any(rest) and not all(rest):
            which = [i + leading for i, flag in enumerate(rest) if flag]
            raise UsageError(
                f"{path} would be frozen in blocks {which} only; freeze all parameters of the first blocks, or "
                f"one parameter "
                f"in every block (--optim.freeze)"
            )
        if (rest and all(rest)) or (leading == depth and path.startswith("blocks.")):
            paths.add(path)
    if leading == depth:
        leading = 0  # all blocks are frozen: one stack, left out of the gradient as a whole
    if paths == set(shapes):
        raise UsageError(f"--optim.freeze {' '.join(patterns)} leaves nothing to train; loosen a pattern")
    prefix = {f"frozen_{path}" for path in shapes if path.startswith("blocks.") and leading}
    return Freeze(leading, frozenset(paths | prefix))


def _any(patterns: Sequence[str], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _no_idle_pattern(patterns: Sequence[str], shapes: Shapes, depth: int) -> None:
    names = [name for path in shapes for name in virtual_paths(path, depth)]
    idle = [p for p in patterns if p not in UNUSED[False] and not any(re.fullmatch(p, n) for n in names)]
    if idle:
        raise UsageError(f"--optim.freeze {idle[0]!r} matches no parameter; names are like {names[0]}, {names[-1]}")


def warmup_steps(config: OptimConfig, steps: int) -> int:
    """The steps of warm-up in a run of `steps`: as asked, or half of the run where that is not longer than them."""
    return config.warmup_steps if config.warmup_steps < steps else steps // 2


def schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """Linear warm-up, whose step t of w has t/w of the rate, then half a cosine down to final_lr * lr.

    A schedule counts from 0, so that the first step, count 0, has 1/w of the rate and count w - 1 all of it: with the
    more usual count/w the first step, and its batch, would teach nothing.
    """
    warmup = max(warmup_steps(config, steps), 1)
    return optax.warmup_cosine_decay_schedule(
        config.lr / warmup,
        config.lr,
        warmup - 1,
        max(steps, 1),
        config.lr * config.final_lr,
    )


def optimiser(
    config: OptimConfig, steps: int, shapes: Shapes, depth: int, frozen_blocks: int = 0
) -> optax.GradientTransformation:
    """AdamW (arXiv:1711.05101) with decay and learning rate by table. `shapes` are those of the trained parameters."""
    rates = _lr_table(config, depth)
    decay = _factors(shapes, DECAY, depth, frozen_blocks)
    lr = _factors(shapes, rates, depth, frozen_blocks)
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        _add_decay(config.weight_decay, decay),
        _scale(lr),
        optax.scale_by_learning_rate(schedule(config, steps)),
    )


def _lr_table(config: OptimConfig, depth: int) -> tuple[tuple[str, float], ...]:
    """layer_decay ** (distance from the head): the embedding is layer 0, block i is i + 1, what follows is depth +
    1."""
    decay = config.layer_decay
    blocks = tuple((rf"blocks\.{i}\..*", decay ** (depth - i)) for i in range(depth))
    embedding = r"patch_(embed|norm)\..*|cls_token|summary_tokens|registers|pos_embed|norm_pre\..*"
    return ((embedding, decay ** (depth + 1)), *blocks, (r"classifier\..*", config.classifier_lr), (r".*", 1.0))


def _factors(shapes: Shapes, table: Sequence[tuple[str, float]], depth: int, frozen_blocks: int) -> Params:
    """One number for each parameter; for a stacked one, a column of numbers along its depth."""
    out: dict[str, Any] = {}
    for path, shape in shapes.items():
        stacked = path.startswith("blocks.")
        names = virtual_paths(path, depth - frozen_blocks, frozen_blocks) if stacked else [path]
        values = np.asarray([first_match(name, table) for name in names], np.float32)
        out[path] = values.reshape(-1, *[1] * (len(shape) - 1)) if stacked else values[0]
    return nested(out)


def _add_decay(weight_decay: float, factors: Params) -> optax.GradientTransformation:
    def update(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u, f, p: u + weight_decay * f * p, updates, factors, params)

    return optax.stateless(update)


def _scale(factors: Params) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, params: jax.tree.map(lambda u, f: u * f, updates, factors))


def partition(params: Params, freeze: Freeze) -> tuple[Params, Params]:
    """(trained, frozen), two nested dicts."""
    leaves = flat(params)
    trained = {path: leaf for path, leaf in leaves.items() if path not in freeze.paths}
    return nested(trained), nested({path: leaf for path, leaf in leaves.items() if path in freeze.paths})


def merge(trained: Params, rest: Params) -> Params:
    return nested(flat(trained) | flat(rest))


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    """[B] losses against smoothed one-hot labels."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32), smoothing)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)
