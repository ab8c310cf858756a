"""The embedding of every image, and what its neighbours and a linear probe know of its class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from flax import nnx
from jaxtyping import Float

from fmjax.models.vit import ViT
from fmjax.tasks.task import Batch, Labels, Net, Rows, Task


class Embed(Task):
    """The pooled embedding of frozen weights; nothing is learned, and nothing scored."""

    needs = ("image",)
    watch = ""

    def parts(self, backbone: ViT, labels: Labels, rngs: nnx.Rngs) -> Net:
        return {"backbone": backbone}

    def outputs(self, net: Net, batch: Batch) -> Rows:
        rows = {"features": net["backbone"].embedding(batch["image"]).astype(np.float32)}
        # pictures without labels have embeddings all the same
        return rows | {"label": batch["label"]} if "label" in batch else rows

    def scores(self, rows: Mapping[str, np.ndarray], labels: Labels) -> dict[str, float]:
        return {}


def neighbours_accuracy(
    train: Float[np.ndarray, "N E"],
    labels: np.ndarray,
    asked: Float[np.ndarray, "M E"] | None,
    expected: np.ndarray,
    *,
    k: int,
) -> float:
    """Accuracy of the vote of the k nearest by cosine. asked: None asks each of `train` against all others."""
    from sklearn.neighbors import NearestNeighbors

    # brute force is exact, and a product of matrices; a tree gains nothing in hundreds of dimensions
    index = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(train)
    near = index.kneighbors(asked, return_distance=False)
    classes = int(labels.max()) + 1
    votes = np.stack([np.bincount(row, minlength=classes) for row in labels[near]])
    return float((votes.argmax(-1) == expected).mean())
