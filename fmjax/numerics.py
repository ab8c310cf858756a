"""Which function a file is computed with, where publishers of the same weights compute them differently."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import weights_conversion as wc
from fmjax import specs
from fmjax.errors import CheckpointError
from fmjax.specs import ViTSpec, Weights

TOLD = ("rope.period_dtype", "pool_tokens")  # the fields that a file's own values can decide


def spec_in(spec: ViTSpec, weights: Weights | None, dialect: str) -> ViTSpec:
    """The spec as the code computes it that publishes these weights in a dialect, or in another of the same code."""
    code = {name: table.code or name for name, table in wc.dialects().items()}
    sources = [s for s in weights.sources if code.get(s.dialect, "") == code.get(dialect)] if weights else []
    return replace(spec, **(sources[0].overrides if sources else {}))


def as_told(spec: ViTSpec, facts: Mapping[str, Any]) -> ViTSpec:
    """The spec with what the file's own values say: "rope.period_dtype" is a field of its rope. Raises CheckpointError
    for a fact that no file can decide, or that the model has no part for."""
    for name, value in facts.items():
        part, _, inner = name.partition(".")
        value = tuple(value) if isinstance(value, list) else value
        if name not in TOLD or (inner and getattr(spec, part) is None):
            raise CheckpointError(f"the file says {name} = {value!r}, which {spec.name} has no place for")
        spec = replace(spec, **{part: replace(getattr(spec, part), **{inner: value}) if inner else value})
    return spec


def kept_facts(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What a converted file was told by its original. Raises CheckpointError for metadata that fmjax did not write."""
    try:
        facts = json.loads(metadata.get("facts", "{}"))
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise CheckpointError(f"the metadata 'facts' of the file is damaged: {metadata['facts'][:60]!r}")
    return facts


def differences(spec: ViTSpec, dialect: str) -> str:
    """What the library that reads a dialect computes differently from this model, in words; "" where nothing is known
    to differ."""
    rows = [specs.get_weights(n) for n in specs.list_models(f"{spec.name}.*", pretrained=True)]
    rows = [row for row in rows if row.model == spec.name]
    row = next((row for row in rows if row.name == spec.weights), rows[0] if rows else None)
    theirs = spec_in(spec, row, dialect)
    changed = [f.name for f in fields(spec) if getattr(spec, f.name) != getattr(theirs, f.name)]
    return ", ".join(f"{name} {getattr(theirs, name)!r} instead of {getattr(spec, name)!r}" for name in changed)
