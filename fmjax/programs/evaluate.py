"""Scores of a classifier, and `fmjax eval`: a run on the validation part of its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fmjax.config.data import DataConfig
from fmjax.config.run import EvalConfig
from fmjax.console import console
from fmjax.data import audit
from fmjax.data.batches import BadImages, eval_batches
from fmjax.data.example import Examples, check_fields
from fmjax.data.sources import open_source
from fmjax.data.split import UNRECORDED, Split, examples, held_out, is_recorded, joined, relabelled, trained_on
from fmjax.data.transforms import Views
from fmjax.engine.placement import on_mesh
from fmjax.engine.records import same_source, split_of
from fmjax.errors import DataError
from fmjax.models.functional import Apply, functional
from fmjax.preprocessing import PreprocessConfig, normalise
from fmjax.sharding import batch_divisor, make_mesh, replicated
from fmjax.trees import Params

Predict = Callable[[Params, jax.Array], Any]


@dataclass(frozen=True)
class Scores:
    """labels [N], logits [N, K] of every readable image, once; and how many more could not be read."""

    labels: np.ndarray
    logits: np.ndarray
    unreadable: int = 0

    @cached_property
    def predictions(self) -> np.ndarray:
        return self.logits.argmax(-1)

    @property
    def accuracy(self) -> float:
        return float((self.predictions == self.labels).mean())

    @property
    def present(self) -> np.ndarray:
        """The classes that have images."""
        return np.unique(self.labels)

    @property
    def macro_f1(self) -> float:
        """The mean over the classes that are present: one without images has no F1, and would count as 0."""
        from sklearn.metrics import f1_score

        return float(f1_score(self.labels, self.predictions, labels=self.present, average="macro"))

    @property
    def loss(self) -> float:
        from sklearn.metrics import log_loss

        shifted = np.exp(self.logits.astype(np.float64) - self.logits.max(-1, keepdims=True))
        return float(
            log_loss(self.labels, shifted / shifted.sum(-1, keepdims=True), labels=range(self.logits.shape[1]))
        )

    @property
    def line(self) -> str:
        """The scores on the way."""
        return f"val loss {self.loss:.4g}  val accuracy {self.accuracy:.1%}"

    @property
    def summary(self) -> str:
        present, classes = len(self.present), self.logits.shape[1]
        over = f" over the {present} of {classes} classes that have images" if present < classes else ""
        out = f", {self.unreadable:,} unreadable ones left out" if self.unreadable else ""
        return (
            f"val     accuracy {self.accuracy:.1%}, macro F1 {self.macro_f1:.1%}{over}, loss {self.loss:.4f} "
            f"({len(self.labels)} images{out})"
        )


def predict_step(apply: Apply, preprocess: PreprocessConfig, mesh: Mesh) -> Predict:
    """Parameters and uint8 images -> logits."""
    return jax.jit(
        lambda params, images: apply(params, normalise(images, preprocess)).logits, out_shardings=replicated(mesh)
    )


def evaluate(
    predict: Predict,
    params: Params,
    source: Examples,
    data: DataConfig,
    preprocess: PreprocessConfig,
    mesh: Mesh,
    *,
    batch_size: int,
) -> Scores:
    """The scores over a source; they do not depend on the batch size or the devices."""
    rows, labels, bad = [], [], BadImages(source, data.max_bad)
    for batch in eval_batches(source, Views(preprocess), data, batch_size=batch_size):
        for name in bad.add(batch):
            console.print(f"unreadable image left out: {name}")
        real = batch["weight"] > 0
        rows.append(np.asarray(predict(params, on_mesh(batch, mesh)["image"]))[real])
        labels.append(batch["label"][real])
    found = Scores(np.concatenate(labels), np.concatenate(rows), len(bad.indices))
    if not len(found.labels):
        raise DataError("none of the validation images can be read")
    return found


def main(run: str, config: EvalConfig) -> Scores:
    """Prints what is scored, and the scores of a run, and returns them."""
    from fmjax.engine.run import preprocessing, read_run, restore

    trained, classes = read_run(Path(run))
    mesh = make_mesh()
    data = replace(trained.data, source=config.source) if config.source else trained.data
    source, told = scored(Path(run), data, trained.data, classes)
    for line in told:
        console.print(line)
    model = restore(run, None if config.step < 0 else config.step, mesh=mesh)
    apply, params = functional(model)
    preprocess = preprocessing(trained, model.spec)
    predict = predict_step(apply, preprocess, mesh)
    size = -(-config.batch_size // batch_divisor(mesh)) * batch_divisor(mesh)
    scores = evaluate(predict, params, source, data, preprocess, mesh, batch_size=size)
    console.print(scores.summary)
    return scores


def scored(run: Path, data: DataConfig, trained: DataConfig, classes: tuple[str, ...]) -> tuple[Examples, list[str]]:
    """What `fmjax eval` scores, and the lines that say so: the images that the run held out, or those of another
    source."""
    split, own = split_of(run, classes), same_source(data, trained)
    # the run's own data must be what they were; other data may have fewer classes, but no others
    splits = open_source(data, None if own else classes)
    check_fields(splits.train, ("image", "label"), source=data.source)
    said = audit.lines(splits, splits.train, splits.val)
    if split is None and own:
        val = known(splits.both(data.val_fraction, data.split_seed)[1], data, classes)
        return val, [*said, f"note    {UNRECORDED}", f"scored  {data.source}, a held-out part: {len(val):,} images"]
    everything = relabelled(joined(splits), classes)
    if split is not None and (own or is_recorded(everything, data, split)):
        source, told = own_images(everything, data, split)
        return source, said + told
    source = known(splits.train if splits.val is None else splits.val, data, classes)
    part = "all of it" if splits.val is None else "its held-out part"
    count = f"{len(source):,} images of {len(np.unique(source.labels))} classes"
    told = [f"scored  {data.source}, {part}: {count}"]
    seen = [] if split is None else trained_on(source, data.source, split)
    if seen:
        known_ones = f"{len(seen):,} of them have the name and size of images that the run was trained on"
        told.append(f"note    {known_ones} ({examples(seen)})")
    return source, said + told


def own_images(everything: Examples, data: DataConfig, split: Split) -> tuple[Examples, list[str]]:
    """The images that a run held out, and how the data have changed since."""
    source, changes = held_out(everything, data, split)
    told = [f"scored  {data.source}, the images that the run held out: {len(source):,}"]
    if str(changes):
        told.insert(0, f"note    {data.source} has changed since the run was made: {changes}")
    return source, told


def known(source: Examples, data: DataConfig, classes: tuple[str, ...]) -> Examples:
    """The images with the labels of a run. Raises DataError, by name, for classes that it does not know."""
    out = relabelled(source, classes)
    unknown = [source.classes[i] for i in np.unique(source.labels[out.labels < 0])]
    if unknown:
        raise DataError(
            f"{data.source} has {len(unknown)} classes that the run was not trained on: "
            f"{examples(unknown)}; it knows {examples(classes)}; rename the folders, or leave them out"
        )
    return out
