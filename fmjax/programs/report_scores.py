"""What a run's kept predictions say, for its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fmjax.config.run import RunConfig
from fmjax.engine.predictions import Predictions
from fmjax.programs.report_images import Gallery
from fmjax.report.charts import histogram_chart, reliability_chart
from fmjax.report.confusion import class_rows, confusion, counted_pairs
from fmjax.report.masks import segmentation
from fmjax.report.pages import Mistake
from fmjax.report.pictures import SMALL, photo
from fmjax.tasks.scores import READINGS, THRESHOLD, PerClass, calibration_error, reliability, said

MISTAKES = 24
SIDE = 192  # pixels of a thumbnail
Parts = dict[str, Any]
Rows = Mapping[str, np.ndarray]


def prediction_parts(
    predictions: Predictions, config: RunConfig, classes: tuple[str, ...], gallery: Gallery
) -> Parts:
    """The sections that the rows of the predictions give; none where nothing is known of a task's rows."""
    # by what the rows are, so that a task of one's own with the same rows has the same page
    for names, fits, parts in KINDS:
        if names <= predictions.rows.keys() and fits(predictions.rows, len(classes)):
            found = parts(predictions, config, classes, gallery)
            return {"predictions_say": _say(predictions), **found}
    return {}


def _say(predictions: Predictions) -> str:
    about, kept = predictions.about, len(predictions)
    of = f"{kept:,} held-out images"
    if kept < about.images:
        of = f"{kept:,} of {about.images:,} held-out images, evenly chosen"
    left_out = f", {about.unreadable:,} unreadable ones left out" if about.unreadable else ""
    return f"Step {about.step:,}, {of}{left_out}."


def _classified(
    predictions: Predictions, config: RunConfig, classes: tuple[str, ...], gallery: Gallery
) -> Parts:
    logits, true = predictions.rows["logits"], predictions.rows["label"].astype(np.int64)
    predicted = logits.argmax(-1)
    # what the logits mean is a matter of the loss that they were trained by
    reading = READINGS[getattr(config.task, "loss", "cross_entropy")]
    _, confidence = reading(logits.astype(np.float64), true)
    each = PerClass.of(true, predicted, len(classes))
    scores = (each.precision, each.recall, each.f1, each.images)
    # counted once, for the matrix and for what each class is taken for
    pairs = counted_pairs(true, predicted, len(classes))
    right = predicted == true
    counts, mean_confidence, accuracy = reliability(confidence, right)
    error = calibration_error(confidence, right)
    surest = "confident" if confidence.mean() > right.mean() else "cautious"
    return {
        "confusion": confusion(true, predicted, classes),
        "classes": class_rows(classes, scores, pairs),
        "mistakes": _mistakes(predictions, true, predicted, confidence, classes, gallery),
        "calibration": reliability_chart(mean_confidence, accuracy, counts),
        "confidences": histogram_chart("Images by confidence", "confidence", counts),
        "calibration_say": f"On average the model is {confidence.mean():.1%} confident and "
        f"{right.mean():.1%} right: it is too {surest}. The expected calibration error (arXiv:1706.04599, "
        f"{len(counts)} bins) is {error:.1%}.",
    }


def _mistakes(
    predictions: Predictions,
    true: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    classes: tuple[str, ...],
    gallery: Gallery,
) -> tuple[Mistake, ...]:
    # a stable order: of equally sure ones the first of the set
    wrong = np.flatnonzero(predicted != true)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    found = []
    for i in chosen.tolist():
        name = predictions.names[i]
        image = gallery.picture(name)
        # the whole picture, not the network's crop of it: a mistake may lie in what was cut off
        picture = "" if image is None else photo(image, SIDE)
        small = image is not None and max(image.size) <= SMALL
        labels = (classes[true[i]], classes[predicted[i]])
        found.append(Mistake(name, *labels, float(confidence[i]), picture, small))
    return tuple(found)


def _many_labels(
    predictions: Predictions, config: RunConfig, classes: tuple[str, ...], gallery: Gallery
) -> Parts:
    # with several classes an image there is no one class that another is taken for
    rows = predictions.rows
    each = PerClass.of(rows["labels"] > THRESHOLD, said(rows["logits"]), len(classes))
    return {"classes": class_rows(classes, (each.precision, each.recall, each.f1, each.images))}


def _segmented(
    predictions: Predictions, config: RunConfig, classes: tuple[str, ...], gallery: Gallery
) -> Parts:
    return {"segmentation": segmentation(predictions.rows, predictions.names, classes)}


def _are_classified(rows: Rows, classes: int) -> bool:
    labels = rows["label"]
    whole = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
    known = whole and 0 <= labels.min() <= labels.max() < classes
    return bool(known) and rows["logits"].shape == (len(labels), classes)


def _have_many_labels(rows: Rows, classes: int) -> bool:
    return rows["logits"].shape == rows["labels"].shape == (len(rows["labels"]), classes)


def _are_segmented(rows: Rows, classes: int) -> bool:
    size = rows["true"].shape
    pictures = rows["picture"].dtype == np.uint8 and rows["picture"].shape == (*size, 3)
    return pictures and rows["found"].shape == size and rows["overlap"].shape[1:] == (classes, 3)


# the names of the rows, whether they are what the names promise, and the sections that they give
KINDS: tuple[tuple[frozenset[str], Callable[..., bool], Callable[..., Parts]], ...] = (
    (frozenset({"logits", "label"}), _are_classified, _classified),
    (frozenset({"logits", "labels"}), _have_many_labels, _many_labels),
    (frozenset({"overlap", "picture", "true", "found"}), _are_segmented, _segmented),
)
