"""Flags -> a config, and what is said of a flag that it has not."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from collections.abc import Iterator
from typing import Any

import tyro

from fmjax.errors import UsageError


def parsed(kind: Any, args: list[str], *, prog: str, **settings: Any) -> Any:
    """The config that the flags make; a function is called with them. settings: as of tyro.cli, which says what is
    wrong and ends with code 2.

    Raises UsageError for a flag whose last word belongs to another head, --optim.lr where there is a --recipe.lr, and
    for a value that the config refuses.
    """
    # tyro calls a function itself, and must not while a flag of it is unknown
    if not isinstance(kind, type):
        return tyro.cli(kind, args=args, prog=prog, **settings)
    config, unknown = _config(kind, args=args, prog=prog, return_unknown_args=True, **settings)
    if not unknown:
        return config
    # tyro compares flags letter by letter, so that another head is far from the right one
    known = list(_flags(config))
    for flag in unknown:
        near = [other for other in known if flag.startswith("--") and _word(other) == _word(flag)]
        if near:
            name = flag.partition("=")[0]
            raise UsageError(
                f"no flag {name}; did you mean {' or '.join(near)}? (`{prog} --help` lists all)"
            )
    # all others are refused by tyro, with what is near in its letters
    return tyro.cli(kind, args=args, prog=prog, **settings)


def _config(kind: type, **options: Any) -> Any:
    """What tyro makes of flags. Raises UsageError for a value that the config refuses: tyro would end the process with
    the same sentence in a box, under the name of a class."""
    said = io.TextIOWrapper(io.BytesIO(), encoding=sys.stderr.encoding, errors="replace")
    refusal = None
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, **options)
    except SystemExit as stop:
        refusal = _refusal(stop) if stop.code else None
        if refusal is not None:
            raise refusal from None
        raise
    finally:
        # what flags there are, and how they are spelled, is tyro's to say
        if refusal is None:
            said.seek(0)
            sys.stderr.write(said.read())


def _refusal(stop: BaseException) -> UsageError | None:
    """The refusal that an end of the process comes from."""
    reason = stop.__context__
    while reason is not None and not isinstance(reason, UsageError):
        reason = reason.__context__
    return reason


def _word(flag: str) -> str:
    """The name behind the head, in tyro's spelling: --data.no_flip=True is of flip."""
    whole = flag.partition("=")[0].removeprefix("--").replace("_", "-")
    return whole.rpartition(".")[2].removeprefix("no-")


def _flags(config: Any, head: str = "--") -> Iterator[str]:
    """The flag of every field of a config, those of the configs in it too."""
    for field in dataclasses.fields(config):
        flag, value = f"{head}{field.name.replace('_', '-')}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _flags(value, f"{flag}.")
        else:
            yield flag
