"""Where examples come from: `--data.source` -> Splits, by the table of schemes."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fmjax.config.data import ImagesConfig
from fmjax.config.schemes import scheme_of
from fmjax.data.classes import read_classes
from fmjax.data.example import Examples, Splits
from fmjax.data.folders import few
from fmjax.data.split import relabelled
from fmjax.errors import DataError, UsageError, escaped

STREAMED = ("hf:", "parquet:http://", "parquet:https://")


def open_source(config: ImagesConfig, classes: Sequence[str] | None = None) -> Splits:
    """The examples behind `--data.source`. Raises DataError, with the fix, for what cannot be trained on.

    classes: those that a model tells apart, in its order; a source may then hold fewer of them, but no others.
    """
    # by its name in the table: who reads folders does not wait for the libraries of other schemes
    scheme, place = scheme_of(config.source)
    module, _, function = scheme.home.partition(":")
    # never left out in silence: a set that is fetched whole may not fit the disk
    if config.stream and not config.source.startswith(STREAMED):
        raise UsageError(
            f"--data.stream is for hf:OWNER/NAME and parquet:https://..., and {escaped(config.source)} is neither; "
            f"leave it out"
        )
    opened = getattr(importlib.import_module(module), function)
    if not config.classes:
        return opened(place, config, classes=classes)
    listed = read_classes(Path(config.classes).expanduser())
    splits = opened(place, config, classes=classes or listed)
    # a source with names of its own has them in its own order
    return splits if classes else _in_order(splits, listed, config)


def _in_order(splits: Splits, listed: tuple[str, ...], config: ImagesConfig) -> Splits:
    """The same examples, labelled by their class's place in the list."""
    own = splits.train.classes
    if own == listed:
        return splits
    unknown = [name for name in own if name not in listed]
    if unknown:
        raise DataError(
            f"{escaped(config.source)} has {len(own)} classes, and {escaped(config.classes)} lacks {few(unknown)}; "
            f"add them to the file"
        )

    def moved(part: Examples | None) -> Examples | None:
        return None if part is None else relabelled(part, listed)

    return replace(splits, train=moved(splits.train), val=moved(splits.val))
