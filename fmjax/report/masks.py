"""A segmentation's classes one by one, and the pictures that it marks worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from fmjax.report.pictures import exact
from fmjax.report.segments import class_colours, coloured

SHOWN = 12  # pictures
OPACITY = 0.6  # of the classes over a picture
NAMED = 20  # classes of the legend


@dataclass(frozen=True)
class MaskRow:
    """A class of a segmentation. pixels: that are truly of it; iou, recall and precision of its pixels."""

    name: str
    colour: str
    pixels: int
    iou: float
    recall: float
    precision: float


@dataclass(frozen=True)
class Marked:
    """A picture with what is truly on it, and what was found, as data URIs."""

    name: str
    iou: float
    picture: str
    true: str
    found: str


@dataclass(frozen=True)
class Segmentation:
    """The classes, the lowest IoU first, and the pictures, the lowest mean IoU first."""

    classes: tuple[MaskRow, ...]
    worst: tuple[Marked, ...]
    legend: tuple[tuple[str, str], ...]  # colour, class


def segmentation(
    rows: Mapping[str, np.ndarray], names: Sequence[str], classes: tuple[str, ...]
) -> Segmentation:
    """rows: overlap [N K 3] (pixels found and true, found, true), picture [N h w 3], true and found [N h w]."""
    colours = class_colours(len(classes))
    hexes = ["#" + "".join(f"{part:02x}" for part in colour) for colour in colours.tolist()]
    both, found, true = rows["overlap"].sum(0, dtype=np.int64).T
    iou = both / np.maximum(found + true - both, 1)
    order = np.lexsort((iou, true == 0))
    table = tuple(
        MaskRow(
            classes[i],
            hexes[i],
            int(true[i]),
            float(iou[i]),
            float(both[i] / max(true[i], 1)),
            float(both[i] / max(found[i], 1)),
        )
        for i in order.tolist()
    )
    each = image_ious(rows["overlap"])
    # a picture without a pixel of any class has no IoU
    scored = np.flatnonzero(np.isfinite(each))
    worst = scored[np.argsort(each[scored], kind="stable")][:SHOWN]
    seen = np.unique([rows["true"][worst], rows["found"][worst]])
    legend = tuple((hexes[i], classes[i]) for i in seen[seen < len(classes)][:NAMED].tolist())
    marked = tuple(_marked(rows, int(i), names[int(i)], float(each[i]), colours) for i in worst)
    return Segmentation(table, marked, legend)


def image_ious(overlap: Integer[np.ndarray, "N K 3"]) -> Float[np.ndarray, " N"]:
    """The mean IoU of each picture over the classes that are on it, or are found on it; NaN where none is."""
    both, found, true = np.moveaxis(overlap.astype(np.int64), -1, 0)
    either = found + true - both
    there = either > 0
    shares = np.where(there, both / np.maximum(either, 1), 0)
    with np.errstate(invalid="ignore"):
        return shares.sum(1) / there.sum(1)


def _marked(
    rows: Mapping[str, np.ndarray], index: int, name: str, iou: float, colours: np.ndarray
) -> Marked:
    picture = rows["picture"][index]
    overlays = [_over(picture, rows[kind][index], colours) for kind in ("true", "found")]
    return Marked(name, iou, exact(picture), *map(exact, overlays))


def _over(picture: np.ndarray, classes: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The picture with its classes over it; pixels of no class as they are."""
    mixed = (1 - OPACITY) * picture + OPACITY * coloured(classes, colours)
    known = (classes < len(colours))[..., None]
    return np.where(known, mixed.round(), picture).astype(np.uint8)
