"""A TAO spec file: its fields by their dotted paths, each asked for by its kind."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fmjax.data.images import regular_file
from fmjax.errors import DataError, UsageError, escaped

MAX_BYTES = 1 << 20
MAX_FIELDS = 10_000
MISSING = ("???", "??")  # what stands where a user has to put something in
REFERENCE = re.compile(r"\$\{([\w.]+)\}")  # OmegaConf's, to another field of the spec
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class Spec:
    """The fields that a file gives. What is asked for is remembered, so that the rest can be named."""

    def __init__(self, name: str, fields: Mapping[str, Any]) -> None:
        self.name = name
        self.fields = dict(fields)
        self.asked: set[str] = set()

    def has(self, head: str) -> bool:
        """Whether the file gives a field, or one below it."""
        return any(path == head or path.startswith(f"{head}.") for path in self.fields)

    def get(self, path: str, default: Any = None) -> Any:
        """A field's value with its references looked up; the default where it is null, missing or not there."""
        self.asked.add(path)
        value = self._resolved(self.fields.get(path), seen=())
        # what OmegaConf calls missing, and what people write for null
        empty = value is None or value in MISSING or value == "None"
        return default if empty else value

    def text(self, path: str, default: str = "") -> str:
        return str(self.get(path, default))

    def number(self, path: str, default: float) -> float:
        """Raises UsageError for what is no finite number."""
        value = self.get(path, default)
        try:
            # YAML 1.1 takes 1e-3 for a word
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if isinstance(value, bool) or not math.isfinite(number):
            raise self._wrong(path, value, "a number")
        return number

    def integer(self, path: str, default: int) -> int:
        """Raises UsageError for what is no whole number."""
        number = self.number(path, float(default))
        if number != int(number):
            raise self._wrong(path, number, "a whole number")
        return int(number)

    def flag(self, path: str, default: bool) -> bool:
        # YAML 1.2 and OmegaConf leave yes and no as words
        value = str(self.get(path, default)).lower()
        if value not in TRUE + FALSE:
            raise self._wrong(path, value, "true or false")
        return value in TRUE

    def numbers(
        self, path: str, default: tuple[float, ...], *, least: int = 0
    ) -> tuple[float, ...]:
        """Raises UsageError for what is no list of numbers, `least` of them or more."""
        value = self.get(path, default)
        try:
            found = tuple(float(each) for each in value)
        except (TypeError, ValueError):
            raise self._wrong(path, value, "a list of numbers") from None
        if len(found) < least:
            raise self._wrong(path, value, f"a list of {least} numbers")
        return found

    def words(self, path: str) -> tuple[str, ...]:
        """Raises UsageError for what is no list of texts."""
        value = self.get(path, ())
        if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
            raise self._wrong(path, value, "a list of texts")
        return tuple(value)

    def unasked(self) -> list[str]:
        """The paths that the file gives and nobody has asked for, in its order."""
        return [path for path in self.fields if path not in self.asked]

    def _resolved(self, value: Any, seen: tuple[str, ...]) -> Any:
        if not isinstance(value, str):
            return value

        def looked_up(match: re.Match[str]) -> str:
            path = match[1]
            # one that leads back to itself, or nowhere, stays as it is written
            if path in seen or path not in self.fields:
                return match[0]
            return str(self._resolved(self.fields[path], seen=(*seen, path)))

        return REFERENCE.sub(looked_up, value)

    def _wrong(self, path: str, value: Any, expected: str) -> UsageError:
        shown = escaped(str(value), 60)
        return UsageError(f"{self.name}: {path} is {shown!r}; it must be {expected}")


def read_spec(path: str) -> Spec:
    """The spec in a YAML file. Raises DataError, in a sentence, for what is none."""
    import yaml

    where = escaped(path)
    try:
        with regular_file(Path(path).expanduser()) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(
            f"{where} cannot be read: {error.strerror}; pass TAO's spec file"
        ) from error
    if len(content) > MAX_BYTES:
        raise DataError(f"{where} has more than {MAX_BYTES:,} bytes, and a spec has a few thousand")
    try:
        # the safe loader makes nothing but numbers, texts, lists and mappings
        values = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        told = " ".join(str(error).split())
        raise DataError(
            f"{where} is no YAML: {escaped(told, 200)}; pass TAO's spec file"
        ) from error
    if not isinstance(values, dict):
        raise DataError(
            f"{where} holds {type(values).__name__} and no fields; pass the spec of a TAO classification"
        )
    fields: dict[str, Any] = {}
    for name, value in _flat(values, ""):
        fields[name] = value
        # an anchor may stand for a mapping of anchors, and so on
        if len(fields) > MAX_FIELDS:
            raise DataError(
                f"{where} has more than {MAX_FIELDS:,} fields, and a spec has about 100"
            )
    return Spec(where, fields)


def _flat(values: Mapping[Any, Any], head: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        path = f"{head}{name}"
        # a mapping that holds itself, by an anchor, has no end
        if isinstance(value, dict) and value and depth < 20:
            yield from _flat(value, f"{path}.", depth + 1)
        else:
            yield path, value
