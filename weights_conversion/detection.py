"""Which dialect a file is of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from weights_conversion.dialect import Dialect
from weights_conversion.dialects import TABLES
from weights_conversion.errors import CheckpointError, listed, quoted
from weights_conversion.tensors import LazyTensor

_added: list[Dialect] = []


def tables() -> tuple[Dialect, ...]:
    """Every table, those that were registered last."""
    return (*TABLES, *_added)


def dialects() -> dict[str, Dialect]:
    """Name -> the table that is written; spellings of a dialect share its name."""
    return {table.name: table.written for table in reversed(tables())}


def register(dialect: Dialect) -> None:
    """Adds a dialect to those that files are told by. Raises CheckpointError for a name that is taken."""
    if dialect.name in dialects():
        raise CheckpointError(f"a dialect {dialect.name!r} exists; give yours another name")
    _added.append(dialect)


def get_dialect(name: str) -> Dialect:
    """The dialect of that name. Raises CheckpointError, with all names, for an unknown one."""
    if name not in dialects():
        raise CheckpointError(f"unknown dialect {quoted(name)}; the dialects are {', '.join(sorted(dialects()))}")
    return dialects()[name]


def writing(name: str, paths: Iterable[str]) -> Dialect:
    """The spelling of a dialect that has a place for all of a model's parameters; the first one if none has."""
    first, wanted = get_dialect(name), set(paths)
    spellings = [table.written for table in tables() if table.name == name]
    return next((t for t in spellings if wanted <= {path for rule in t.rules for path in rule.paths}), first)


def candidates(file: Mapping[str, LazyTensor]) -> list[Dialect]:
    """Every dialect that a file can be of, by each table's declared signature, with the lead that the file has."""
    shapes = {key: tensor.shape for key, tensor in file.items()}
    return [found for table in tables() if (found := table.led(shapes)) is not None]


def detect(
    file: Mapping[str, LazyTensor],
    likely: Iterable[str] = (),
    *,
    alike: Callable[[Dialect, Dialect], bool] | None = None,
) -> Dialect:
    """The one dialect that a file is of.

    Several dialects can share a signature; then those named in `likely` are left, and the first of them is taken if the
    model is the same by each of the others, which `alike` says of two. Raises CheckpointError where none or more than
    one is left.
    """
    found = candidates(file)
    if len(found) > 1:
        found = [dialect for name in dict.fromkeys(likely) for dialect in found if dialect.name == name] or found
    if len(found) == 1 or (alike and found and all(alike(found[0], other) for other in found[1:])):
        return found[0]
    if not found:
        known = ", ".join(sorted(dialects()))
        raise CheckpointError(
            f"the file's names ({listed(file, 3)}) follow none of the known dialects ({known}); name one with --dialect"
        )
    either = ", ".join(dialect.name for dialect in found)
    raise CheckpointError(f"the file could be any of {either}: their names are the same; name one with --dialect")


def named(file: Mapping[str, LazyTensor], name: str) -> Dialect:
    """The dialect of that name, in the spelling and with the lead that the file has; the written one if it has none
    of them, for a report of what does not fit."""
    return next((dialect for dialect in candidates(file) if dialect.name == name), get_dialect(name))
