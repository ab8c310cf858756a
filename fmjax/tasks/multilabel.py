"""Any number of classes for every image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from fmjax.config.tasks import MultiLabelConfig
from fmjax.data.example import Examples
from fmjax.errors import UsageError
from fmjax.models.heads import classifier_head
from fmjax.models.surgery import with_classifier
from fmjax.models.vit import ViT
from fmjax.specs import LogitReading
from fmjax.tasks.classify import binary_cross_entropy
from fmjax.tasks.mixing import mixed, of_both
from fmjax.tasks.scores import (
    DECIMALS,
    PER_CLASS,
    THRESHOLD,
    PerClass,
    likeliest,
    multi_label_scores,
    probabilities,
    said,
)
from fmjax.tasks.task import Answer, Asked, Batch, Labels, Logs, Net, Now, Rows, Task


class MultiLabel(Task):
    """A linear layer whose every output says of a class whether it is there.

    An example's "labels" are a number for each class, 1 where it is there and 0 where not [K].
    """

    config: MultiLabelConfig

    needs = ("image", "labels")
    watch = "mean_average_precision"
    shares = frozenset({"mean_average_precision", "macro_f1", "accuracy"})

    def learning_from(self, examples: Examples) -> MultiLabel:
        # a field that is no number for each class would only show as shapes that do not fit each other
        shape = np.shape(examples.fields["labels"](0))
        if shape != (len(examples.classes),):
            raise UsageError(
                f"an example's labels have the shape {shape}; there must be one number for each of the "
                f"{len(examples.classes)} classes"
            )
        return self

    def parts(self, backbone: ViT, labels: Labels, rngs: nnx.Rngs) -> Net:
        head = classifier_head(backbone.spec, len(labels), self.config.classifier, rngs=rngs)
        return {"backbone": backbone, "head": head}

    def joined(self, net: Net) -> ViT:
        return with_classifier(net["backbone"], net["head"], self.config.classifier)

    def sees_patches(self, net: Net) -> bool:
        return not net["backbone"].spec.of_class_tokens(self.config.classifier)

    def loss(self, net: Net, batch: Batch, now: Now) -> tuple[Float[Array, ""], Logs]:
        logits: Any = self.joined(net).logits(batch["image"], now.key)
        labels = of_both(lambda row: row.astype(jnp.float32), batch, labels="labels")
        # between two answers, half of what is spread goes to each
        smoothing = self.config.label_smoothing
        targets = (1 - smoothing) * labels + smoothing / 2
        losses = binary_cross_entropy(logits.astype(jnp.float32), targets)
        right = _agreement(logits, labels) * batch["weight"]
        loss = (losses * batch["weight"]).sum() / now.count
        return loss, {"accuracy": right.sum() / now.count}

    def mixed(self, batch: Batch, key: Array) -> Batch:
        return mixed(batch, key, self.config, labels="labels")

    def outputs(self, net: Net, batch: Batch) -> Rows:
        return {"logits": self.joined(net).logits(batch["image"]), "labels": batch["labels"]}

    @property
    def reading(self) -> LogitReading:
        return "sigmoid"

    def answers(self, rows: Mapping[str, np.ndarray], labels: Labels, asked: Asked) -> list[Answer]:
        """The classes that are said to be there, the likeliest first, each with its probability."""
        return [_said(row, labels, asked) for row in probabilities(rows["logits"], self.reading)]

    def scores(self, rows: Mapping[str, np.ndarray], labels: Labels) -> dict[str, float]:
        return multi_label_scores(rows["logits"], rows["labels"])

    def summary(
        self, scores: Mapping[str, float], rows: Mapping[str, np.ndarray], labels: Labels
    ) -> str:
        each, over = per_class(rows, labels), ""
        present = np.count_nonzero(each.images)
        if present < len(labels):
            over = f" over the {present} of {len(labels)} classes that are on an image"
        shares = f"mAP {scores['mean_average_precision']:.1%}, macro F1 {scores['macro_f1']:.1%}"
        return f"{shares}{over}, loss {scores['loss']:.4f}; lowest F1 {each.worst(labels)}"

    def draw(self, rows: Mapping[str, np.ndarray], labels: Labels, folder: Path) -> None:
        per_class(rows, labels).write(folder / PER_CLASS, labels)


def _said(shares: Float[np.ndarray, " K"], labels: Labels, asked: Asked) -> Answer:
    order = [i for i in likeliest(shares, len(shares)) if shares[i] > asked.threshold]
    return {
        "classes": [labels[i] for i in order],
        "probabilities": shares[order].round(DECIMALS).tolist(),
    }


def per_class(rows: Mapping[str, np.ndarray], labels: Labels) -> PerClass:
    """Scores of each class, out of the rows of all examples."""
    return PerClass.of(rows["labels"] > THRESHOLD, said(rows["logits"]), len(labels))


def _agreement(logits: Float[Array, "B K"], labels: Float[Array, "B K"]) -> Float[Array, " B"]:
    """The share of an example's classes that are said rightly to be there or not."""
    right = (logits > 0) == (labels > THRESHOLD)
    return right.mean(-1, dtype=jnp.float32)
