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

from fmjax.config import DataConfig, EvalConfig
from fmjax.console import console
from fmjax.data.pipeline import BadImages, eval_batches, to_devices
from fmjax.data.sources import Source, open_source
from fmjax.errors import DataError
from fmjax.params import Apply, Params, functional
from fmjax.preprocessing import PreprocessConfig, normalise
from fmjax.sharding import batch_divisor, batch_sharding, make_mesh, replicated

Predict = Callable[[Params, jax.Array], Any]


@dataclass(frozen=True)
class Scores:
    """labels [N], logits [N, K] of every readable image, once."""

    labels: np.ndarray
    logits: np.ndarray

    @cached_property
    def predictions(self) -> np.ndarray:
        return self.logits.argmax(-1)

    @property
    def accuracy(self) -> float:
        return float((self.predictions == self.labels).mean())

    @property
    def macro_f1(self) -> float:
        from sklearn.metrics import f1_score

        return float(f1_score(self.labels, self.predictions, average="macro"))

    @property
    def loss(self) -> float:
        from sklearn.metrics import log_loss

        shifted = np.exp(self.logits.astype(np.float64) - self.logits.max(-1, keepdims=True))
        return float(
            log_loss(self.labels, shifted / shifted.sum(-1, keepdims=True), labels=range(self.logits.shape[1]))
        )

    @property
    def summary(self) -> str:
        count = len(self.labels)
        return (
            f"val     accuracy {self.accuracy:.1%}, macro F1 {self.macro_f1:.1%}, loss {self.loss:.4f} ({count} images)"
        )


def predict_step(apply: Apply, preprocess: PreprocessConfig, mesh: Mesh) -> Predict:
    """Parameters and uint8 images -> logits."""
    return jax.jit(
        lambda params, images: apply(params, normalise(images, preprocess)).logits, out_shardings=replicated(mesh)
    )


def evaluate(
    predict: Predict,
    params: Params,
    source: Source,
    data: DataConfig,
    preprocess: PreprocessConfig,
    mesh: Mesh,
    *,
    batch_size: int,
) -> Scores:
    """The scores over a source; they do not depend on the batch size or the devices."""
    rows, labels, bad = [], [], BadImages(source, data.max_bad)
    for batch in eval_batches(source, data, preprocess, batch_size=batch_size):
        for name in bad.add(batch):
            console.print(f"unreadable image left out: {name}")
        real = batch["weight"] > 0
        rows.append(np.asarray(predict(params, to_devices(batch, batch_sharding(mesh))["image"]))[real])
        labels.append(batch["label"][real])
    found = Scores(np.concatenate(labels), np.concatenate(rows))
    if not len(found.labels):
        raise DataError("none of the validation images can be read")
    return found


def main(run: str, config: EvalConfig) -> Scores:
    """Prints and returns the scores of a run."""
    from fmjax.run import preprocessing, read_run, restore

    trained, classes = read_run(Path(run))
    mesh = make_mesh()
    data = replace(trained.data, source=config.source) if config.source else trained.data
    source = open_source(data).both(data.val_fraction, data.split_seed)[1]
    if source.classes != classes:
        raise DataError(f"{data.source} has the classes {list(source.classes)}; the run was trained on {list(classes)}")
    model = restore(run, None if config.step < 0 else config.step, mesh=mesh)
    apply, params = functional(model)
    preprocess = preprocessing(trained)
    predict = predict_step(apply, preprocess, mesh)
    size = -(-config.batch_size // batch_divisor(mesh)) * batch_divisor(mesh)
    scores = evaluate(predict, params, source, data, preprocess, mesh, batch_size=size)
    console.print(scores.summary)
    return scores
