"""What `fmjax average` takes the mean of: runs of one model, and the weights that they began with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from fmjax import names
from fmjax.config.recipe import Recipe
from fmjax.config.run import RunConfig
from fmjax.config.tasks import TaskConfig
from fmjax.engine.backbone import build
from fmjax.engine.plan import Learner
from fmjax.engine.records import read_run
from fmjax.engine.run import chosen_step, outline, restore_params
from fmjax.errors import UsageError
from fmjax.models.lora import PART, merged
from fmjax.trees import Params, flat, nested

# settings of a task that shape its loss and not its outputs: runs may differ in them, and in no other
OF_TRAINING = (
    *("label_smoothing", "class_weights", "scales"),
    *("mixup", "cutmix", "mix_prob", "mix_switch"),
)


@dataclass(frozen=True)
class Member:
    """A run of which an average is made, or the weights that the runs began with."""

    name: str
    step: int  # of the run's checkpoint; 0 is the start
    config: RunConfig
    labels: tuple[str, ...]
    learner: Learner  # with adapters, where it was trained with some
    read: Callable[
        [], Params
    ]  # the parameters, adapters merged: products are not linear in their factors


def opened(sources: Sequence[str], mesh: Mesh, own: TaskConfig | None) -> list[Member]:
    """The members by their names, in the order given; none of their arrays is read.

    Raises UsageError for one that is there twice, for weights that no run began with, and for runs that differ in more
    than how they were trained.
    """
    starts = [name for name in sources if _is_model(name)]
    runs = {name: _run(name, mesh, own) for name in sources if name not in starts}
    if not runs or len({*sources}) < len(sources) or len(starts) > 1:
        raise UsageError(
            f"the sources are {', '.join(sources)}; they must be different runs, and at most one name of the weights "
            f"that these began with"
        )
    # the first run is what the others are compared with, and whose start is meant
    first = next(iter(runs.values()))
    for run in runs.values():
        _check_alike(first, run)
    members = runs | {name: _start(name, first, mesh) for name in starts}
    return [members[name] for name in sources]


def whole(config: RunConfig) -> RunConfig:
    """A config without adapters and averages over steps, as the parameters of an average of runs are whole."""
    usual = Recipe()
    none = {"lora_rank": 0, "lora_alpha": usual.lora_alpha, "lora_targets": usual.lora_targets}
    none |= {"frozen": usual.frozen}
    return replace(config, recipe=replace(config.recipe, **none, ema=0.0))


def averaged(members: Sequence[Member], weights: Sequence[float]) -> Params:
    """The weighted mean of the members' parameters. Parts that the start lacks are the mean over the runs alone."""
    total: Params = {}
    # one after the other: two sets of parameters are in memory, however many members there are
    for member, weight in zip(members, weights, strict=True):
        if weight:
            parts = {name: _scaled(part, weight) for name, part in member.read().items()}
            both = parts.keys() & total.keys()
            total |= parts | {name: _added(total[name], parts[name]) for name in both}
    ran = sum(weight for member, weight in zip(members, weights, strict=True) if member.step)
    if all(member.step for member in members):
        return total
    heads = {name: part for name, part in total.items() if name != PART}
    return total | _scaled(heads, 1 / ran)


@partial(jax.jit, donate_argnums=0)
def _scaled(params: Params, factor: float | Float[Array, ""]) -> Params:
    return jax.tree.map(lambda leaf: leaf * factor, params)


@partial(jax.jit, donate_argnums=0)
def _added(total: Params, params: Params) -> Params:
    return jax.tree.map(lambda a, b: a + b, total, params)


def _is_model(name: str) -> bool:
    """Whether a source is the name of weights; what is a folder is none."""
    if Path(name).exists():
        return False
    try:
        names.resolve(name)
    except UsageError:
        return False  # as a run it is refused with what is missing
    return True


def _run(name: str, mesh: Mesh, own: TaskConfig | None) -> Member:
    # the best step of those that are kept, as `fmjax eval` and `fmjax export` take it
    folder = Path(name)
    config, labels = read_run(folder, own)
    learner = outline(folder, config, labels, mesh)
    step = chosen_step(folder, config, learner.task, None)
    average = config.recipe.averages

    def read() -> Params:
        net = learner.bound(restore_params(folder, learner.net, step, mesh, average=average))
        params = nested(flat(net | {PART: merged(net[PART])}))
        # what was kept in fewer bits is not to be rounded to them again
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)

    return Member(name, step, config, labels, learner, read)


def _start(name: str, first: Member, mesh: Mesh) -> Member:
    """The weights that a run began with: of its net they have the backbone alone."""
    model = first.config.model
    if model.init == "random" or names.resolve(name) != names.resolve(model.name):
        began = {"random": "random weights"}.get(model.init, model.name)
        raise UsageError(
            f"{first.name} began with {began}, not with {name}; between trainings of different weights there is nothing"
        )

    def read() -> Params:
        return nested(flat({PART: build(whole(first.config), mesh)}))

    return replace(first, name=name, step=0, read=read)


def _check_alike(first: Member, other: Member) -> None:
    """Raises UsageError, with the first difference, where two runs are not two trainings of one thing."""
    found = next(_differences(first, other), None)
    if found:
        what, one, two = found
        raise UsageError(
            f"{other.name} and {first.name} differ in {what}: {two!r} and {one!r}; only runs of one model, one "
            f"task and the same classes can be averaged"
        )


def _differences(first: Member, other: Member) -> Iterator[tuple[str, Any, Any]]:
    """(what, in the first, in the other), the most telling first."""
    # how they were trained may differ in all: recipe, seed, images, adapters or none
    pairs = {
        **_fields("the model's ", first.learner.net[PART].spec, other.learner.net[PART].spec),
        **_fields("the images' ", first.learner.images, other.learner.images),
        "model.init": (first.config.model.init, other.config.model.init),
        "the number of classes": (len(first.labels), len(other.labels)),
        **{
            f"class {i}": pair
            for i, pair in enumerate(zip(first.labels, other.labels, strict=False))
        },
        "task": (first.config.task.home, other.config.task.home),
        **_fields("task.", first.config.task, other.config.task),
    }
    for what, (one, two) in pairs.items():
        if one != two and what.removeprefix("task.") not in OF_TRAINING:
            yield what, one, two


def _fields(lead: str, one: Any, two: Any) -> dict[str, tuple[Any, Any]]:
    return {
        lead + field.name: (getattr(one, field.name), getattr(two, field.name, None))
        for field in fields(one)
    }
