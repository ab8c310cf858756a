"""A run's folder: the state that it goes on from, and the model that it has made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh, SingleDeviceSharding

from fmjax import specs
from fmjax.config.run import RunConfig
from fmjax.config.tasks import TaskConfig
from fmjax.data.batches import BadImages, train_batches
from fmjax.data.example import Examples
from fmjax.engine import hosts, predictions, steps
from fmjax.engine.backbone import asked_size, final_spec, of_spec, preprocessing
from fmjax.engine.checkpoint import Checkpoints, Damaged, average_shapes, restore_average
from fmjax.engine.checkpoint import restore as restore_state
from fmjax.engine.checkpoint import restore_params as params_of
from fmjax.engine.evaluate import Scores
from fmjax.engine.freeze import join_stacks, with_average
from fmjax.engine.metrics import METRICS, Metrics, Sink, rows_in
from fmjax.engine.placement import own_rows
from fmjax.engine.plan import Learner, Plan, make_task, net_of_shapes
from fmjax.engine.records import (
    CONFIG,
    PREPROCESSING,
    SPEC,
    damaged,
    read_preprocessing,
    read_run,
    read_spec,
)
from fmjax.engine.state import (
    State,
    emptied,
    in_training,
    net_shardings,
    places,
    stream_seed,
    to_disk,
)
from fmjax.engine.unreadable import Tell
from fmjax.errors import CheckpointError, UsageError
from fmjax.models.lora import merged
from fmjax.models.vit import ViT
from fmjax.preprocessing import PreprocessConfig
from fmjax.tasks.task import Labels, Net, Task
from fmjax.trees import Params, flat, nested
from fmjax.weights import export as files


@dataclass
class Run:
    """The folder of a run that trains.

    fallback: whether a damaged step is set aside for an older one.
    """

    folder: Path
    checkpoints: Checkpoints
    fallback: bool = True
    saved: int = 0  # the newest step that is on disk, or on the way there
    also: Sink | None = None  # is given every row of metrics.jsonl

    def resume(
        self,
        plan: Plan,
        mesh: Mesh,
        state: State,
        examples: Examples,
        bad: BadImages,
        tell: Tell,
    ) -> tuple[State, Iterator[dict[str, Any]], int]:
        """The newest saved state, the data at its position, and its step; the state that is passed, the data's start
        and 0 where nothing is saved. tell: is given a line for each damaged step."""
        seed = stream_seed(plan.seed, "data")
        # from the start, and put to a saved place below: what is saved is a position, and no data
        batches = train_batches(
            examples,
            plan.task.viewer,
            plan.data,
            batch_size=plan.batch_size,
            seed=seed,
            rows=own_rows(plan.batch_size, mesh),
            steps=plan.steps,
        )
        known = hosts.by_first(lambda: steps.committed(self.folder))
        if not known:
            return state, batches, 0
        if known[-1] > plan.steps:
            raise UsageError(
                f"{self.folder} is at step {known[-1]} already, beyond --steps {plan.steps}; pass more steps, or "
                f"--fresh"
            )
        # the first state's memory is given back before the saved one is read
        like = _on_disk(plan, mesh, emptied(state))
        state, data, self.saved = self._newest_whole(known, like, tell)
        batches.set_state(data["position"])
        bad.set_state(data["unreadable"])
        where = places(plan, mesh)
        params = in_training(plan, state.params, where)
        # a guard that older runs have not saved is still on the host
        guard = jax.device_put(state.guard, where.guard)
        return replace(state, params=params, guard=guard), batches, self.saved

    def _newest_whole(
        self, known: list[int], like: State, tell: Tell
    ) -> tuple[State, dict[str, Any], int]:
        """The newest state whose digests are right, its record and its step; damaged ones after it are set aside."""
        reasons: dict[int, Damaged] = {}
        for step in reversed(known):
            try:
                state, data = restore_state(self.folder, step, like)
            except Damaged as error:
                if not self.fallback:
                    raise
                reasons[step] = error
                continue
            for broken, error in reasons.items():
                place = hosts.by_first(lambda n=broken: str(steps.set_aside(self.folder, n)))
                tell(
                    f"note    step {broken} is damaged ({error.reason}) and set aside in {place}; the run goes on from "
                    f"step {step}"
                )
            self.checkpoints.reload()
            return state, data, step
        # nothing is moved where nothing is whole: a person may know more
        told = "; ".join(f"step {step}: {error.reason}" for step, error in reasons.items())
        raise CheckpointError(
            f"no step of {self.folder} can be restored: {told}; put back a copy of one, or start over with --fresh"
        )

    def save(self, step: int, state: State, batches: Any, bad: BadImages) -> None:
        """Starts to save, unless the step is saved; it counts once all of it is on disk."""
        # a step that was reached and saved is not written again when the run is stopped right behind it
        if step == self.saved:
            return
        data = {"position": batches.get_state(), "unreadable": bad.get_state()}
        self.checkpoints.save(step, to_disk(state), data)
        self.saved = step

    def on_disk(self) -> list[int]:
        """The steps that are saved, the one that is being written now among them."""
        self.checkpoints.wait()
        return steps.committed(self.folder)

    def keep_best(self, plan: Plan, metrics: Metrics) -> int | None:
        """Lets the best step of those that are scored stay beside the newest ones, and returns it."""
        if plan.keep_best:
            task = plan.task
            self.checkpoints.best = hosts.by_first(
                lambda: steps.best(metrics.rows(), task.watch, highest=task.highest)
            )
        return self.checkpoints.best

    def keep_rows(
        self, step: int, best: int | None, scores: Scores, names: Sequence[str]
    ) -> list[str]:
        """Keeps the rows of an evaluation if none was better, or the newest are handed out (best None); a line where
        they cannot be kept, which ends no run."""
        if best not in (None, step) or not hosts.is_first():
            return []
        failed = predictions.keep(self.folder, step, scores, names)
        return [f"note    {failed}"] if failed else []

    def has_scores(self, metrics: Metrics, step: int) -> bool:
        """Whether a step is scored, as the process says that writes the scores."""
        return hosts.by_first(lambda: metrics.has_scores(step))

    def metrics(self, start: int) -> Metrics:
        """The rows up to a step."""
        return Metrics(self.folder / METRICS, start, writes=hosts.is_first(), also=self.also)

    def close(self) -> None:
        """Until everything is on disk."""
        self.checkpoints.close()


def _on_disk(plan: Plan, mesh: Mesh, state: State) -> State:
    """Shapes and places of a state as it lies on disk."""
    shapes = jax.eval_shape(join_stacks, state.params)
    return replace(state, params=_placed(flat(shapes), mesh))


def _placed(shapes: dict[str, Any], mesh: Mesh | None) -> Params:
    """Shapes with the places where they belong; on the first device without a mesh."""
    # the layout of the run that wrote does not matter: each array is read as it is to lie here
    one = SingleDeviceSharding(jax.devices()[0])
    sizes = {path: leaf.shape for path, leaf in shapes.items()}
    where: Any = dict.fromkeys(sizes, one) if mesh is None else net_shardings(sizes, mesh)
    return nested(
        {
            path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where[path])
            for path, leaf in shapes.items()
        }
    )


def start_params(task: Task, backbone: ViT, labels: Labels, seed: int, mesh: Mesh) -> Params:
    """The parameters of a task's net, born on the mesh; the backbone's are taken over, not copied."""

    def params(model: ViT) -> Params:
        return nested(flat(task.parts(model, labels, nnx.Rngs(stream_seed(seed, "parts")))))

    # donated: what the task passes on of the backbone keeps its memory, and only new parts are made
    shapes = {path: leaf.shape for path, leaf in flat(jax.eval_shape(params, backbone)).items()}
    where = nested(net_shardings(shapes, mesh))
    return jax.jit(params, out_shardings=where, donate_argnums=0)(backbone)


def _recorded(run: Path, config: RunConfig) -> tuple[specs.ViTSpec, PreprocessConfig]:
    """The spec that a run was trained with, and how its images were brought to it."""
    # runs of older versions lack one or both: they are the zoo's
    images = read_preprocessing(run)
    asked = asked_size(config.model) if images else None
    size = asked or (images or preprocessing(config)).image_size
    spec = read_spec(run) or final_spec(config.model, size)
    # of two that differ nobody knows which is right
    for name, other in ((PREPROCESSING, (images or spec).image_size), (CONFIG, size)):
        if spec.image_size != other:
            raise damaged(
                run / name, f"it has images of {other}, and {SPEC} a model for {spec.image_size}"
            )
    return spec, images or preprocessing(config, spec)


def outline(run: Path, config: RunConfig, labels: Labels, mesh: Mesh | None = None) -> Learner:
    """What a run has learned, but for its parameters; on a mesh its weights are gathered and not its activations.
    Raises CheckpointError where its records do not agree."""
    spec, images = _recorded(run, config)
    task = make_task(config, images)
    # it may be scored where the kernels that it was trained with cannot run
    if config.attention != "xla":
        config = replace(config, attention="auto")
    if config.norms == "pallas":
        config = replace(config, norms="auto")
    if config.activations == "pallas":
        config = replace(config, activations="auto")
    net = net_of_shapes(task, of_spec(config, spec, mesh), labels)
    return Learner(task, labels, images, net)


def chosen_step(run: Path, config: RunConfig, task: Task, step: int | None) -> int:
    """The step that is meant: a given one; None is the best of those that are kept, or the newest where none is.

    Raises CheckpointError where there is no step.
    """
    if step is not None:
        return step
    known = steps.committed(run)
    if not known:
        raise CheckpointError(
            f"{run} has no checkpoint yet; run the same `fmjax finetune` command to go on"
        )
    best = steps.best(rows_in(run / METRICS), task.watch, highest=task.highest)
    return best if config.keep_best and best in known else known[-1]


def restore_params(run: Path, net: Net, step: int, mesh: Mesh | None, *, average: bool) -> Params:
    """The parameters of a run's net at a step, in the layout of the disk; their average where the run hands that out
    (`Recipe.averages`). Raises CheckpointError where the step is missing or damaged."""
    params = params_of(run, step, _placed(flat(net), mesh))
    if not average:
        return params
    # the run that wrote it knew which leading blocks it left as they were; here only the shapes tell
    like = _placed(flat(average_shapes(run, step)), mesh)
    return with_average(params, restore_average(run, step, like))


def restore(
    run: str | Path,
    step: int | None = None,
    *,
    mesh: Mesh | None = None,
    task: TaskConfig | None = None,
) -> ViT:
    """The model of a fine-tuned run at its best or a given step, a classifier included and adapters merged; it knows
    its classes and its preprocessing (`model.predict("cat.jpg")`).

    mesh: where the parameters lie; None is one device. task: the settings of a task of your own, where the run learned
    one. Raises CheckpointError where the folder holds no run or no such step.
    """
    folder = Path(run)
    config, labels = read_run(folder, task)
    learner = outline(folder, config, labels, mesh)
    step = chosen_step(folder, config, learner.task, step)
    average = config.recipe.averages
    params = restore_params(folder, learner.net, step, mesh, average=average)
    model = merged(learner.task.joined(learner.bound(params)))
    reading = learner.task.reading
    model.facts = specs.ModelFacts(images=learner.images, classes=labels, reading=reading)
    return model


def export(
    model: ViT | str | Path,
    path: str | Path,
    dialect: str = "timm",
    base: str | Path | None = None,
    *,
    classifier: bool = True,
) -> Path:
    """Writes a model, or the best state of a run, as a safetensors file of a PyTorch dialect and returns its path.

    base: the original file; what fmjax does not model (text towers, mask tokens) returns from it unchanged. A
    classifier takes the place of the projection, as in timm; classifier=False leaves it out and keeps the projection.
    Raises CheckpointError where the dialect has no place for a parameter, UsageError where `path` is the base.
    """
    whole = model if isinstance(model, ViT) else restore(model)
    return files.export(whole, path, dialect, base, classifier=classifier)
