"""Which columns of a table are the image, the labels and the part: by a flag, or by the names that people use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fmjax.config.data import ImagesConfig
from fmjax.data.folders import few
from fmjax.errors import DataError, escaped, nearest

# by what a column may be called, the first that is there; letter case does not matter
IMAGE = (
    "image",
    "path",
    "file",
    "filename",
    "image_path",
    "filepath",
    "file_name",
    "image_id",
    "img",
    "jpg",
)
LABEL = ("label", "class", "labels", "target", "category", "class_name", "fine_label", "cls")
SPLIT = ("split", "subset", "partition")
SEVERAL = "labels"  # the column that has several by its name
SEPARATOR = ";"


@dataclass(frozen=True)
class Columns:
    """Names of columns; "" where a table has none of a kind."""

    image: str
    label: str
    split: str
    separator: str  # between several labels in a cell; "" for one label a cell


def find_columns(
    names: Sequence[str], config: ImagesConfig, *, where: str, parts: bool = False
) -> Columns:
    """The columns of a table. label is "" where none is found, as there may be a column for each class.

    parts: whether a column may tell the part. Raises DataError for a column that is not there, or that two are.
    """
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError(f"{where} has the column {escaped(twice[0])!r} twice; rename or remove one")
    # only the images have to be somewhere: a set may have a column for each class
    image = _column(names, config.image_column, IMAGE, where, "--data.image-column")
    if not image:
        raise DataError(
            f"{where} has no column of images: it has {few(names)}; name it with --data.image-column, or call it "
            f"{IMAGE[0]} or {IMAGE[1]}"
        )
    label = _column(names, config.label_column, LABEL, where, "--data.label-column")
    split = ""
    if parts:
        split = _column(names, config.split_column, SPLIT, where, "--data.split-column")
    several = SEPARATOR if label.lower() == SEVERAL else ""
    return Columns(image, label, split, config.label_separator or several)


def _column(names: Sequence[str], given: str, usual: Sequence[str], where: str, flag: str) -> str:
    if given:
        if given not in names:
            raise DataError(
                f"{where} has no column {escaped(given)!r} ({flag}){nearest(given, names) or f'; it has {few(names)}'}"
            )
        return given
    folded = {name.strip().lower(): name for name in names}
    return next((folded[name] for name in usual if name in folded), "")
