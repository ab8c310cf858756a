"""A class for every pixel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Integer, UInt8

from fmjax.config.tasks import SegmentConfig
from fmjax.data.example import Example
from fmjax.data.masks import IGNORED
from fmjax.data.resizing import Size, contained, nearest
from fmjax.data.transforms import fit_inside, scale_jitter_crop
from fmjax.data.unlabelled import PICTURE_SIZE
from fmjax.errors import DataError
from fmjax.models.dense import BatchNorm, dense_head, patch_features, statistics, to_pixels
from fmjax.models.vit import ViT
from fmjax.report.segments import draw_segments
from fmjax.specs import PreprocessConfig
from fmjax.tasks.scores import DECIMALS
from fmjax.tasks.task import AVERAGES, Answer, Asked, Batch, Labels, Logs, Net, Now, Rows, Task

FEW = 10  # classes whose scores are all said
WORST = 3  # that are said of more
THUMBNAIL = 40  # pixels of the longer side


class Segment(Task):
    """A linear layer over the patches of some layers, whose logits are brought to the pixels (arXiv:2304.07193 sec.
    7.4). The authors' has a BatchNorm before it (`--task.head batch_norm`); the patches are those after the final norm.

    Training sees random crops of randomly scaled pictures; evaluation sees all of every picture once, scaled to fit,
    and scores are of the pixels of the scaled picture.
    """

    config: SegmentConfig

    needs = ("image", "mask")
    watch = "miou"
    shares = frozenset({"miou", "pixel_accuracy"})

    def view(self, example: Example, rng: np.random.Generator | None) -> Example:
        if rng is None:
            return fit_inside(example, self.views.images)
        seen = scale_jitter_crop(example, self.views.images, rng, jitter=self.config.scales)
        return self.views.varied(seen, rng)

    def parts(self, backbone: ViT, labels: Labels, rngs: nnx.Rngs) -> Net:
        head = dense_head(backbone.spec, self.config.layers, len(labels), rngs=rngs)
        if self.config.head == "linear":
            return {"backbone": backbone, "head": head}
        return {"backbone": backbone, "norm": BatchNorm(head.kernel.shape[0]), "head": head}

    def logits(self, net: Net, batch: Batch) -> Float[Array, "B H W K"]:
        """Of every pixel of the masks, in evaluation."""
        patches = patch_features(net["backbone"], batch["image"], self.config.layers)
        if "norm" in net:
            norm = net["norm"]
            patches = norm(patches, norm.mean[...], norm.var[...])
        return _of_pixels(net, patches, batch)

    def training_logits(
        self, net: Net, batch: Batch, key: Array
    ) -> tuple[Float[Array, "B H W K"], Logs]:
        """The same with drop path and the batch's own statistics, and what of them is averaged over the steps."""
        patches = patch_features(net["backbone"], batch["image"], self.config.layers, key=key)
        averages = {}
        if "norm" in net:
            mean, var, of_sample = statistics(patches.astype(jnp.float32), batch["weight"])
            patches = net["norm"](patches, mean, var)
            averages = {"norm.mean": mean, "norm.var": of_sample}
        return _of_pixels(net, patches, batch), averages

    def count(self, batch: Batch) -> Float[Array, ""]:
        """The pixels that are of a class; those of unreadable images are not."""
        return jnp.maximum((batch["mask"] != IGNORED).sum(dtype=jnp.float32), 1.0)

    def loss(self, net: Net, batch: Batch, now: Now) -> tuple[Float[Array, ""], Logs]:
        logits, averages = self.training_logits(net, batch, now.key)
        right = logits.argmax(-1) == batch["mask"]  # an ignored pixel's number is no class's
        losses = pixel_losses(logits, batch["mask"])
        return losses.sum() / now.count, {
            "pixel_accuracy": right.sum(dtype=jnp.float32) / now.count,
            AVERAGES: averages,
        }

    def outputs(self, net: Net, batch: Batch) -> Rows:
        logits = self.logits(net, batch)
        found = logits.argmax(-1)
        rows = {
            "overlap": overlap(found, batch["mask"], classes=logits.shape[-1]),
            "loss": pixel_losses(logits, batch["mask"]).sum((1, 2)),
        }
        return rows | self.thumbnails(batch, found, classes=logits.shape[-1])

    def predictions(self, net: Net, batch: Batch) -> Rows:
        # a class for every pixel of the network's image: far more than a row of scores may have, and gone when written
        logits = self.logits(net, batch)
        dtype = np.uint8 if logits.shape[-1] <= 256 else np.uint16
        return {"found": logits.argmax(-1).astype(dtype)}

    def answers(self, rows: Mapping[str, np.ndarray], labels: Labels, asked: Asked) -> list[Answer]:
        """A mask in the size of the picture, whose values are the classes, and the share of the pixels of each class
        that is there, the largest first."""
        sizes = rows[PICTURE_SIZE].tolist()
        return [
            _said(found, (width, height), labels)
            for found, (width, height) in zip(rows["found"], sizes, strict=True)
        ]

    def thumbnails(self, batch: Batch, found: Integer[Array, "B H W"], *, classes: int) -> Rows:
        """Small pictures, and their true and found classes, the largest number where there is none: 8 kB a row, or 11
        with 256 classes and more."""
        dtype = np.uint8 if classes < 256 else np.uint16
        longer = max(found.shape[1:])
        rows, columns = (_centres(side, longer) for side in found.shape[1:])
        places = np.ix_(np.arange(len(found)), rows, columns)
        # a batch's mark of pixels of no class does not fit a byte
        mask, nothing = batch["mask"], np.iinfo(dtype).max
        true = jnp.where(mask == IGNORED, nothing, mask)
        shape = (len(found), rows.size, columns.size, 3)
        small = jax.image.resize(batch["image"], shape, "linear")
        return {
            "picture": as_bytes(small, self.views.images),
            "true": true[places].astype(dtype),
            "found": found[places].astype(dtype),
        }

    def scores(self, rows: Mapping[str, np.ndarray], labels: Labels) -> dict[str, float]:
        """Mean IoU over the classes that have pixels: one without would count as 0 or as 1. Raises DataError where none
        has."""
        both, _, true = rows["overlap"].sum(0, dtype=np.int64).T
        if not true.any():
            raise DataError(
                f"no pixel of the {len(rows['overlap'])} images is of a class, so there is nothing to score; "
                f"pass masks with classes, or another --data.ignore"
            )
        return {
            "miou": float(ious(rows["overlap"])[true > 0].mean()),
            "pixel_accuracy": float(both.sum() / true.sum()),
            "loss": float(rows["loss"].sum(dtype=np.float64) / true.sum()),
        }

    def summary(
        self, scores: Mapping[str, float], rows: Mapping[str, np.ndarray], labels: Labels
    ) -> str:
        iou = ious(rows["overlap"])
        present = np.flatnonzero(rows["overlap"].sum(0)[:, 2])
        over = ""
        if len(present) < len(labels):
            over = f" (over the {len(present)} of {len(labels)} classes that have pixels)"
        # all of a few, of many those that need to be looked at
        said, chosen = "IoU", present
        if len(present) > FEW:
            order = np.argsort(iou[present], kind="stable")
            said, chosen = "worst IoU", present[order[:WORST]]
        listed = ", ".join(f"{labels[i]} {iou[i]:.1%}" for i in chosen)
        return f"{self.words(scores)}{over}; {said} {listed}"

    def draw(self, rows: Mapping[str, np.ndarray], labels: Labels, folder: Path) -> None:
        draw_segments(folder / "predictions.png", rows, labels)


def _of_pixels(net: Net, patches: Float[Array, "B h w I"], batch: Batch) -> Array:
    """The head's logits of the patches, brought to the pixels of the batch's masks [B H W K]."""
    height, width = batch["mask"].shape[1:]
    return to_pixels(net["head"](patches), height, width)


def pixel_losses(
    logits: Float[Array, "B H W K"], mask: Integer[Array, "B H W"]
) -> Float[Array, "B H W"]:
    """Cross entropies in float32, 0 where a pixel is of no class."""
    # an ignored pixel's row of the one-hot targets is all zeros, and so is its loss; picking logits by their number
    # would be a gather, whose gradient is a scatter
    target: Any = jax.nn.one_hot(mask, logits.shape[-1], dtype=jnp.float32)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), target)


def overlap(
    found: Integer[Array, "B H W"], mask: Integer[Array, "B H W"], *, classes: int
) -> Integer[Array, "B K 3"]:
    """Pixels of each class: found and true, found, true. Those of no class are in none of the three."""
    known, numbers = mask != IGNORED, jnp.arange(classes)
    is_found = (found[..., None] == numbers) & known[..., None]  # B H W K
    is_true = mask[..., None] == numbers
    kinds = (is_found & is_true, is_found, is_true)
    return jnp.stack([kind.sum((1, 2), dtype=jnp.int32) for kind in kinds], -1)


def as_bytes(images: Float[Array, "B H W C"], config: PreprocessConfig) -> UInt8[Array, "B H W C"]:
    """Normalised pictures as they were."""
    mean, std = (np.asarray(row, np.float32) for row in (config.mean, config.std))
    pixels = images * std + mean
    return jnp.clip(jnp.round(pixels * 255), 0, 255).astype(jnp.uint8)


def _said(found: np.ndarray, size: Size, labels: Labels) -> Answer:
    """found: the classes of the network's image, of which a picture fills a part (`fit_inside`)."""
    height, width = found.shape
    columns, rows = contained(size, (width, height))
    mask = nearest(found[:rows, :columns], size, window=(0, 0, *size))
    counts = np.bincount(mask.ravel(), minlength=len(labels))
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    shares = counts[order] / mask.size
    return {
        "mask": mask,
        "classes": [labels[i] for i in order],
        "shares": shares.round(DECIMALS).tolist(),
    }


def _centres(side: int, longer: int) -> Integer[np.ndarray, " N"]:
    """The pixels of a side that a thumbnail shows."""
    count = max(round(THUMBNAIL * side / longer), 1)
    return ((np.arange(count) + 0.5) * side / count).astype(np.int64)


def ious(overlaps: Integer[np.ndarray, "N K 3"]) -> Float[np.ndarray, " K"]:
    """Of each class over all examples: the pixels found and true over those found or true."""
    both, found, true = overlaps.sum(0, dtype=np.int64).T
    return both / np.maximum(found + true - both, 1)
