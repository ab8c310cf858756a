"""A model's answers about pictures whose truth nobody knows: of a few at once, and of any number in a stream."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float
from PIL import Image

from fmjax.config.data import ImagesConfig
from fmjax.data.batches import Batch, eval_batches, unreadable
from fmjax.data.example import Examples
from fmjax.data.images import Picture
from fmjax.data.unlabelled import PICTURE_SIZE, Unlabelled, check_needs
from fmjax.engine.evaluate import NotFinite, divisible
from fmjax.engine.placement import on_mesh
from fmjax.engine.plan import Learner, prepared
from fmjax.errors import UsageError
from fmjax.models.vit import ViT
from fmjax.preprocessing import preprocess
from fmjax.sharding import batch_sharding, replicated
from fmjax.specs import ModelFacts
from fmjax.tasks.scores import likeliest, probabilities
from fmjax.tasks.task import Answer, Asked, Rows
from fmjax.trees import Params

AT_ONCE = 32  # pictures


@dataclass(frozen=True)
class Prediction:
    """The classes of a picture, the likeliest first: their names, probabilities and places among the outputs.

    Where nobody has named the classes, as those of most published classifiers, the names are the places.
    """

    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    indices: tuple[int, ...]


def predict(
    model: ViT, images: Picture | Iterable[Picture], *, top: int = 5
) -> Prediction | list[Prediction]:
    """The likeliest classes of a picture (a path, file contents, a PIL image, a uint8 array [H W 3] or [H W]), or of
    each of several.

    top: how many; all where there are fewer. Raises UsageError for a model that has no classifier, or of which nobody
    knows what it is shown; DataError, naming the picture and the reason, for what cannot be read.
    """
    facts = _facts(model)
    if top < 1:
        raise UsageError(f"top={top}: it must be 1 or more")
    if _is_one(images):
        return _predicted(model, [images], facts, top)[0]
    found, waiting = [], iter(images)  # type: ignore[arg-type]
    while some := list(itertools.islice(waiting, AT_ONCE)):
        found += _predicted(model, some, facts, top)
    return found


def _is_one(images: Any) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim in (2, 3)
    return isinstance(images, (str, Path, bytes, Image.Image))


def _facts(model: ViT) -> ModelFacts:
    if model.classifier is None:
        raise UsageError(
            f"{model.spec.name} has no classifier, so it has no classes; take a run's model (fmjax.restore), or a "
            f"published classifier, as augreg_vit_base_patch16_224.augreg_in1k; `fmjax predict RUN` runs other tasks"
        )
    if model.facts is None:
        raise UsageError(
            f"what the classifier of {model.spec.name} is shown and what its outputs mean is not known: it is not of "
            f"a run or of published weights; set model.facts = fmjax.ModelFacts(images=..., classes=...)"
        )
    return model.facts


def _predicted(
    model: ViT, pictures: Sequence[Any], facts: ModelFacts, top: int
) -> list[Prediction]:
    images = _filled(preprocess(pictures, facts.images), model.mesh)
    logits = np.asarray(_logits(model, images), np.float32)[: len(pictures)]
    if not np.isfinite(logits).all():
        raise NotFinite("the network's 'logits' are not finite")
    return [_said(row, facts.classes, top) for row in probabilities(logits, facts.reading)]


@jax.jit
def _logits(model: ViT, images: Float[Array, "B H W C"]) -> Any:
    return model.logits(images)


def _filled(images: Float[Array, "B H W C"], mesh: Mesh | None) -> Float[Array, "N H W C"]:
    """With black pictures behind them up to a power of two, and over the devices."""
    # a program is compiled for each number of pictures: so there are few of them
    size = 1 << (len(images) - 1).bit_length()
    if mesh is not None:
        size = divisible(size, mesh)
    whole = jnp.pad(images, ((0, size - len(images)), (0, 0), (0, 0), (0, 0)))
    return whole if mesh is None else jax.device_put(whole, batch_sharding(mesh))


def _said(shares: np.ndarray, classes: tuple[str, ...], top: int) -> Prediction:
    order = likeliest(shares, top).tolist()
    names = tuple(classes[i] for i in order) if classes else tuple(map(str, order))
    return Prediction(names, tuple(shares[order].tolist()), tuple(order))


@dataclass(frozen=True)
class Answered:
    """One picture: its place in the set, and what is said of it; or, where it could not be read, why."""

    index: int
    answer: Answer
    error: str = ""


def answered(
    learner: Learner,
    params: Params,
    examples: Examples,
    mesh: Mesh,
    *,
    asked: Asked,
    data: ImagesConfig,
    batch_size: int,
) -> Iterator[list[Answered]]:
    """What is said of every picture, a batch at a time and in order. No more than a few batches are in memory.

    An unreadable picture's answer is that of a blank one, for its columns, and has an error. Raises UsageError for a
    task that a picture alone is not enough for.
    """
    task = learner.task
    check_needs(task.needs, type(task).__name__)
    outputs = _compiled(learner, mesh)
    view = Unlabelled(task.viewer, tuple(task.needs), len(learner.labels))
    size = divisible(batch_size, mesh)
    batches = eval_batches(examples, view, data, batch_size=size)
    # the devices work on a batch while what they said of the one before it is put into words
    last: tuple[Batch, Rows] | None = None
    for batch in batches:
        rows = outputs(params, on_mesh(batch, mesh))
        if last is not None:
            yield _worded(learner, asked, *last)
        last = (batch, rows)
    if last is not None:
        yield _worded(learner, asked, *last)


def _compiled(learner: Learner, mesh: Mesh) -> Any:
    def outputs(params: Params, batch: Mapping[str, Array]) -> Rows:
        net = learner.bound(params)
        rows = learner.task.predictions(net, prepared(dict(batch), learner.images))
        return {**rows, PICTURE_SIZE: batch[PICTURE_SIZE]}

    return jax.jit(outputs, out_shardings=replicated(mesh))


def _worded(learner: Learner, asked: Asked, batch: Batch, rows: Rows) -> list[Answered]:
    found = {name: np.asarray(row) for name, row in rows.items()}
    errors = {**_not_finite(found, batch["index"]), **unreadable(batch)}
    # what is no number cannot be put into words: the picture has an error in its place
    wrong = [place for place, index in enumerate(batch["index"].tolist()) if index in errors]
    clean = {name: _without(row, wrong) for name, row in found.items()}
    # a blank has no size, and a mask of none could not be made
    clean[PICTURE_SIZE] = np.maximum(clean[PICTURE_SIZE], 1)
    answers = learner.task.answers(clean, learner.labels, asked)
    pairs = zip(batch["index"].tolist(), answers, strict=True)
    return [Answered(i, answer, errors.get(i, "")) for i, answer in pairs if i >= 0]


def _without(row: np.ndarray, places: Sequence[int]) -> np.ndarray:
    """The row with zeros at some places, in a copy."""
    if not len(places) or not jnp.issubdtype(row.dtype, jnp.floating):
        return row
    out = row.copy()
    out[list(places)] = 0
    return out


def _not_finite(rows: Mapping[str, np.ndarray], index: np.ndarray) -> dict[int, str]:
    """The pictures of which the network says infinity or NaN."""
    found: dict[int, str] = {}
    for name, row in rows.items():
        if not jnp.issubdtype(row.dtype, jnp.floating):
            continue
        wrong = np.flatnonzero(~np.isfinite(row).reshape(len(row), -1).all(1))
        told = f"the network's {name!r} are not finite; take another --step, or compute in float32"
        found |= dict.fromkeys(index[wrong].tolist(), told)
    return found
