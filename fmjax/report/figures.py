"""Pictures of a run: its curves and its confusion matrix."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.errors import escaped
from fmjax.report.confusion import MOST_CLASSES

MOST_NAMES = 100  # classes beside a matrix: of more, the letters of one lie upon those of the next


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
    save(figure, path)


def draw_confusion(
    path: Path, labels: np.ndarray, predictions: np.ndarray, classes: Sequence[str]
) -> None:
    """Rows are true classes, columns predicted ones, as a PNG; none of over MOST_CLASSES."""
    from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

    # a matrix of 10,000 classes is 800 MB, and a pixel of its picture a hundred of its cells
    if len(classes) > MOST_CLASSES:
        return

    matrix = confusion_matrix(labels, predictions, labels=range(len(classes)))
    # wide enough to tell the names of the classes apart; numbers only where a cell has room for one
    side = 0.45 * len(classes)
    figure, (axis,) = _figure(1, side=max(4.0, min(16.0, side)))
    if len(classes) > MOST_NAMES:
        axis.imshow(matrix, cmap="Blues", interpolation="nearest")
        axis.set(xticks=[], yticks=[], xlabel="Predicted label", ylabel="True label")
        save(figure, path)
        return
    display = ConfusionMatrixDisplay(matrix, display_labels=[drawn(name) for name in classes])
    display.plot(
        ax=axis,
        include_values=len(classes) <= 30,
        xticks_rotation="vertical",
        colorbar=False,
        cmap="Blues",
    )
    save(figure, path)


def drawn(name: str) -> str:
    """A name as matplotlib draws it: bytes of a folder's name that are no text as escapes, and dollars, between which
    it would read a formula, as letters."""
    return escaped(name).replace("$", r"\$")


def _figure(count: int, side: float = 4.0) -> tuple[Any, Any]:
    figure = blank_figure(side * 1.2 * count, side)
    return figure, [figure.add_subplot(1, count, i + 1) for i in range(count)]


def save(figure: Any, path: Path, *, dpi: int = 120) -> None:
    """Writes a figure. Letters that matplotlib's font has not, as of Chinese, are boxes in it; a report has them."""
    with warnings.catch_warnings():
        # a line for each of them would hide what else a run says at its end
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure.savefig(path, dpi=dpi)


def blank_figure(width: float, height: float) -> Any:
    """A figure of so many inches that draws without a screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # drawn by hand: pyplot would look for a screen, and keep every figure until the end
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
