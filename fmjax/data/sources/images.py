"""`images:PATH`: pictures without labels, in a flat or nested folder, a file, or a list of them (@FILE)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fmjax.config.data import ImagesConfig
from fmjax.data.example import Splits
from fmjax.data.split import NOT_A_FILE
from fmjax.data.unlabelled import WEB, pictures


def open_examples(
    place: str,
    config: ImagesConfig,
    *,
    classes: Sequence[str] | None = None,
) -> Splits:
    """The pictures at a place as one part; nothing is known of their classes."""
    # their sizes too: by these, what has been computed of them is told from a folder of other pictures under the same
    # names
    splits = pictures([place])
    names = (splits.train.names(index) for index in range(len(splits.train)))
    sizes = np.fromiter(map(_size, names), np.int64)
    return replace(splits, train=replace(splits.train, sizes=sizes))


def _size(name: str) -> int:
    """In bytes; of what is no file, or not there any more, as of a picture in no file of its own."""
    # what is behind an address is not asked for its size
    if WEB in name:
        return NOT_A_FILE
    try:
        return os.stat(Path(name)).st_size
    except OSError:
        return NOT_A_FILE
