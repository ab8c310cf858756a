"""Frozen dataclasses as JSON, and back."""

from __future__ import annotations

import dataclasses
import json
import typing
from typing import Any

from fmjax.errors import UsageError, nearest


def to_json(record: Any) -> str:
    """A dataclass as text that `from_dict` takes back, once it is loaded."""
    return json.dumps(dataclasses.asdict(record), indent=2)


def from_dict(kind: type, values: dict[str, Any]) -> Any:
    """The inverse of dataclasses.asdict. Raises UsageError, with the nearest name, for a field that does not exist."""
    hints = typing.get_type_hints(kind)
    unknown = [name for name in values if name not in hints]
    if unknown:
        raise UsageError(f"{kind.__name__} has no field {unknown[0]!r}{nearest(unknown[0], hints)}")
    return kind(**{name: _value(hints[name], value) for name, value in values.items()})


def _value(hint: Any, value: Any) -> Any:
    nested = [part for part in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(part)]
    if nested and isinstance(value, dict):
        return from_dict(typing.cast(type, nested[0]), value)
    return tuple(value) if isinstance(value, list) else value
