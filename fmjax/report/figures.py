"""Pictures of a run: its curves and its confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def draw_curves(path: Path, rows: Sequence[dict[str, Any]], watch: str) -> None:
    """Loss and the watched score over steps, training and validation, as a PNG."""
    # one figure where the score that is watched is the loss
    titles = tuple(dict.fromkeys(("loss", watch)))
    figure, axes = _figure(len(titles))
    for axis, name in zip(axes, titles, strict=True):
        for label, key in (("train", name), ("val", f"val_{name}")):
            # a row has what its step measured: training every few steps, validation at an evaluation
            points = [(row["step"], row[key]) for row in rows if key in row]
            if points:
                axis.plot(
                    *zip(*points, strict=True), label=label, marker="o" if label == "val" else ""
                )
        axis.set_xlabel("step")
        axis.set_title(name)
        axis.legend()
    figure.savefig(path, dpi=120)


def draw_confusion(
    path: Path, labels: np.ndarray, predictions: np.ndarray, classes: Sequence[str]
) -> None:
    """Rows are true classes, columns predicted ones, as a PNG."""
    from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

    matrix = confusion_matrix(labels, predictions, labels=range(len(classes)))
    # wide enough to tell the names of the classes apart; numbers only where a cell has room for one
    side = 0.45 * len(classes)
    figure, (axis,) = _figure(1, side=max(4.0, min(16.0, side)))
    display = ConfusionMatrixDisplay(matrix, display_labels=list(classes))
    display.plot(
        ax=axis,
        include_values=len(classes) <= 30,
        xticks_rotation="vertical",
        colorbar=False,
        cmap="Blues",
    )
    figure.savefig(path, dpi=120)


def _figure(count: int, side: float = 4.0) -> tuple[Any, Any]:
    figure = blank_figure(side * 1.2 * count, side)
    return figure, [figure.add_subplot(1, count, i + 1) for i in range(count)]


def blank_figure(width: float, height: float) -> Any:
    """A figure of so many inches that draws without a screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # drawn by hand: pyplot would look for a screen, and keep every figure until the end
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
