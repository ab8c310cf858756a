"""Scores of classifiers out of the logits of a whole set. Most of them are scikit-learn's."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from fmjax.errors import DataError
from fmjax.serial import write_atomically
from fmjax.specs import LogitReading

TOP = 5
BINS = 15  # of confidence, as in arXiv:1706.04599
DECIMALS = 6  # of a probability that is written: float32 has no more to say
WORST = 3  # classes that a line names
THRESHOLD = 0.5  # above which a class is said to be there, where several may be
PER_CLASS = "per_class.csv"


def classifier_scores(
    logits: Float[np.ndarray, "N K"], labels: np.ndarray, loss: str = "cross_entropy"
) -> dict[str, float]:
    """Accuracy, macro F1, loss, top-5 accuracy (of all classes where there are fewer) and calibration error.

    Macro F1 is the mean over the classes that have images: one without has no F1, and would count as 0. loss: what was
    trained, which is what the logits are read as.
    """
    from sklearn.metrics import f1_score

    predicted, present = logits.argmax(-1), np.unique(labels)
    right = predicted == labels
    losses, confidence = READINGS[loss](logits.astype(np.float64), labels)
    macro_f1 = f1_score(labels, predicted, labels=present, average="macro")
    return {
        "accuracy": float(right.mean()),
        "macro_f1": float(macro_f1),
        "loss": losses,
        "top5": float((ranks(logits, labels) < TOP).mean()),
        "calibration_error": calibration_error(confidence, right),
    }


def _as_one(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """(mean cross entropy, probability of the likeliest class [N]) of logits that say which class it is."""
    from sklearn.metrics import log_loss

    # in float64, as the mean is over a whole set
    shares = softmax(logits)
    loss = log_loss(labels, shares, labels=range(logits.shape[1]))
    return float(loss), shares.max(-1)


def _as_many(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The same of logits that say of each class whether it is there."""
    targets = np.arange(logits.shape[1]) == labels[:, None]
    return binary_loss(logits, targets), sigmoid(logits.max(-1))


READINGS = {"cross_entropy": _as_one, "bce": _as_many}


def binary_loss(logits: np.ndarray, targets: np.ndarray) -> float:
    """The mean binary cross entropy of all answers."""
    # log(1 + exp(x)) less x where the answer is yes
    return float((np.logaddexp(0, logits) - logits * targets).mean())


def softmax(logits: np.ndarray) -> np.ndarray:
    # less the largest, no exp overflows
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    # by tanh, which does not overflow
    return (1 + np.tanh(logits / 2)) / 2


PROBABILITIES = {"softmax": softmax, "sigmoid": sigmoid}


def probabilities(
    logits: Float[np.ndarray, "N K"], reading: LogitReading
) -> Float[np.ndarray, "N K"]:
    """Of each class, in float64."""
    return PROBABILITIES[reading](logits.astype(np.float64))


def likeliest(shares: Float[np.ndarray, " K"], top: int) -> Integer[np.ndarray, " T"]:
    """The numbers of the most probable classes, the likeliest first; all where there are fewer than `top`."""
    # of equal ones the lower number comes first, as for argmax
    return np.argsort(-shares, kind="stable")[:top]


def ranks(logits: Float[np.ndarray, "N K"], labels: np.ndarray) -> Integer[np.ndarray, " N"]:
    """How many classes come before the true one; of equal logits the lower number comes first, as for argmax."""
    own = np.take_along_axis(logits, labels[:, None].astype(np.int64), 1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    return ((logits > own) | ((logits == own) & earlier)).sum(1)


def calibration_error(confidence: Float[np.ndarray, " N"], right: np.ndarray) -> float:
    """The expected calibration error of arXiv:1706.04599: how far confidence and accuracy are apart in 15 bins of equal
    width, weighted by how many examples are in each."""
    apart = np.bincount(_bins(confidence), weights=right - confidence, minlength=BINS)
    return float(np.abs(apart).sum() / len(right))


def reliability(
    confidence: Float[np.ndarray, " N"], right: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each of these bins how many examples are in it, their mean confidence and their accuracy."""
    bins = _bins(confidence)
    counts = np.bincount(bins, minlength=BINS)
    sums = [np.bincount(bins, weights=each, minlength=BINS) for each in (confidence, right)]
    mean_confidence, accuracy = (each / np.maximum(counts, 1) for each in sums)
    return counts, mean_confidence, accuracy


def _bins(confidence: Float[np.ndarray, " N"]) -> Integer[np.ndarray, " N"]:
    # open below and closed above, as in the paper
    return np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(np.int64)


@dataclass(frozen=True)
class PerClass:
    """Precision, recall and F1 [K] of each class, and how many images are of it [K]."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    images: np.ndarray

    @classmethod
    def of(cls, true: np.ndarray, predicted: np.ndarray, classes: int) -> PerClass:
        """true, predicted: numbers of classes [N], or which classes are there [N K]."""
        from sklearn.metrics import precision_recall_fscore_support

        # what was never predicted has no precision, and what has no images no recall: 0 without a warning
        options: Any = {"labels": range(classes), "zero_division": 0}
        found: Any = precision_recall_fscore_support(true, predicted, **options)
        return cls(*found)

    def worst(self, names: Sequence[str]) -> str:
        """The classes with the lowest F1 of those that have images, for a line."""
        present = np.flatnonzero(self.images)
        order = np.argsort(self.f1[present], kind="stable")
        chosen = present[order[:WORST]]
        return ", ".join(f"{names[i]} {self.f1[i]:.1%}" for i in chosen)

    def write(self, path: Path, names: Sequence[str]) -> None:
        """A row a class, as CSV."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["class", "precision", "recall", "f1", "images"])
        columns = (self.precision, self.recall, self.f1, self.images)
        for name, *numbers, count in zip(names, *columns, strict=True):
            rows.writerow([name, *(f"{number:.6f}" for number in numbers), int(count)])
        # a folder's name need not be text: its other bytes stand as escapes
        write_atomically(path, text.getvalue().encode("utf-8", "backslashreplace").decode())


def multi_label_scores(logits: Float[np.ndarray, "N K"], labels: np.ndarray) -> dict[str, float]:
    """Mean average precision, macro F1 at a probability of one half, and loss. labels: 0 or 1, [N K].

    The first two are means over the classes that are on an image: the average precision of others is not defined.
    Raises DataError where no class is on any.
    """
    from sklearn.metrics import average_precision_score

    logits, there = logits.astype(np.float64), labels > THRESHOLD
    present = there.any(0)
    if not present.any():
        raise DataError(
            f"none of the {len(labels)} images has a label, so there is nothing to score; pass images with labels"
        )
    # of the ranking by each class's own logits: no threshold is part of it
    precision = average_precision_score(there[:, present], logits[:, present], average="macro")
    each = PerClass.of(there, said(logits), logits.shape[1])
    return {
        "mean_average_precision": float(precision),
        "macro_f1": float(each.f1[present].mean()),
        "loss": binary_loss(logits, there),
    }


def said(logits: np.ndarray) -> np.ndarray:
    """Which classes are said to be there [N K]: those with a probability above one half."""
    # of logits, as in half precision the probability of a small one is one half itself
    return logits > 0
