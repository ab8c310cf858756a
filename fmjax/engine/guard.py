"""What a step does with numbers that are none: nothing is learned from them. And the factor that keeps float16's
gradients from being too small."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

T = TypeVar("T")
# Dynamic loss scaling (arXiv:1710.03740 sec. 3.2) with the numbers that torch.amp.GradScaler and
# flax.training.dynamic_scale begin with. The latter differentiates one loss, where ours is a sum over parts of a batch.
FIRST_SCALE = 2.0**16
GOOD_STEPS = 2_000  # after which the scale is doubled
# Doubled for ever it would come to infinity where gradients are tiny or zero, and never back; the bound is apex's
LARGEST_SCALE = 2.0**24
# At 1 the scale is not what made a gradient overflow
SMALLEST_SCALE = 1.0


@typing.no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Guard:
    """What a run remembers of its steps. It is the same whatever a run computes in, so that one begun in float16 goes
    on in bfloat16 on another device."""

    skipped: Int[Array, ""]  # steps, in all
    row: Int[Array, ""]  # of them in a row, the last step included
    scale: Float[Array, ""]  # of the loss, where the backbone computes in float16
    good: Int[Array, ""]  # steps since the scale has changed


def fresh() -> Guard:
    """That of a run before its first step."""
    # on the host: where they lie is not known here
    counts: list[Any] = [np.zeros((), np.int32) for _ in range(3)]
    scale: Any = np.full((), FIRST_SCALE, np.float32)
    return Guard(skipped=counts[0], row=counts[1], scale=scale, good=counts[2])


def all_finite(loss: Array, norm: Array, averages: Mapping[str, Array]) -> Bool[Array, ""]:
    """Whether all that a step would bring into a state is. norm: the gradient's, whose sum of squares one number that
    is not finite spoils, so that no gradient is read a second time."""
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    for value in averages.values():
        finite &= jnp.isfinite(value).all()
    return finite


def kept(finite: Bool[Array, ""], new: T, old: T) -> T:
    """The new tree after a step that counts, the old one, bit by bit, after one that is skipped.

    A learning rate follows the number of the step, as the data do, so that its schedule ends with the run.
    """

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    def choose(new: Any, old: Any) -> Any:
        return new if is_schedule(new) else jnp.where(finite, new, old)

    # a choice of every number, not a branch: it is part of the update's own kernels, and no device waits for the host
    return jax.tree.map(choose, new, old, is_leaf=is_schedule)


def after(guard: Guard, finite: Bool[Array, ""], loss: Array, *, scales: bool) -> Guard:
    """The guard one step on. scales: whether the loss was multiplied by guard.scale."""
    if not scales:
        return Guard(
            skipped=guard.skipped + ~finite,
            row=jnp.where(finite, 0, guard.row + 1),
            scale=guard.scale,
            good=guard.good,
        )
    # Only the gradient is scaled. Where the loss is finite and it is not, the scale may have been too large: that is
    # how it is found, so such a step is not counted as skipped. What a scale of 1 does not mend, it has not caused.
    overflow = ~finite & jnp.isfinite(loss) & (guard.scale > SMALLEST_SCALE)
    skipped = ~finite & ~overflow
    good = jnp.where(finite, guard.good + 1, 0)
    grown = good == GOOD_STEPS
    scale = jnp.where(grown, jnp.minimum(guard.scale * 2, LARGEST_SCALE), guard.scale)
    return Guard(
        skipped=guard.skipped + skipped,
        row=jnp.where(skipped, guard.row + 1, 0),
        scale=jnp.where(overflow, guard.scale / 2, scale),
        good=jnp.where(grown, 0, good),
    )


def told(guard: Guard, *, scales: bool) -> dict[str, Array]:
    """What the logs of a step have of its guard."""
    logs = {"skipped": guard.skipped, "skipped_in_row": guard.row}
    return logs | ({"loss_scale": guard.scale} if scales else {})
