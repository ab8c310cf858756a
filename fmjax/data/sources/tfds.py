"""`tfds:NAME`: a TensorFlow dataset, without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fmjax.config.data import ImagesConfig
from fmjax.data.example import Examples, Splits
from fmjax.errors import DataError


def open_examples(
    place: str,
    config: ImagesConfig,
    *,
    classes: Sequence[str] | None = None,
) -> Splits:
    """The dataset of a name. It has the classes that it has; a caller compares them."""
    return tensorflow_dataset(place, config.data_dir)


def tensorflow_dataset(name: str, data_dir: str = "") -> Splits:
    """A TFDS classification set, read from its ArrayRecord files; it is prepared first where it is not yet."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir or None, file_format="array_record")
        # ArrayRecord has random access, which a shuffle needs, and is read without TensorFlow
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # tfds raises whatever its builders raise
        raise DataError(
            f"tfds:{name} cannot be prepared: {error}; prepare it elsewhere and pass --data.data-dir"
        ) from error
    features: Any = builder.info.features or {}
    missing = {"image", "label"} - set(features)
    if missing:
        raise DataError(
            f"tfds:{name} has no {' and no '.join(sorted(missing))} feature; only image classification sets fit"
        )
    classes = tuple(features["label"].names)
    splits = builder.info.splits
    # some sets have a test split only: it is taken, and said, as a score on it is no longer a test
    held_out = next((split for split in ("validation", "test") if split in splits), None)
    train = _tfds_split(builder, "train", classes)
    if held_out is None:
        return Splits(train, None)
    notes = (
        (f"tfds:{name} has no validation split; val is its {held_out} split",)
        if held_out == "test"
        else ()
    )
    return Splits(train, _tfds_split(builder, held_out, classes), notes=notes)


def _tfds_split(builder: Any, split: str, classes: tuple[str, ...]) -> Examples:
    import tensorflow_datasets as tfds

    # still encoded: pictures are decoded by the rules and within the bounds of all others
    rows = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    labels = np.asarray([row["label"] for row in rows], np.int32)
    fields = {"image": lambda i: rows[i]["image"]}
    return Examples(fields, labels, classes, lambda i: f"{builder.name} {split} {i}")
