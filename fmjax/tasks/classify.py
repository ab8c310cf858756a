"""A class for every image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from fmjax.config.tasks import ClassifyConfig
from fmjax.models.heads import classifier_head
from fmjax.models.surgery import with_classifier
from fmjax.models.vit import ViT
from fmjax.report.figures import draw_confusion
from fmjax.tasks.task import Batch, Labels, Logs, Net, Now, Rows, Task


class Classify(Task):
    """A linear layer over the pooled tokens, the class token, the mean of the patches, or both."""

    config: ClassifyConfig
    watch = "accuracy"
    shares = frozenset({"accuracy", "macro_f1"})

    def parts(self, backbone: ViT, labels: Labels, rngs: nnx.Rngs) -> Net:
        head = classifier_head(backbone.spec, len(labels), self.config.classifier, rngs=rngs)
        return {"backbone": backbone, "head": head}

    def joined(self, net: Net) -> ViT:
        return with_classifier(net["backbone"], net["head"], self.config.classifier)

    def loss(self, net: Net, batch: Batch, now: Now) -> tuple[Float[Array, ""], Logs]:
        logits: Any = self.joined(net)(batch["image"], now.key).logits
        losses = cross_entropy(logits, batch["label"], self.config.label_smoothing)
        right = (logits.argmax(-1) == batch["label"]) * batch["weight"]
        loss = (losses * batch["weight"]).sum() / now.count
        return loss, {"accuracy": right.sum() / now.count}

    def outputs(self, net: Net, batch: Batch) -> Rows:
        return {"logits": self.joined(net)(batch["image"]).logits, "label": batch["label"]}

    def scores(self, rows: Mapping[str, np.ndarray], labels: Labels) -> dict[str, float]:
        return classifier_scores(rows["logits"], rows["label"])

    def summary(
        self, scores: Mapping[str, float], rows: Mapping[str, np.ndarray], labels: Labels
    ) -> str:
        present, over = len(np.unique(rows["label"])), ""
        if present < len(labels):
            over = f" over the {present} of {len(labels)} classes that have images"
        shares = f"accuracy {scores['accuracy']:.1%}, macro F1 {scores['macro_f1']:.1%}"
        return f"{shares}{over}, loss {scores['loss']:.4f}"

    def draw(self, rows: Mapping[str, np.ndarray], labels: Labels, folder: Path) -> None:
        draw_confusion(folder / "confusion.png", rows["label"], rows["logits"].argmax(-1), labels)


def cross_entropy(logits: Float[Array, "B K"], labels: Array, smoothing: float) -> Array:
    """Losses [B] against smoothed one-hot labels; labels [B]."""
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
    targets = optax.smooth_labels(one_hot, smoothing)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def classifier_scores(logits: Float[np.ndarray, "N K"], labels: np.ndarray) -> dict[str, float]:
    """Accuracy, macro F1 and cross entropy. Macro F1 is the mean over the classes that have images: one without has no
    F1, and would count as 0."""
    from sklearn.metrics import f1_score, log_loss

    predicted, present = logits.argmax(-1), np.unique(labels)
    # less the largest, no exp overflows; in float64, as the mean is over a whole set
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    shares = shifted / shifted.sum(-1, keepdims=True)
    macro_f1 = f1_score(labels, predicted, labels=present, average="macro")
    loss = log_loss(labels, shares, labels=range(logits.shape[1]))
    return {
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": float(macro_f1),
        "loss": float(loss),
    }
