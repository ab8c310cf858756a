"""Which function a file is computed with, where publishers of the same weights compute them differently."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import weights_conversion as wc
from fmjax.errors import CheckpointError
from fmjax.names import weights_of
from fmjax.specs import Rope, Source, ViTSpec, Weights
from weights_conversion.errors import quoted
from weights_conversion.readers.common import parsed

MAX_FACTS = 2000  # characters; those of the largest model take 60
PERIODS = get_args(get_type_hints(Rope)["period_dtype"])


def _class_tokens(spec: ViTSpec, value: object) -> bool:
    """Whether it lists some class tokens of the model."""
    if not isinstance(value, list) or not value:
        return False
    if any(type(number) is not int for number in value):
        return False
    # jax clamps an index behind the tokens, which would silently be the last token
    distinct = set(value)
    if len(distinct) < len(value) or spec.pool != "cls":
        return False
    return distinct <= set(range(spec.num_cls))


# the fields that a file's own values can decide -> whether a value is one that the model has a place for
FACTS: dict[str, Callable[[ViTSpec, object], bool]] = {
    "rope.period_dtype": lambda spec, value: spec.rope is not None and value in PERIODS,
    "pool_tokens": _class_tokens,
}


def spec_of_publisher(spec: ViTSpec, weights: Weights | None, dialect: str) -> ViTSpec:
    """The spec as the code computes it that publishes these weights in a dialect, or in another of the same code."""
    source = _source(weights, dialect) if weights else None
    # what differs in nothing from the authors' own has no publisher: an equal function is an equal spec
    if source is None or not (source.overrides or source.preprocessing):
        return spec
    return replace(spec, publisher=source.dialect, **source.overrides)


def same_function(spec: ViTSpec, weights: Weights | None, one: str, other: str) -> bool:
    """Whether the code behind two dialects computes one function of images of the position table's own size: there the
    table is not resampled."""
    at_its_size = {"resample": spec.resample, "publisher": ""}
    ours = spec_of_publisher(spec, weights, one)
    theirs = spec_of_publisher(spec, weights, other)
    return replace(ours, **at_its_size) == replace(theirs, **at_its_size)


def weights_of_publisher(weights: Weights, publisher: str) -> Weights:
    """The weights with the preprocessing of a publisher, named by a dialect as in ViTSpec.publisher."""
    source = _source(weights, publisher) if publisher else None
    return weights if source is None else replace(weights, **source.preprocessing)


def _source(weights: Weights, dialect: str) -> Source | None:
    # of several with the same code, the one of this very dialect: open_clip and timm run timm's towers, and preprocess
    # images each in its own way
    code = {name: table.code or name for name, table in wc.dialects().items()}
    wanted = code.get(dialect)
    same = [source for source in weights.sources if code.get(source.dialect, "") == wanted]
    own = [source for source in same if source.dialect == dialect]
    return next(iter(own or same), None)


def with_facts(spec: ViTSpec, facts: Mapping[str, Any]) -> ViTSpec:
    """The spec with what the file's own values say: "rope.period_dtype" is a field of its rope. Raises CheckpointError
    for a fact that no file can decide, or that the model has no part for."""
    for name, value in facts.items():
        if name not in FACTS or not FACTS[name](spec, value):
            said = f"{quoted(name)} = {quoted(str(value))}"
            lack = f"the file says {said}, which {spec.name} has no place for"
            raise CheckpointError(f"{lack}; take another file")
        # metadata is JSON, which has lists where specs have tuples
        spec = _with_field(spec, name, tuple(value) if isinstance(value, list) else value)
    return spec


def _with_field(spec: ViTSpec, name: str, value: Any) -> ViTSpec:
    part, _, inner = name.partition(".")
    if inner:
        value = replace(getattr(spec, part), **{inner: value})
    return replace(spec, **{part: value})


def facts_in(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What a converted file was told by its original. Raises CheckpointError for metadata that fmjax did not write."""
    # the length is looked at first: parsing a hostile text may take long
    text = metadata.get("facts", "{}")
    try:
        facts = parsed(text.encode()) if len(text) <= MAX_FACTS else None
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        damage = f"the metadata 'facts' of the file is damaged: {quoted(text, 60)}"
        raise CheckpointError(f"{damage}; convert it again")
    return facts


def differences(spec: ViTSpec, dialect: str) -> str:
    """What the library that reads a dialect computes differently from this model, in words; "" where nothing is known
    to differ."""
    # the row that the model was asked for with, else any of its architecture
    rows = weights_of(spec.name)
    own = [row for row in rows if row.name == spec.weights]
    theirs = spec_of_publisher(spec, next(iter(own or rows), None), dialect)
    changes = []
    for name in (f.name for f in fields(spec) if f.name != "publisher"):
        here, there = getattr(spec, name), getattr(theirs, name)
        if here != there:
            changes.append(f"{name} {there!r} instead of {here!r}")
    return ", ".join(changes)
