"""A class for every image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from fmjax.config.tasks import ClassifyConfig
from fmjax.data.example import Examples
from fmjax.errors import UsageError
from fmjax.models.heads import classifier_head
from fmjax.models.surgery import with_classifier
from fmjax.models.vit import ViT
from fmjax.report.figures import draw_confusion
from fmjax.specs import LogitReading
from fmjax.tasks.mixing import mixed, of_both
from fmjax.tasks.scores import (
    DECIMALS,
    PER_CLASS,
    PerClass,
    classifier_scores,
    likeliest,
    probabilities,
)
from fmjax.tasks.task import Answer, Asked, Batch, Labels, Logs, Net, Now, Rows, Task

LATER = ("top5", "calibration_error")  # scores that no line of a step says


@dataclass(frozen=True)
class Classify(Task):
    """A linear layer over the pooled tokens, the class token, the mean of the patches, or both.

    weights: factors of the losses of each class's images; none where all count alike.
    """

    config: ClassifyConfig
    weights: tuple[float, ...] = ()

    watch = "accuracy"
    shares = frozenset({"accuracy", "macro_f1", "top5", "calibration_error"})

    def learning_from(self, examples: Examples) -> Classify:
        return replace(self, weights=class_weights(self.config, examples))

    def parts(self, backbone: ViT, labels: Labels, rngs: nnx.Rngs) -> Net:
        head = classifier_head(backbone.spec, len(labels), self.config.classifier, rngs=rngs)
        return {"backbone": backbone, "head": head}

    def joined(self, net: Net) -> ViT:
        return with_classifier(net["backbone"], net["head"], self.config.classifier)

    def mixed(self, batch: Batch, key: Array) -> Batch:
        return mixed(batch, key, self.config, labels="label")

    def sees_patches(self, net: Net) -> bool:
        return not net["backbone"].spec.of_class_tokens(self.config.classifier)

    def loss(self, net: Net, batch: Batch, now: Now) -> tuple[Float[Array, ""], Logs]:
        logits: Any = self.joined(net).logits(batch["image"], now.key)
        smoothing = self.config.label_smoothing

        def targets(labels: Array) -> Array:
            return smoothed(labels, logits.shape[-1], smoothing)

        loss_of = partial(LOSSES[self.config.loss], logits.astype(jnp.float32))

        def weighed(labels: Array) -> Array:
            return loss_of(targets(labels)) * self.weights_of(labels)

        # of a mixture each class's own loss has its own weight; without weights the mean of the targets is as good
        losses = (
            of_both(weighed, batch, labels="label")
            if self.weights
            else loss_of(of_both(targets, batch, labels="label"))
        )
        found = logits.argmax(-1)
        # of a mixture the part of the class that was found
        right = of_both(lambda labels: found == labels, batch, labels="label")
        right = right * batch["weight"]
        loss = (losses * batch["weight"]).sum() / now.count
        return loss, {"accuracy": right.sum() / now.count}

    def weights_of(self, labels: Array) -> Float[Array, " B"]:
        """The factors of the classes of some labels."""
        # a product, as a look-up would be a gather
        one_hot = jax.nn.one_hot(labels, len(self.weights), dtype=jnp.float32)
        return one_hot @ jnp.asarray(self.weights, jnp.float32)

    def outputs(self, net: Net, batch: Batch) -> Rows:
        return {"logits": self.joined(net).logits(batch["image"]), "label": batch["label"]}

    @property
    def reading(self) -> LogitReading:
        # what was trained is what the logits are
        return "sigmoid" if self.config.loss == "bce" else "softmax"

    def answers(self, rows: Mapping[str, np.ndarray], labels: Labels, asked: Asked) -> list[Answer]:
        """The likeliest class, and the first few, each with its probability."""
        return [_said(row, labels, asked) for row in probabilities(rows["logits"], self.reading)]

    def scores(self, rows: Mapping[str, np.ndarray], labels: Labels) -> dict[str, float]:
        return classifier_scores(rows["logits"], rows["label"], self.config.loss)

    def words(self, numbers: Mapping[str, float]) -> str:
        # the lines of steps are short: the others stand in metrics.jsonl and the last line
        return super().words({name: numbers[name] for name in numbers if name not in LATER})

    def summary(
        self, scores: Mapping[str, float], rows: Mapping[str, np.ndarray], labels: Labels
    ) -> str:
        each, over = per_class(rows, labels), ""
        present = np.count_nonzero(each.images)
        if present < len(labels):
            over = f" over the {present} of {len(labels)} classes that have images"
        shares = f"accuracy {scores['accuracy']:.1%}, macro F1 {scores['macro_f1']:.1%}"
        more = f"top-5 {scores['top5']:.1%}, calibration error {scores['calibration_error']:.1%}"
        return f"{shares}{over}, loss {scores['loss']:.4f}, {more}; lowest F1 {each.worst(labels)}"

    def draw(self, rows: Mapping[str, np.ndarray], labels: Labels, folder: Path) -> None:
        draw_confusion(folder / "confusion.png", rows["label"], rows["logits"].argmax(-1), labels)
        per_class(rows, labels).write(folder / PER_CLASS, labels)


def _said(shares: Float[np.ndarray, " K"], labels: Labels, asked: Asked) -> Answer:
    order = likeliest(shares, asked.top)
    classes, known = [labels[i] for i in order], shares[order].round(DECIMALS).tolist()
    first = {"class": classes[0], "probability": known[0]}
    return {**first, "classes": classes, "probabilities": known}


def per_class(rows: Mapping[str, np.ndarray], labels: Labels) -> PerClass:
    """Scores of each class, out of the rows of all examples."""
    return PerClass.of(rows["label"], rows["logits"].argmax(-1), len(labels))


def class_weights(config: ClassifyConfig, examples: Examples) -> tuple[float, ...]:
    """Factors of the losses of each class's images; none where all count alike.

    Balanced ones are scikit-learn's, N / (classes with images * images of the class), whose mean over the images is 1;
    a class without images has 0. Raises UsageError for a list of another length.
    """
    asked, classes = config.class_weights, examples.classes
    if asked == "none":
        return ()
    # of the images that are trained on, which the run's record keeps: a resumed run has the same
    if asked == "balanced":
        counts = np.bincount(examples.labels, minlength=len(classes))
        present = np.count_nonzero(counts)
        weights = len(examples) / (present * np.maximum(counts, 1))
        return tuple(np.where(counts > 0, weights, 0).tolist())
    if len(asked) != len(classes):
        raise UsageError(
            f"--task.class-weights has {len(asked)} numbers; it must have {len(classes)}, one for each class in the "
            f"order of their names, or be 'balanced'"
        )
    return asked


def smoothed(labels: Array, classes: int, smoothing: float) -> Float[Array, "B K"]:
    """One-hot targets, a share of which is spread over all classes."""
    one_hot = jax.nn.one_hot(labels, classes, dtype=jnp.float32)
    return optax.smooth_labels(one_hot, smoothing)


def binary_cross_entropy(
    logits: Float[Array, "B K"], targets: Float[Array, "B K"]
) -> Float[Array, " B"]:
    """Of each example the mean over the classes, as timm's BinaryCrossEntropy."""
    return optax.sigmoid_binary_cross_entropy(logits, targets).mean(-1)


LOSSES: Any = {"cross_entropy": optax.softmax_cross_entropy, "bce": binary_cross_entropy}
