"""Rows by their names: the one place that resolves a name. Imports no jax."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Container, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fmjax.errors import UsageError, nearest
from fmjax.specs import ViTSpec, Weights

if TYPE_CHECKING:
    from weights_conversion.dialect import Dialect


def split_name(name: str) -> tuple[str, str]:
    """("arch", "tag"), split at the first dot; the tag is "" where there is none."""
    arch, _, tag = name.partition(".")
    return arch, tag


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names that a search finds: architectures, or "arch.tag" where `pretrained`.

    pattern: shell-style, or a part of a word where it has none of * ? [ ; letter case is ignored. It is looked for in
    names, tags, aliases (timm's names), the hub's repositories and families.
    """
    wanted = pattern.lower()
    if not any(letter in pattern for letter in "*?["):
        wanted = f"*{wanted}*"
    specs, weights = _rows()
    rows, words = weights if pretrained else specs, _words()
    return [name for name in rows if _finds(wanted, words[name])]


def weights_of(model: str) -> list[Weights]:
    """The published weights of an architecture, by its registered name."""
    return [weights for weights in _rows()[1].values() if weights.model == model]


def get_spec(name: str) -> ViTSpec:
    """The architecture of "arch" or "arch.tag"; a tag's own activation and resampling are filled in.

    Raises UsageError, with the nearest names, for an unknown one.
    """
    resolved = resolve(name)
    arch, tag = split_name(resolved)
    specs, weights = _rows()
    if not tag:
        return specs[arch]
    return replace(specs[arch], weights=resolved, **weights[resolved].overrides)


def get_weights(name: str) -> Weights:
    """The published weights "arch.tag", or the only ones of "arch". Raises UsageError where there are none or
    several."""
    resolved = resolve(name)
    weights = _rows()[1]
    if resolved in weights:
        return weights[resolved]
    tags = [w.tag for w in weights_of(resolved)]
    if len(tags) == 1:
        return weights[f"{resolved}.{tags[0]}"]
    known = ", ".join(tags)
    raise UsageError(f"{resolved!r} has {len(tags)} published weights; name one of: {known}")


def resolve(name: str) -> str:
    """The registered "arch" or "arch.tag" behind a name, an alias, timm's name, or a "hf-hub:" form."""
    # as it stands, then as an alias, then in two parts; what is left is an error with the nearest names
    specs, weights = _rows()
    plain = name.removeprefix("hf-hub:").removeprefix("timm/")
    if plain in weights or plain in specs:
        return plain
    if plain in _aliases():
        return _aliases()[plain]
    arch, tag = split_name(plain)
    arch = _aliases().get(arch, arch)  # timm's architecture with a tag of ours
    if f"{arch}.{tag}" in weights:
        return f"{arch}.{tag}"
    if arch in specs:
        tags = [w.tag for w in weights_of(arch)]
        hint = nearest(tag, tags) or f"; its tags are {', '.join(tags) or 'none'}"
        raise UsageError(f"unknown weights {tag!r} of {arch}{hint}")
    raise UsageError(
        f"unknown model {name!r}{nearest(plain, [*specs, *weights, *_aliases()])} (`fmjax models` lists all)"
    )


_registered: list[ViTSpec | Weights] = []  # what `register` has added, behind the rows of the zoo


def register(*rows: ViTSpec | Weights | Dialect) -> None:
    """Adds your own architectures, weights and dialects to those of the package, for this process.

    A row that was added before, and is the same, is left as it is. Raises UsageError, and adds nothing, where a name is
    taken, weights have no architecture, or a source has a dialect that does not exist.
    """
    from weights_conversion.detection import dialects
    from weights_conversion.detection import register as add_dialect
    from weights_conversion.dialect import Dialect

    specs, weights = _rows()
    # a notebook's cell, and a preset's file, may be run twice
    rows = tuple(row for row in rows if row not in _registered)
    new_specs = [row for row in rows if isinstance(row, ViTSpec)]
    new_weights = [row for row in rows if isinstance(row, Weights)]
    new_dialects = [row for row in rows if isinstance(row, Dialect)]
    # everything is checked before anything is added
    _check_new(new_specs, specs)
    _check_new(new_weights, weights)
    _check_new(new_dialects, dialects())
    models = [*specs, *(spec.name for spec in new_specs)]
    tables = [*dialects(), *(dialect.name for dialect in new_dialects)]
    for row in new_weights:
        _check_weights(row, models, tables)
    for dialect in new_dialects:
        add_dialect(dialect)
    _registered.extend([*new_specs, *new_weights])
    _rows.cache_clear()
    _aliases.cache_clear()


def _check_new(rows: Sequence[ViTSpec | Weights | Dialect], known: Container[str]) -> None:
    """Raises UsageError where a name is taken, or given twice."""
    names = [row.name for row in rows]
    taken = [name for name in names if name in known or names.count(name) > 1]
    if taken:
        kind = type(rows[0]).__name__
        raise UsageError(f"{kind} {taken[0]!r} exists already; give yours another name")


def _check_weights(row: Weights, models: Sequence[str], tables: Sequence[str]) -> None:
    """Raises UsageError where weights have no architecture, or a source has a dialect that does not exist."""
    if row.model not in models:
        hint = nearest(row.model, models)
        raise UsageError(f"weights {row.name!r} are of no architecture {row.model!r}{hint}")
    unknown = [source.dialect for source in row.sources if source.dialect not in tables]
    if unknown:
        hint = nearest(unknown[0], tables)
        raise UsageError(f"weights {row.name!r}: no dialect {unknown[0]!r}{hint}")


@functools.cache
def _rows() -> tuple[dict[str, ViTSpec], dict[str, Weights]]:
    from fmjax import zoo

    specs = [*zoo.SPECS, *(row for row in _registered if isinstance(row, ViTSpec))]
    weights = [*zoo.WEIGHTS, *(row for row in _registered if isinstance(row, Weights))]
    return {s.name: s for s in specs}, {w.name: w for w in weights}


@functools.cache
def _aliases() -> dict[str, str]:
    """Other spellings -> registered name. A spelling that two rows share names neither."""
    specs, weights = _rows()
    # names in other places: in the rows, and of a hub's repositories
    pairs = [(alias, s.name) for s in specs.values() for alias in s.aliases]
    pairs += [(alias, w.name) for w in weights.values() for alias in w.aliases]
    hubs = [(s.location, w.name) for w in weights.values() for s in w.sources if s.kind == "hf"]
    pairs += [(location.removeprefix("timm/"), name) for location, name in hubs]
    owners: dict[str, set[str]] = {}
    for alias, name in pairs:
        owners.setdefault(alias, set()).add(name)
    return {alias: names.pop() for alias, names in owners.items() if len(names) == 1}


def _words() -> dict[str, tuple[str, ...]]:
    """What a search looks for a row in, in lower case."""
    from fmjax.zoo import FAMILY

    specs, weights = _rows()
    of_weights = {name: _names_of(row) for name, row in weights.items()}
    found = {}
    for name, spec in specs.items():
        rows = [row.name for row in weights_of(name)]
        family = FAMILY.get(name, "").lower()
        # weights are found by the words of their architecture, and an architecture by those of its weights
        own = (name.lower(), *(alias.lower() for alias in spec.aliases), family)
        found[name] = (*own, *(word for row in rows for word in of_weights[row]))
        found |= {row: (*own, *of_weights[row]) for row in rows}
    return found


def _names_of(weights: Weights) -> tuple[str, ...]:
    locations = [source.location for source in weights.sources if source.kind == "hf"]
    return tuple(word.lower() for word in (weights.name, *weights.aliases, *locations))


def _finds(pattern: str, words: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(word, pattern) for word in words)
