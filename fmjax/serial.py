"""Frozen dataclasses as JSON, and back; texts written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import reprlib
import sys
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fmjax.errors import UsageError, nearest
from weights_conversion.writer import whole


def to_json(record: Any) -> str:
    """A dataclass as text that `from_dict` takes back, once it is loaded."""
    return json.dumps(dataclasses.asdict(record), indent=2)


def write_atomically(path: Path, text: str | Iterable[str]) -> None:
    """The file has the old content or the new, never a part. text may come in pieces, which are not gathered."""
    pieces = [text] if isinstance(text, str) else text
    with whole(path) as file:
        file.writelines(piece.encode() for piece in pieces)


def from_dict(kind: type, values: Any) -> Any:
    """The inverse of dataclasses.asdict, once it has been through JSON.

    Raises UsageError for a field that does not exist, with the nearest name, for one that is missing and has no
    default, and for a value of another type than the field's.
    """
    if not isinstance(values, dict):
        raise UsageError(
            f"{kind.__name__} is {reprlib.repr(values)}; it must be an object with named fields"
        )
    every = typing.get_type_hints(kind)
    hints = {field.name: every[field.name] for field in dataclasses.fields(kind)}
    # a name that is not known before one that lacks: a misspelt field is both
    unknown = [name for name in values if name not in hints]
    if unknown:
        raise UsageError(
            f"{kind.__name__} has no field {reprlib.repr(unknown[0])}{nearest(unknown[0], hints)}"
        )
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.name not in values and _required(field)
    ]
    if missing:
        raise UsageError(f"{kind.__name__} lacks the field {missing[0]!r}")
    return kind(**{name: _value(hints[name], value, name) for name, value in values.items()})


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(hint: Any, value: Any, name: str) -> Any:
    """The value as its field's type has it: a list is a tuple, an object a record."""
    # the first of a union's types that the value fits
    for choice in _choices(hint):
        if dataclasses.is_dataclass(choice) and (isinstance(value, dict) or choice is hint):
            return from_dict(typing.cast(type, choice), value)
        if _fits(choice, value):
            return _tupled(value)
    expected = " or ".join(map(_spelled, _choices(hint)))
    raise UsageError(f"{name} is {reprlib.repr(value)}; it must be {expected}")


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def _choices(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _spelled(hint: Any) -> str:
    """A type in words."""
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(map(repr, typing.get_args(hint)))
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def _fits(hint: Any, value: Any) -> bool:
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind is typing.Literal:
        return isinstance(value, str | int) and value in parts
    if kind is tuple:
        return isinstance(value, list) and _all_fit(parts, value)
    if hint is float:
        # whole numbers are floats in JSON; infinity and nan, which Python's reader takes, are not
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return type(value) is hint  # not isinstance: True is no number


def _all_fit(parts: tuple[Any, ...], values: list[Any]) -> bool:
    if parts[-1] is Ellipsis:
        return all(_fits(parts[0], value) for value in values)
    return len(parts) == len(values) and all(map(_fits, parts, values))
