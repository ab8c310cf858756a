"""What a run does, decided once: names, sizes, what is trained, and how it moves. A plan holds no array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from fmjax.config.data import DataConfig
from fmjax.config.run import RunConfig
from fmjax.data.transforms import Views
from fmjax.engine.adapters import completed
from fmjax.engine.freeze import Freeze, frozen, split_stacks, tower_depths, unused
from fmjax.engine.groups import Group, groups, said
from fmjax.engine.optim import optimiser, schedule
from fmjax.errors import UsageError
from fmjax.models.surgery import split_blocks
from fmjax.models.vit import ViT
from fmjax.preprocessing import normalise
from fmjax.specs import PreprocessConfig
from fmjax.tasks import task as tasks
from fmjax.tasks.task import Batch, Labels, Net, Now, Rows, Task
from fmjax.trees import Params, bind, flat, nested


@dataclass(frozen=True)
class Learner:
    """A net and what it is for: all that evaluation needs to know."""

    task: Task
    labels: Labels
    images: PreprocessConfig
    net: Net  # of shapes, each tower's blocks in one stack

    def bound(self, params: Params) -> Net:
        """The net with parameters, as they lie in training or on disk."""
        return bind(_with_stacks(self.net, params), params)

    def outputs(self, params: Params, batch: Batch) -> Rows:
        """The rows of a batch, as it travels."""
        return self.task.outputs(self.bound(params), prepared(batch, self.images))


@dataclass(frozen=True)
class Plan(Learner):
    """A resolved run."""

    data: DataConfig
    batch: Mapping[str, jax.ShapeDtypeStruct]  # the fields of a batch, as they travel
    freeze: Freeze
    groups: tuple[Group, ...]  # of all parameters, by how they are trained
    tx: optax.GradientTransformation
    rate: optax.Schedule
    steps: int
    batch_size: int
    accumulate: int
    ema: float
    ema_warmup: bool
    averages: bool  # whether the average is what is scored, kept and exported
    seed: int
    eval_every: int
    save_every: int
    log_every: int
    keep: int
    keep_best: bool
    max_skipped: int
    deterministic: bool
    compiler_options: tuple[str, ...]  # NAME=VALUE, as they were asked for
    profiled: range  # steps of which a trace is written

    @property
    def params(self) -> Params:
        """The shapes of all parameters, as they lie in training: leading frozen blocks in a stack of their own."""
        return jax.eval_shape(
            partial(split_stacks, blocks=self.freeze.blocks), nested(flat(self.net))
        )

    @property
    def part_size(self) -> int:
        """How many images are computed at a time, over all devices."""
        return self.batch_size // self.accumulate

    @property
    def scales_loss(self) -> bool:
        """Whether the backbone computes in float16, where gradients are too small for it unless the loss is scaled."""
        return self.net["backbone"].dtype == jnp.float16

    def evaluates(self, step: int) -> bool:
        """Whether to score the validation part after a step; after the last one it is scored when the run finishes."""
        return step % self.eval_every == 0 and step != self.steps

    def saves(self, step: int) -> bool:
        """Whether to save after a step: every so often, and the last one."""
        return step % self.save_every == 0 or step == self.steps

    def logs(self, step: int) -> bool:
        """Whether a step has a row in metrics.jsonl."""
        # a step that is scored or saved has a row whatever the cadence: that is where a person looks
        return step % self.log_every == 0 or self.evaluates(step) or self.saves(step)


def make_task(config: RunConfig, images: PreprocessConfig) -> Task:
    """The task of a run, which sees examples as its weights' authors do."""
    data = config.data
    views = Views(
        images,
        crop_scale=data.crop_scale,
        flip=data.flip,
        augment=data,
        decoder=data.decoder,
    )
    return tasks.make(config.task, views)


def net_of_shapes(task: Task, backbone: ViT, labels: Labels) -> Net:
    """What a task makes of a backbone, without arrays. Raises UsageError where the backbone is no part of it."""
    # traced: what a task makes is known before a weight is read
    net = jax.eval_shape(lambda model: task.parts(model, labels, nnx.Rngs(0)), backbone)
    tasks.check_net(task, net)
    return net


def resolve(
    config: RunConfig,
    task: Task,
    backbone: ViT,
    labels: Labels,
    images: PreprocessConfig,
    batch: Mapping[str, Any],
) -> Plan:
    """The plan of a run. backbone and batch: shapes will do. Raises UsageError for what cannot be trained."""
    net = net_of_shapes(task, backbone, labels)
    learner = Learner(task, labels, images, net)
    params = nested(flat(net))
    shapes = {path: leaf.shape for path, leaf in flat(net).items()}
    recipe = completed(config.recipe, shapes).of_batch(config.batch_size)
    # what cannot be trained is refused while nothing has been computed
    if recipe.accumulate > 1 and not task.separable:
        raise UsageError(
            f"--recipe.accumulate is {recipe.accumulate}; {type(task).__name__} needs all examples of a batch at once: "
            f"it must be 1"
        )

    if task.learns_from_average and not recipe.ema:
        raise UsageError(
            f"{type(task).__name__} learns from an average; set --recipe.ema, as 0.996"
        )

    def loss(params: Params, batch: Batch) -> Any:
        # of the right shapes, which is all that tracing asks: there is no average yet
        teacher = bind(net, params) if recipe.ema else None
        now = Now(jnp.zeros((), jnp.int32), task.count(batch), jax.random.key(0), teacher)
        returned = task.loss(bind(net, params), prepared(batch, images), now)
        tasks.check_loss(task, returned)
        return returned[0]

    # what is trained, and how: what the loss does not depend on is left as it is
    needless = unused(loss, params, batch)
    freeze = frozen(shapes, recipe.rates, needless, said=said(config.recipe))
    split = flat(jax.eval_shape(partial(split_stacks, blocks=freeze.blocks), params))
    trained = {path: leaf.shape for path, leaf in split.items() if path not in freeze.paths}

    # evaluation is tried, too: a mistake in it would show hours later
    rows = jax.eval_shape(learner.outputs, params, batch)
    tasks.check_rows(task, rows, len(batch["weight"]))
    return Plan(
        task=task,
        labels=labels,
        images=images,
        data=config.data,
        batch={name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch.items()},
        net=net,
        freeze=freeze,
        groups=tuple(groups(shapes, freeze, recipe)),
        tx=optimiser(recipe, config.steps, trained, tower_depths(shapes), freeze.blocks),
        rate=schedule(recipe, config.steps),
        steps=config.steps,
        batch_size=config.batch_size,
        accumulate=recipe.accumulate,
        ema=recipe.ema,
        ema_warmup=recipe.ema_warmup,
        averages=recipe.averages,
        seed=config.seed,
        eval_every=config.eval_every,
        save_every=config.save_every,
        log_every=config.log_every,
        keep=config.keep,
        keep_best=config.keep_best,
        max_skipped=recipe.max_skipped,
        deterministic=config.deterministic,
        compiler_options=config.compiler_options,
        profiled=config.profiled,
    )


def prepared(batch: Batch, images: PreprocessConfig) -> Batch:
    """A batch as a task is given it: its pictures (image, image2 ...), which travel as uint8, normalised."""
    # as bytes they are a quarter of what floats would take between host and device
    pictures = {
        name
        for name, field in batch.items()
        if name.startswith("image") and field.dtype == jnp.uint8
    }
    return batch | {name: normalise(batch[name], images) for name in pictures}


def _with_stacks(net: Net, params: Params) -> Net:
    """The net of shapes with its blocks in as many stacks as the parameters have."""
    out = dict(net)
    for part, inner in params.items():
        # read off the parameters: those on disk, and of a run that is scored, have none
        if "frozen_blocks" in inner:
            count = jax.tree.leaves(inner["frozen_blocks"])[0].shape[0]
            out[part] = jax.eval_shape(partial(split_blocks, frozen=count), net[part])
    return out
