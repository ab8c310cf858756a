"""What a classifier takes for what: the classes one by one, and the pairs that it confuses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer, UInt8

from fmjax.report.pictures import exact

FEW = 20  # classes, whose confusions fit a table of numbers
MAX_CELLS = 200  # of a side of a drawn matrix: a cell is two pixels of a phone at least
MOST_CLASSES = 2_000  # beyond which a drawn matrix says nothing
TOP_PAIRS = 15
TABLE_ROWS = 1_000  # of the table of classes

Labels = Integer[np.ndarray, " N"]


@dataclass(frozen=True)
class ClassRow:
    """A class of a run. taken_for: what its images are mistaken for most often, and how many of them."""

    name: str
    images: int
    precision: float
    recall: float
    f1: float
    taken_for: str
    mistakes: int


@dataclass(frozen=True)
class Pair:
    """Images of one class that were taken for another. share: of all images of the class."""

    true: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class Confusion:
    """shares: [K][K] of each true class's images, for few classes; picture: the same as a data URI, for more, whose
    cells stand for `block` classes each; names: of the classes."""

    names: tuple[str, ...]
    pairs: tuple[Pair, ...]
    kinds: int  # of confusions, of which the pairs are the most frequent
    wrong: int  # images
    shares: tuple[tuple[float, ...], ...] = ()
    picture: str = ""
    cells: int = 0
    block: int = 1


def counted_pairs(true: Labels, predicted: Labels, classes: int) -> tuple[np.ndarray, ...]:
    """(true class, predicted class, images) of every pair that occurs, without a matrix of all pairs."""
    # of 10,000 classes a matrix would have 100 million cells, of which few are not zero
    pairs, counts = np.unique(true.astype(np.int64) * classes + predicted, return_counts=True)
    return pairs // classes, pairs % classes, counts


def confusion(true: Labels, predicted: Labels, classes: tuple[str, ...]) -> Confusion:
    """The confusions of a set of images."""
    rows, columns, counts = counted_pairs(true, predicted, len(classes))
    images = np.bincount(true, minlength=len(classes))
    wrong = np.flatnonzero(rows != columns)
    # the most frequent first; of equals the one that is a larger part of its class
    order = np.lexsort((-counts[wrong] / images[rows[wrong]], -counts[wrong]))
    pairs = tuple(
        Pair(
            classes[rows[i]],
            classes[columns[i]],
            int(counts[i]),
            float(counts[i] / images[rows[i]]),
        )
        for i in wrong[order][:TOP_PAIRS].tolist()
    )
    total = int(counts[wrong].sum())
    if len(classes) <= FEW:
        shares = np.zeros((len(classes), len(classes)))
        shares[rows, columns] = counts / images[rows]
        table = tuple(tuple(row) for row in shares.tolist())
        return Confusion(tuple(classes), pairs, len(wrong), total, shares=table)
    if len(classes) > MOST_CLASSES:
        return Confusion(tuple(classes), pairs, len(wrong), total)
    block = -(-len(classes) // MAX_CELLS)
    blocks = blocked(rows, columns, counts, classes=len(classes), block=block)
    picture = exact(_drawn(blocks))
    return Confusion(
        tuple(classes), pairs, len(wrong), total, picture=picture, cells=len(blocks), block=block
    )


def blocked(
    rows: np.ndarray, columns: np.ndarray, counts: np.ndarray, *, classes: int, block: int
) -> Float[np.ndarray, "M M"]:
    """Shares of the images of `block` neighbouring classes that are taken for those of other blocks."""
    side = -(-classes // block)
    sums = np.zeros((side, side))
    np.add.at(sums, (rows // block, columns // block), counts)
    return sums / np.maximum(sums.sum(1, keepdims=True), 1)


def _drawn(shares: Float[np.ndarray, "M M"]) -> UInt8[np.ndarray, "M M 4"]:
    # an opacity over whatever the page's background is; the root lets a share of 1 % be seen
    cells = np.zeros((*shares.shape, 4), np.uint8)
    cells[..., :3] = (47, 111, 208)
    cells[..., 3] = np.round(255 * np.sqrt(shares))
    return cells


def class_rows(
    classes: tuple[str, ...],
    scores: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    pairs: tuple[np.ndarray, ...] | None = None,
) -> tuple[ClassRow, ...]:
    """The classes with the lowest F1 first, those without images last, TABLE_ROWS of them.

    scores: precision, recall, F1 and images [K] of each class. pairs: as of `counted_pairs`.
    """
    precision, recall, f1, images = scores
    order = np.lexsort((f1, images == 0))[:TABLE_ROWS]
    worst = {} if pairs is None else _most_frequent_mistakes(pairs)
    rows = []
    for i in order.tolist():
        other, count = worst.get(i, (-1, 0))
        taken_for = classes[other] if count else ""
        figures = (float(precision[i]), float(recall[i]), float(f1[i]))
        rows.append(ClassRow(classes[i], int(images[i]), *figures, taken_for, count))
    return tuple(rows)


def _most_frequent_mistakes(pairs: tuple[np.ndarray, ...]) -> dict[int, tuple[int, int]]:
    """Class -> the class that it is mistaken for most often, and how often."""
    rows, columns, counts = pairs
    wrong = rows != columns
    found = zip(rows[wrong].tolist(), columns[wrong].tolist(), counts[wrong].tolist(), strict=True)
    # in rising order, so that the most frequent one is what stays
    rising = sorted(found, key=lambda pair: pair[2])
    return {true: (predicted, count) for true, predicted, count in rising}
