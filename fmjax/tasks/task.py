"""What a task is: settings and six pure functions. It has no loop and no state; the engine knows this file, and no
task."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from fmjax.data.example import Examples
from fmjax.data.transforms import Views
from fmjax.data.unlabelled import PICTURE_SIZE
from fmjax.errors import UsageError
from fmjax.models.vit import ViT
from fmjax.specs import LogitReading

# one, on the host: what is read of it, then the arrays that the network is given
Example = dict[str, Any]
# [B ...] arrays: the fields of the examples, and weight [B], 0 where there is nothing to learn
Batch = dict[str, Array]
Net = dict[str, Any]  # the named parts of what is trained, "backbone" among them
Labels = tuple[str, ...]  # the names of the classes
# numbers of a step, for its row in metrics.jsonl; and, by this name, what is averaged over steps:
Logs = dict[str, Any]
AVERAGES = "averages"  # the log of it: {"head.norm.mean": array}, see Task.loss
MAX_ROW = 100_000  # bytes of an example's row
# arrays [B ...], a row an example: under about 10 kB each, as those of all are gathered
Rows = dict[str, Any]


# what is said of a picture, by columns: numbers, texts, lists of them, a mask [h w]. Texts stand under "class" and
# "classes", and nowhere else
Answer = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """How much is to be said of a picture: so many classes, the likeliest first; or, where several may be there, those
    whose probability is above a threshold."""

    top: int = 5
    threshold: float = 0.5


@typing.no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Now:
    """What a loss may know beside its batch."""

    step: Int[Array, ""]
    # what the loss is a mean over: `Task.count` of the whole batch, on all devices
    count: Float[Array, ""]
    key: Array  # of this step and part
    teacher: Net | None  # the average of the net, where the recipe keeps one

    def for_part(self, index: Int[Array, ""] | int) -> Now:
        """The same for one part of a batch that is computed in several."""
        return replace(self, key=jax.random.fold_in(self.key, index))


@dataclass(frozen=True)
class Task:
    """What a run learns. Every method is pure.

    A task of one's own defines `parts`, `loss`, `outputs` and `scores`; the others have a default that fits labelled
    images. The loss of a batch is the sum of the losses of its parts, so a loss divides by `now.count`; a task whose
    loss needs all examples at once sets `separable` to False.
    """

    config: Any  # its TaskConfig
    views: Views  # how the weights' authors, and the run's augmentation, see an example

    # fields of an example: image, label, mask, ...
    needs: ClassVar[tuple[str, ...]] = ("image", "label")
    watch: ClassVar[str] = "loss"  # the score that runs are compared by
    # which value of it is the best; "" is the highest of a share, and the lowest of anything else
    watch_best: ClassVar[Literal["", "highest", "lowest"]] = ""
    # the scores and logs that are parts of one, and shown in percent
    shares: ClassVar[frozenset[str]] = frozenset()
    separable: ClassVar[bool] = True
    learns_from_average: ClassVar[bool] = False  # whether the loss uses now.teacher

    @property
    def reading(self) -> LogitReading:
        """How the logits of the classifier are read, where `joined` has one."""
        return "softmax"

    @property
    def highest(self) -> bool:
        """Whether the best value of `watch` is the highest."""
        return self.watch_best == "highest" or (not self.watch_best and self.watch in self.shares)

    def learning_from(self, examples: Examples) -> Task:
        """The task with what it needs to know of all training examples; raises UsageError where they do not fit."""
        return self

    def view(self, example: Example, rng: np.random.Generator | None) -> Example:
        """The arrays that the network is given of an example. rng: None in evaluation, which draws nothing."""
        return self.views(example, rng)

    @property
    def viewer(self) -> Callable[[Example, np.random.Generator | None], Example]:
        """What `view` computes; without the task, where it is the views alone: worker processes need no JAX then."""
        return self.views if type(self).view is Task.view else self.view

    def parts(self, backbone: ViT, labels: Labels, rngs: nnx.Rngs) -> Net:
        """What is trained: {"backbone": backbone, ...}, new modules with random parameters."""
        raise NotImplementedError

    def mixed(self, batch: Batch, key: Array) -> Batch:
        """What is learned from in the place of a whole batch, before it is computed in parts; images are uint8."""
        return batch

    def count(self, batch: Batch) -> Float[Array, ""]:
        """What the loss is a mean over: the images that could be read, one at least."""
        return jnp.maximum(batch["weight"].sum(), 1.0)

    def sees_patches(self, net: Net) -> bool:
        """Whether the loss sees what the last block makes of patches, which MFU counts; `ViT.logits` and
        `ViT.embedding` of class tokens do not compute it."""
        return True

    def loss(self, net: Net, batch: Batch, now: Now) -> tuple[Float[Array, ""], Logs]:
        """The sum over a part of a batch, divided by `now.count`; and sums for the log, divided alike.

        A parameter that is a running average over the steps, as BatchNorm's statistics are, is given its value in this
        part by the log "averages", a dict of its path; the loss itself must not depend on it.
        """
        raise NotImplementedError

    def outputs(self, net: Net, batch: Batch) -> Rows:
        """What evaluation keeps of a batch: arrays [B ...]."""
        raise NotImplementedError

    def predictions(self, net: Net, batch: Batch) -> Rows:
        """The same of pictures alone, for `answers`: what the batch has of the truth is blank."""
        rows = self.outputs(net, batch)
        return {name: row for name, row in rows.items() if name not in self.needs}

    def answers(self, rows: Mapping[str, np.ndarray], labels: Labels, asked: Asked) -> list[Answer]:
        """What `fmjax predict` says of each picture, out of the rows of `predictions` and its "picture_size" (width,
        height). By default it is the rows themselves."""
        own = {name: row for name, row in rows.items() if name != PICTURE_SIZE}
        numbers = {name: _numbers(row) for name, row in own.items()}
        count = len(rows[PICTURE_SIZE])
        return [{name: row[i].tolist() for name, row in numbers.items()} for i in range(count)]

    def scores(self, rows: Mapping[str, np.ndarray], labels: Labels) -> dict[str, float]:
        """Numbers out of the rows of all examples, each once."""
        raise NotImplementedError

    def summary(
        self, scores: Mapping[str, float], rows: Mapping[str, np.ndarray], labels: Labels
    ) -> str:
        """The scores in words."""
        return self.words(scores)

    def words(self, numbers: Mapping[str, float]) -> str:
        """Scores or logs on one line: loss 0.31, accuracy 98.6%."""
        shown = [f"{name} {self._shown(name, value)}" for name, value in numbers.items()]
        return ", ".join(shown)

    def _shown(self, name: str, value: float) -> str:
        return f"{value:.1%}" if name in self.shares else f"{value:.4g}"

    def joined(self, net: Net) -> ViT:
        """What `fmjax.restore` returns and what is exported: the backbone, with what a ViT has room for."""
        return net["backbone"]

    def draw(self, rows: Mapping[str, np.ndarray], labels: Labels, folder: Path) -> None:
        """Pictures of an evaluation, into the run's folder."""


def _numbers(row: np.ndarray) -> np.ndarray:
    """Of a kind that JSON has: bfloat16 is none of numpy's own."""
    return row.astype(np.float32) if row.dtype.kind == "V" else row


def make(config: Any, views: Views) -> Task:
    """The task of some settings. Raises UsageError where its class has not what a task needs."""
    kind = _located(config.home)
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise UsageError(
            f"the home of {type(config).__name__} is {config.home!r}; it must be the task's class, as in "
            f"`home = MyTask`, which is a fmjax.tasks.task.Task"
        )
    # told before the weights are read: a base method would only be met at the first step
    lacking = [
        name
        for name in ("parts", "loss", "outputs", "scores")
        if getattr(kind, name) is getattr(Task, name)
    ]
    if lacking:
        raise UsageError(
            f"the task {kind.__name__} has no {' and no '.join(lacking)}; define them (docs/adding_a_task.md)"
        )
    return kind(config, views)


def _located(home: Any) -> Any:
    """The class behind "module:Class"; a class is itself."""
    import importlib

    if not isinstance(home, str) or ":" not in home:
        return home
    module, _, name = home.partition(":")
    return getattr(importlib.import_module(module), name)


def check_net(task: Task, net: Net) -> None:
    """Raises UsageError for parts that no run can train."""
    name = type(task).__name__
    if not isinstance(net, dict) or not isinstance(net.get("backbone"), ViT):
        found = sorted(net) if isinstance(net, dict) else type(net).__name__
        raise UsageError(
            f'{name}.parts returns {found}; the backbone must be among them, as {{"backbone": backbone, ...}}'
        )


def check_loss(task: Task, returned: Any) -> None:
    """Raises UsageError for what is no loss and logs. returned: arrays or their shapes."""
    name = type(task).__name__
    if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[1], dict):
        raise UsageError(
            f"{name}.loss returns {type(returned).__name__}; it must return (loss, {{name: number}})"
        )
    # averages are arrays of a parameter's shape; all else is a number for a row of metrics.jsonl
    loss, logs = returned
    numbers = {what: value for what, value in logs.items() if what != AVERAGES}
    for what, value in {"the loss": loss, **numbers}.items():
        if getattr(value, "shape", None) != ():
            shape = getattr(value, "shape", type(value).__name__)
            raise UsageError(
                f"{name}.loss gives {what} of shape {shape}; it must be one number: a sum / now.count"
            )


def _row_bytes(row: Any) -> int:
    return math.prod(row.shape[1:]) * np.dtype(row.dtype).itemsize


def check_scores(task: Task, scores: Any) -> None:
    """Raises UsageError for scores that cannot be written or compared."""
    name = type(task).__name__
    numbers = isinstance(scores, dict) and all(
        isinstance(value, int | float) for value in scores.values()
    )
    if not numbers:
        raise UsageError(
            f"{name}.scores returns {scores!r}; it must return {{name: float}}, of Python's numbers"
        )
    if task.watch and task.watch not in scores:
        raise UsageError(
            f"{name}.watch is {task.watch!r}; it must be one of its scores: {', '.join(scores)}"
        )


def check_rows(task: Task, rows: Mapping[str, Any], size: int) -> None:
    """Raises UsageError for outputs that are not one row an example."""
    if not isinstance(rows, dict):
        raise UsageError(
            f"{type(task).__name__}.outputs returns {type(rows).__name__}; it must return {{name: array}}"
        )
    for name, row in rows.items():
        shape = tuple(getattr(row, "shape", ()))
        if shape[:1] != (size,):
            raise UsageError(
                f"{type(task).__name__}.outputs gives {name!r} of shape {shape} for a batch of {size}; its first axis "
                f"must be the examples, one row each"
            )
    # the rows of all examples are kept until the end, so a large one is refused while it is only a shape
    total = sum(map(_row_bytes, rows.values()))
    if total > MAX_ROW:
        raise UsageError(
            f"{type(task).__name__}.outputs gives {total:,} bytes an example, which are gathered on the host; "
            f"give at most {MAX_ROW:,}"
        )
