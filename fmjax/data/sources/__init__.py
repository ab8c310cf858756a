"""Where examples come from: `--data.source` -> Splits, by the table of schemes."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from fmjax.config.data import ImagesConfig
from fmjax.config.schemes import scheme_of
from fmjax.data.example import Splits


def open_source(config: ImagesConfig, classes: Sequence[str] | None = None) -> Splits:
    """The examples behind `--data.source`. Raises DataError, with the fix, for what cannot be trained on.

    classes: those that a model tells apart, in its order; a folder may then hold fewer of them, but no others.
    """
    # by its name in the table: who reads folders does not wait for the libraries of other schemes
    scheme, place = scheme_of(config.source)
    module, _, function = scheme.home.partition(":")
    opened = getattr(importlib.import_module(module), function)
    return opened(place, config, classes=classes)
