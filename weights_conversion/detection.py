"""Which dialect a file is of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

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
    # backwards, so that the first of one name is the one that stays
    return {table.name: table.written for table in reversed(tables())}


def register(dialect: Dialect) -> None:
    """Adds a dialect to those that files are told by. Raises CheckpointError for a name that is taken."""
    if dialect.name in dialects():
        raise CheckpointError(f"a dialect {dialect.name!r} exists; give yours another name")
    _added.append(dialect)


def get_dialect(name: str) -> Dialect:
    """The dialect of that name. Raises CheckpointError, with all names, for an unknown one."""
    if name not in dialects():
        known = ", ".join(sorted(dialects()))
        raise CheckpointError(f"unknown dialect {quoted(name)}; the dialects are {known}")
    return dialects()[name]


def writing(name: str, parameters: Collection[str]) -> Dialect:
    """The spelling of a dialect that has a place for all of a model's parameters; the first one if none has."""
    wanted = set(parameters)
    for table in tables():
        if table.name == name and wanted <= _places(table, wanted):
            return table.written
    return get_dialect(name)


def _places(table: Dialect, parameters: set[str]) -> set[str]:
    """The parameters that the rules of a table which speak of such a model fill."""
    return {path for rule in table.rules if rule.active(parameters) for path in rule.paths}


def candidates(file: Mapping[str, LazyTensor]) -> list[Dialect]:
    """Every dialect that a file can be of, by each table's declared signature, with the container that it has."""
    shapes = {key: tensor.shape for key, tensor in file.items()}
    found = [table.found_in(shapes) for table in tables()]
    return [dialect for dialect in found if dialect is not None]


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
        # in the order of `likely`, since the first is taken where all are alike
        order = list(dict.fromkeys(likely))
        expected = [one for name in order for one in found if one.name == name]
        found = expected or found
    if not found:
        known = ", ".join(sorted(dialects()))
        raise CheckpointError(
            f"the file's names ({listed(file, 3)}) follow none of the known dialects ({known}); name one with --dialect"
        )
    first, *others = found
    if not others or (alike and all(alike(first, other) for other in others)):
        return first
    either = ", ".join(dialect.name for dialect in found)
    raise CheckpointError(
        f"the file could be any of {either}: their names are the same; name one with --dialect"
    )


def named(file: Mapping[str, LazyTensor], name: str) -> Dialect:
    """The dialect of that name, in the spelling and with the container that the file has; the written one if it has
    none of them, for a report of what does not fit."""
    for dialect in candidates(file):
        if dialect.name == name:
            return dialect
    return get_dialect(name)
