"""What is known of a row: as a record for machines, a line of a list, or a page. Imports no jax."""

from __future__ import annotations

import dataclasses
from typing import Any

from fmjax import names
from fmjax.models.flops import flops
from fmjax.specs import ViTSpec, Weights


def record(name: str) -> dict[str, Any]:
    """The facts of a registered "arch" or "arch.tag" that a list shows."""
    spec = names.get_spec(name)
    # an architecture is told by all of its weights, weights by themselves
    is_architecture = name == spec.name
    rows = names.weights_of(name) if is_architecture else [names.get_weights(name)]
    # what no source confirms is said wherever the row is shown
    doubts = {weights.tag: weights.unverified for weights in rows if weights.unverified}
    own = {"tags": [weights.tag for weights in rows]} if is_architecture else _published(rows[0])
    unverified = doubts if is_architecture else rows[0].unverified
    return {
        "name": name,
        "parameters": spec.parameters,
        "float32_bytes": 4 * spec.parameters,
        "gflops": round(flops(spec).forward / 1e9, 2),
        "width": spec.width,
        "depth": spec.depth,
        "patch_size": spec.patch_size,
        "image_size": spec.image_size,
        "licence": " / ".join(dict.fromkeys(weights.licence for weights in rows)),
        "dialects": sorted({source.dialect for weights in rows for source in weights.sources}),
        **own,
        "verified": not doubts,
        "unverified": unverified,
    }


def _published(weights: Weights) -> dict[str, Any]:
    return {
        "evaluated_at": weights.image_size,
        "num_classes": weights.num_classes,
        "sources": [
            f"{source.kind}:{source.location}:{source.filename}" for source in weights.sources
        ],
        "accuracy": dict(weights.accuracy),
    }


def full_record(name: str) -> dict[str, Any]:
    """The facts of a list, the graph, and for "arch.tag" the whole row of its weights."""
    spec = dataclasses.asdict(names.get_spec(name))
    del spec["aliases"]
    facts = record(name) | {"spec": spec}
    if "tags" not in facts:
        facts["weights"] = dataclasses.asdict(names.get_weights(name))
    return facts


def line(row: dict[str, Any]) -> str:
    """A record as a line of a list."""
    shape = (
        f"{row['parameters'] / 1e6:>7,.1f} M, patch {row['patch_size']}, {row['image_size'][0]} px"
    )
    doubt = "" if row["verified"] else " (not all verified)"
    return f"{row['name']:<48}{shape}, {row['licence']}{doubt}"


def page(name: str) -> str:
    """What a person wants to know of one model, of some 20 lines."""
    facts, spec = record(name), names.get_spec(name)
    height, width = spec.image_size
    rows = {
        "graph": f"width {spec.width}, depth {spec.depth}, {spec.num_heads} heads, MLP {spec.mlp_dim} ({spec.mlp}), "
        f"patch {spec.patch_size}, {spec.activation}",
        "positions": f"{_positions(spec)}, made for {height} x {width}; resampled {spec.resample}",
        "size": f"{spec.parameters / 1e6:,.1f} M parameters, {facts['float32_bytes'] / 1e9:,.2f} GB in float32, "
        f"{facts['gflops']:,.1f} GFLOPs an image at {height} x {width}",
        "outputs": _outputs(spec),
        "licence": facts["licence"],
    }
    # an architecture has tags, one set of weights its images, sources and scores
    if "tags" in facts:
        rows["weights"] = ", ".join(facts["tags"]) or "none"
    else:
        rows |= _weights_rows(names.get_weights(name))
    doubts = facts["unverified"]
    if doubts:
        of_tags = dict.fromkeys(doubts.values()) if isinstance(doubts, dict) else (doubts,)
        rows["unverified"] = "; ".join(of_tags)
    return "\n".join([name, *(f"  {title:<12}{text}" for title, text in rows.items() if text)])


def _weights_rows(weights: Weights) -> dict[str, str]:
    height, width = weights.image_size
    how = f"{weights.resize_mode}, {weights.interpolation}, crop {weights.crop_pct:g}"
    found = {
        "images": f"{height} x {width} ({how}), mean {weights.mean}, std {weights.std}",
        "classifier": f"{weights.num_classes} classes" if weights.num_classes else "",
        "accuracy": ", ".join(f"{name} {value:g} %" for name, value in weights.accuracy.items()),
        "note": weights.note,
    }
    # in the order in which they are tried
    for number, source in enumerate(weights.sources, 1):
        found[f"source {number}"] = (
            f"{source.kind} {source.location} {source.filename} ({source.dialect})"
        )
    return found


def _positions(spec: ViTSpec) -> str:
    kinds = {
        "cls_patches": "a learned table",
        "patches": "a learned table of the patches",
        "none": "no table",
    }
    return kinds[spec.positions] + (" and rotary" if spec.rope else "")


def _outputs(spec: ViTSpec) -> str:
    rows, columns = spec.grid
    pooled = f"pooled [B {spec.embed_dim or spec.pool_dim}]"
    patches = f"patches [B {rows} {columns} {spec.width}]"
    counts = {"class": spec.num_cls, "register": spec.num_registers}
    others = [f"{count} {kind} tokens" for kind, count in counts.items() if count]
    return ", ".join([pooled, patches, *others])
