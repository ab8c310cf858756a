"""What Orbax would print of an error that is raised as well: hundreds of lines, in words of its insides."""

from __future__ import annotations

import functools
import gc
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# What the other reads of a step say when one of them has failed: they end later, in a closed event loop
ORPHANS = ("Event loop is closed", "Encountered error while reading array index")
NOT_BEGUN = r"coroutine 'Store\._get_array_metadatas' was never awaited"


def saving() -> None:
    """From now on: a save fails in a thread of Orbax's, at a time of its own, and is raised where the run asks for
    it."""
    _hush_orphans()
    _hush_forgotten()
    _add_once("absl", _not_of_orbax)


def _hush_forgotten() -> None:
    _add_once("asyncio", _not_forgotten)
    # a read of Orbax's that was made and not begun when another one failed
    warnings.filterwarnings("ignore", NOT_BEGUN, RuntimeWarning)


def _add_once(name: str, rule: Callable[[logging.LogRecord], bool]) -> None:
    logger = logging.getLogger(name)
    if rule not in logger.filters:
        logger.addFilter(rule)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


def _not_forgotten(record: logging.LogRecord) -> bool:
    """A write or read that fails beside one that has failed already is asked by nobody."""
    return "was never retrieved" not in record.getMessage()


def _hush_orphans() -> None:
    if getattr(sys.unraisablehook, "func", None) is not _pass_on:
        sys.unraisablehook = functools.partial(_pass_on, sys.unraisablehook)


def _pass_on(previous: Callable[[Any], Any], unraisable: Any) -> None:
    if not any(text in str(unraisable.exc_value) for text in ORPHANS):
        previous(unraisable)


@contextmanager
def reading() -> Iterator[None]:
    """While arrays are read, and on after a read that failed: Python would print each orphan as a traceback of its own,
    when it comes. What went wrong is raised besides."""
    hook = sys.unraisablehook
    _hush_orphans()
    loggers = [logging.getLogger(name) for name in ("asyncio", "absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
        sys.unraisablehook = hook
    except BaseException:
        _hush_forgotten()  # a read that is still under way may fail after this one
        raise
    finally:
        gc.collect()  # tasks that nobody asked are logged where they are freed
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
