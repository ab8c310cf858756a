"""A head that another run has trained, as the start of a run: the second half of LP-FT (arXiv:2202.10054)."""

from __future__ import annotations

from pathlib import Path

from jax.sharding import Mesh

from fmjax.config.run import RunConfig
from fmjax.data.split import examples
from fmjax.engine import reruns
from fmjax.engine.freeze import tower_depths
from fmjax.engine.plan import Plan
from fmjax.engine.records import config_record, read_run
from fmjax.engine.run import chosen_step, outline, restore_params
from fmjax.engine.steps import committed, has_steps
from fmjax.errors import UsageError
from fmjax.trees import Params, flat

Shapes = dict[str, tuple[int, ...]]


def check(config: RunConfig, plan: Plan) -> None:
    """Raises UsageError where the heads of --head-from are not those of this run; reads records, and no array."""
    if not _starts(config):
        return
    folder = Path(config.head_from)
    # --fresh deletes what is in the run's own folder before a head is read
    if folder.resolve() == Path(config.out).resolve():
        raise _refused(config, "it is this run's own folder; pass another --out")
    there, classes = read_run(folder, config.task)
    known = committed(folder)
    # a run that is still on its way has a head that the next save makes another one
    if known[-1:] != [there.steps]:
        at = known[-1] if known else 0
        raise _refused(config, f"it is at step {at} of {there.steps}; run its command to the end")
    if there.model.name != config.model.name:
        names = f"{there.model.name}, and this run {config.model.name}"
        raise _refused(config, f"its model is {names}; a head fits the features it has seen")
    if there.model.init != config.model.init:
        begins = f"{there.model.init} weights, and this run with {config.model.init} ones"
        raise _refused(config, f"it began with {begins}; a head fits the features it has seen")
    if classes != plan.labels:
        differ = sorted({*classes} ^ {*plan.labels})
        why = f"others ({examples(differ)})" if differ else "in another order"
        raise _refused(config, f"its classes are {why}; train a head on these")
    ours, theirs = _heads(plan.net), _heads(outline(folder, there, classes).net)
    differ = [path for path in sorted(ours | theirs) if ours.get(path) != theirs.get(path)]
    if differ:
        sizes = f"{differ[0]} is {theirs.get(differ[0])}, and this run's {ours.get(differ[0])}"
        raise _refused(config, f"its {sizes}; pass the same --task")


def taken_over(config: RunConfig, plan: Plan, params: Params, mesh: Mesh) -> Params:
    """The first parameters of a run, with the heads of --head-from at its best step; they must have been checked."""
    if not _starts(config):
        return params
    folder = Path(config.head_from)
    there, classes = read_run(folder, config.task)
    step = chosen_step(folder, there, plan.task, None)
    # by that run's own shapes: its table of positions may be of another image size
    net, average = outline(folder, there, classes, mesh).net, there.recipe.averages
    found = restore_params(folder, net, step, mesh, average=average)
    parts = {path.partition(".")[0] for path in _heads(plan.net)}
    return params | {part: found[part] for part in parts}


def words(config: RunConfig) -> list[str]:
    """A line on the head that is taken over, and what its task has otherwise; none where the run has its own."""
    if not _starts(config):
        return []
    there, _ = read_run(Path(config.head_from), config.task)
    changed = reruns.differences(*(config_record(each)["task"] for each in (there, config)))
    other = f", whose task has other settings ({'; '.join(changed)})" if changed else ""
    return [f"head    from {config.head_from}{other}"]


def _starts(config: RunConfig) -> bool:
    """Whether the run begins with the heads: one that goes on has its own, and the other run may be gone."""
    return bool(config.head_from) and (config.fresh or not has_steps(Path(config.out)))


def _heads(net: Params) -> Shapes:
    """The shapes of all parts that are no tower."""
    shapes = {path: tuple(leaf.shape) for path, leaf in flat(net).items()}
    towers = tower_depths(shapes)
    return {path: shape for path, shape in shapes.items() if path.partition(".")[0] not in towers}


def _refused(config: RunConfig, why: str) -> UsageError:
    return UsageError(f"--head-from {config.head_from} does not fit: {why}")
