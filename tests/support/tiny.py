"""The very small network of the stored runs, for tests in one process: known while they run, and forgotten after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fmjax import names
from fmjax.config.presets import load_preset
from fmjax.config.run import RunConfig

TINY = Path(__file__).parents[1] / "reliability" / "stored" / "tiny.py"


@contextmanager
def known() -> Iterator[RunConfig]:
    """Its preset, which registers the network's rows."""
    before = list(names._registered)
    try:
        yield load_preset(str(TINY))
    finally:
        names._registered[:] = before
        names._rows.cache_clear()
        names._aliases.cache_clear()
