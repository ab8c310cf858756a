"""Pictures of segmentations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.report.figures import blank_figure, drawn, save

SHOWN = 6  # pictures
NAMED = 20  # classes, in the legend


def draw_segments(path: Path, rows: Mapping[str, np.ndarray], classes: Sequence[str]) -> None:
    """Some pictures with their true and their predicted classes below them, as a PNG.

    rows: "picture" uint8 [N h w 3], "true" and "found" [N h w], whose largest number is of no class. The pictures are
    spread over the set, whose order may be that of its classes.
    """
    # a column a picture: as it is, as it was marked, as it was found
    last = len(rows["picture"]) - 1
    chosen = np.unique(np.linspace(0, last, SHOWN).astype(int))
    colours = class_colours(len(classes))
    figure = blank_figure(1.6 * len(chosen) + 1.8, 5.0)
    axes = figure.subplots(3, len(chosen), squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for column, index in enumerate(chosen):
        axes[0, column].imshow(rows["picture"][index])
        for row, name in enumerate(("true", "found"), 1):
            picture = coloured(rows[name][index], colours)
            axes[row, column].imshow(picture)
    for row, title in enumerate(("picture", "true", "predicted")):
        axes[row, 0].set_ylabel(title)
    _add_legend(figure, rows, chosen, classes, colours)
    save(figure, path, dpi=100)


def class_colours(count: int) -> np.ndarray:
    """uint8 [count 3]: black for the first class, which often is the background; neighbours in number differ."""
    from matplotlib import colormaps

    # of the circle of hues: the golden angle never meets itself
    numbers = np.arange(count - 1)
    turns = (numbers * 0.381966) % 1
    # hues come near each other after five: every other one is darker
    shades = np.where(numbers % 2, 0.6, 1.0)[:, None]
    hues = colormaps["hsv"](turns)[:, :3] * shades
    black = np.zeros((1, 3))
    return np.concatenate([black, hues * 255]).round().astype(np.uint8)


def coloured(classes: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """uint8 [h w 3], white where a pixel is of no class."""
    known = classes < len(colours)
    picture = colours[np.where(known, classes, 0)]
    return np.where(known[..., None], picture, np.uint8(255))


def _add_legend(
    figure: Any,
    rows: Mapping[str, np.ndarray],
    chosen: np.ndarray,
    classes: Sequence[str],
    colours: np.ndarray,
) -> None:
    """The classes that are seen in the pictures."""
    from matplotlib.patches import Patch

    seen = np.unique([rows["true"][chosen], rows["found"][chosen]])
    seen = seen[seen < len(classes)][:NAMED]
    unit = colours / 255
    patches = [Patch(color=tuple(unit[index]), label=drawn(classes[int(index)])) for index in seen]
    figure.legend(handles=patches, loc="outside right center", fontsize="small", frameon=False)
