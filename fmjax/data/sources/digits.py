"""`digits`: handwritten digits that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fmjax.config.data import ImagesConfig
from fmjax.data.example import Examples, Splits


def open_examples(
    place: str,
    config: ImagesConfig,
    *,
    classes: Sequence[str] | None = None,
) -> Splits:
    """All of them, without a split of their own; they are the same whatever is asked for."""
    return Splits(digits(), None)


def digits() -> Examples:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 (UCI ML repository, CC BY 4.0), as RGB."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    levels = images.reshape(-1, 8, 8) * (255 / 16)  # 0..16 -> 0..255
    grey = np.round(levels).astype(np.uint8)
    pictures = np.repeat(grey[..., None], 3, -1)
    return Examples(
        fields={"image": lambda i: pictures[i]},
        labels=labels.astype(np.int32),
        classes=tuple(str(n) for n in range(10)),
        names=lambda i: f"digit {i}",
    )
