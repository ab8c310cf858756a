"""What is known of a row: as a record for machines, or a page. Imports no jax."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

from fmjax import names
from fmjax.errors import in_bytes
from fmjax.models.flops import flops
from fmjax.models.memory import estimate
from fmjax.programs import measured
from fmjax.specs import ViTSpec, Weights

# a published score, as its test is spoken of; one that a user's own row brings keeps its name
TESTS = {
    "imagenet1k_zeroshot": "ImageNet-1k zero-shot",
    "imagenet1k_knn": "ImageNet-1k nearest neighbours",
    "imagenet1k_linear": "ImageNet-1k linear probe",
    "imagenet_real_linear": "ImageNet-ReaL linear probe",
    "imagenet1k_attentive_probe": "ImageNet-1k attentive probe",
    "imagenet1k": "ImageNet-1k top-1",
    "imagenet1k_finetune": "ImageNet-1k after fine-tuning",
    "fashion_mnist": "Fashion-MNIST",
}


def record(name: str) -> dict[str, Any]:
    """The facts of a registered "arch" or "arch.tag" that a list shows."""
    spec = names.get_spec(name)
    # an architecture is told by all of its weights, weights by themselves
    is_architecture = name == spec.name
    rows = names.weights_of(name) if is_architecture else [names.get_weights(name)]
    # what no source confirms is said wherever the row is shown
    doubts = {weights.tag: weights.unverified for weights in rows if weights.unverified}
    own = _of_tags(rows) if is_architecture else _published(spec, rows[0])
    unverified = doubts if is_architecture else rows[0].unverified
    return {
        "name": name,
        "parameters": spec.parameters,
        "float32_bytes": 4 * spec.parameters,
        "gflops": _gflops(spec),
        "width": spec.width,
        "depth": spec.depth,
        "patch_size": spec.patch_size,
        "image_size": spec.image_size,
        "licence": " / ".join(dict.fromkeys(weights.licence for weights in rows)),
        "dialects": sorted({source.dialect for weights in rows for source in weights.sources}),
        "parity": measured.worst(spec.name, rows),
        **own,
        "verified": not doubts,
        "unverified": unverified,
    }


def _gflops(spec: ViTSpec) -> float:
    return round(flops(spec).forward / 1e9, 2)


def _of_tags(rows: list[Weights]) -> dict[str, Any]:
    """The tags of an architecture, and of each published score the best among them."""
    best: dict[str, float] = {}
    for weights in rows:
        for score, value in weights.accuracy.items():
            best[score] = max(value, best.get(score, 0.0))
    return {"tags": [weights.tag for weights in rows], "accuracy": best}


def _published(spec: ViTSpec, weights: Weights) -> dict[str, Any]:
    return {
        "evaluated_at": weights.image_size,
        "evaluated_gflops": _gflops(replace(spec, image_size=weights.image_size)),
        "num_classes": weights.num_classes,
        "sources": [
            f"{source.kind}:{source.location}:{source.filename}" for source in weights.sources
        ],
        "accuracy": dict(weights.accuracy),
    }


def full_record(name: str) -> dict[str, Any]:
    """The facts of a list, the graph, the errors and the memory, and for "arch.tag" the whole row of its weights."""
    spec = names.get_spec(name)
    graph = dataclasses.asdict(spec)
    # its other names find it, and say nothing of it
    del graph["aliases"]
    facts = record(name) | {"spec": graph, "memory_bytes": dataclasses.asdict(estimate(spec))}
    facts |= {
        "parity_by_dialect": measured.by_dialect(spec.name, _rows(name)),
        "parity_with_authors": {
            weights.name: found
            for weights in _rows(name)
            if (found := measured.beside_authors(weights.name))
        },
    }
    if "tags" not in facts:
        facts["weights"] = dataclasses.asdict(names.get_weights(name))
    return facts


def _rows(name: str) -> list[Weights]:
    """The weights that a name stands for: its own, or all of an architecture."""
    # an architecture's name is its spec's; of weights the spec is that of the architecture
    if name == names.get_spec(name).name:
        return names.weights_of(name)
    return [names.get_weights(name)]


def page(name: str) -> list[tuple[str, str]]:
    """What a person wants to know of one model, as (title, text) of some 20 lines."""
    facts, spec = record(name), names.get_spec(name)
    height, width = spec.image_size
    rows = {
        "graph": f"width {spec.width}, depth {spec.depth}, {spec.num_heads} heads, MLP {spec.mlp_dim} ({spec.mlp}), "
        f"patch {spec.patch_size}, {spec.activation}",
        "positions": f"{_positions(spec)}, made for {height} x {width}; resampled {spec.resample}",
        "outputs": _outputs(spec),
        "parameters": f"{in_millions(spec.parameters)}, {in_bytes(facts['float32_bytes'])} in float32",
        "compute": _compute(facts),
        **_memory(spec),
        "licence": facts["licence"],
    }
    # an architecture has tags, one set of weights its images, sources and scores
    if "tags" in facts:
        rows["weights"] = ", ".join(facts["tags"]) or "none"
    else:
        rows |= _weights_rows(names.get_weights(name))
    rows |= _parity(spec.name, _rows(name))
    doubts = facts["unverified"]
    if doubts:
        of_tags = dict.fromkeys(doubts.values()) if isinstance(doubts, dict) else (doubts,)
        rows["unverified"] = "; ".join(of_tags)
    return [(title, text) for title, text in rows.items() if text]


def in_millions(count: int) -> str:
    """A number of parameters: 86.6 M."""
    return f"{count / 1e6:,.1f} M"


def _compute(facts: dict[str, Any]) -> str:
    """The products of an image at the size of the positions, and at that of the published evaluation."""
    # evaluation may take another size than the positions were made for, and DINOv2's does;
    # back through the network is twice the way there (arXiv:2204.02311, app. B)
    height, width = facts["image_size"]
    found = f"{facts['gflops']:,.1f} GFLOPs an image at {height} x {width}"
    at = facts.get("evaluated_at", facts["image_size"])
    if at != facts["image_size"]:
        found += f", {facts['evaluated_gflops']:,.1f} at {at[0]} x {at[1]}"
    return f"{found}; a step of full fine-tuning is three times that"


def _memory(spec: ViTSpec) -> dict[str, str]:
    """The estimates with the formula of each: a compiler's account is --dry-run's."""
    # a step's activations depend on kernels and devices: only their floor can be told of a row
    found = estimate(spec)
    return {
        "memory": f"{in_bytes(found.forward)} to embed or probe: float32 parameters, with few images at a time",
        "fine-tuning": f"{in_bytes(found.finetune)} for parameters, gradients and AdamW's moments (16 bytes a "
        f"parameter), over the devices of --mesh.fsdp; with activations of {in_bytes(found.image_least)} an image or "
        f"more (depth x tokens x width, --remat full). `fmjax finetune {spec.weights or spec.name} --dry-run` asks the "
        f"compiler",
    }


def _weights_rows(weights: Weights) -> dict[str, str]:
    height, width = weights.image_size
    how = f"{weights.resize_mode}, {weights.interpolation}, crop {weights.crop_pct:g}"
    found = {
        "images": f"{height} x {width} ({how}), mean {weights.mean}, std {weights.std}",
        "classifier": f"{weights.num_classes} classes" if weights.num_classes else "",
        "accuracy": ", ".join(
            f"{TESTS.get(name, name)} {value:g} %" for name, value in weights.accuracy.items()
        ),
        "note": weights.note,
    }
    # in the order in which they are tried
    for number, source in enumerate(weights.sources, 1):
        found[f"source {number}"] = (
            f"{source.kind} {source.location} {source.filename} ({source.dialect})"
        )
    return found


def _parity(model: str, rows: list[Weights]) -> dict[str, str]:
    """The errors in each dialect, and beside the authors' own code."""
    # a backbone that was compared with nothing, as the demo, has no such line
    found = [
        f"{dialect} {errors['relative']:.1e}"
        for dialect, errors in measured.by_dialect(model, rows).items()
    ]
    beside = [
        f"{weights.name} {row['relative']:.1e} from {row['repository']} at {row['commit'][:10]}, {row['blocks']} of "
        f"{row['of_blocks']} blocks"
        for weights in rows
        if (row := measured.beside_authors(weights.name))
    ]
    told = {"parity": f"largest relative error of all tokens: {', '.join(found)}"} if found else {}
    return told | {"authors": "; ".join(beside)}


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
    others = [f"{count} {kind} token{'s' * (count > 1)}" for kind, count in counts.items() if count]
    return ", ".join([pooled, patches, *others])
