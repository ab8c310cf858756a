"""In what a fine-tuned model differs from the published one, as its exported file says it: other libraries read its
tensors by a config of their own, and fmjax by the name of its backbone and this."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from fmjax.errors import CheckpointError, UsageError
from fmjax.models.vit import ViT
from fmjax.names import get_spec
from fmjax.specs import ViTSpec, check_image_size
from weights_conversion.errors import quoted
from weights_conversion.readers import Checkpoint

KEY = "fmjax_tuned"  # in the file's metadata
MAX_LENGTH = 1_000  # characters; ours take 60
MAX_PIXELS = 2**26  # of an image


def facts_of(model: ViT, *, classifier: bool) -> dict[str, str]:
    """The metadata of an exported model; {} for one that the name of its backbone says all of."""
    spec, facts = model.spec, {}
    try:
        published = get_spec(spec.weights or spec.name)
    except UsageError:
        return {}  # a graph of the user's own, which has no name
    if spec.image_size != published.image_size:
        facts["image_size"] = list(spec.image_size)
    # where a model has a projection, the one head of timm is that: here it is a classifier
    if classifier and model.classifier is not None and spec.embed_dim:
        facts["embed_dim"] = 0
    return {KEY: json.dumps(facts)} if facts else {}


def as_tuned(spec: ViTSpec, file: Checkpoint) -> ViTSpec:
    """The spec of the model in an exported file: with a position table of another size, or a classifier in the place of
    the projection. Raises CheckpointError for facts that fmjax has not written."""
    text = file.metadata.get(KEY)
    if text is None:
        return spec
    # it becomes shapes: nothing but what `facts_of` writes, within the bounds of a run's own record
    facts = _parsed(text)
    size = facts.get("image_size", list(spec.image_size))
    whole = isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)
    known = facts.keys() <= {"image_size", "embed_dim"} and facts.get("embed_dim", 0) == 0
    if not (known and whole and 0 < size[0] * size[1] <= MAX_PIXELS and min(size) > 0):
        raise CheckpointError(
            f"{file.path}: the metadata {KEY!r} is damaged: {quoted(text, 60)}; export the run again"
        )
    try:
        check_image_size(tuple(size), spec)
    except UsageError as error:
        raise CheckpointError(f"{file.path} is of no such model: {error}") from error
    has_classifier = "embed_dim" in facts
    sized = replace(spec, image_size=tuple(size))
    return replace(sized, embed_dim=0, proj_bias=False) if has_classifier else sized


def _parsed(text: str) -> dict[str, Any]:
    try:
        facts = json.loads(text) if len(text) <= MAX_LENGTH else None
    except (ValueError, RecursionError):
        facts = None
    return facts if isinstance(facts, dict) else {"damaged": True}
