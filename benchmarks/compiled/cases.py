"""What is compiled for an H100: the engine's own step, and the forward pass."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.gpu.cases import CASES as MEASURED
from benchmarks.gpu.cases import (
    CUDNN,
    FORWARD,
    FORWARD_XLA,
    FUSED,
    NORMED,
    UNROLLED,
    XLA,
    Case,
    ours,
)

# without flags
DEFAULTS = (
    ours("train", "ViT-B/16"),
    ours("train", "ViT-L/14"),
    ours("train", "EVA02-L/14", 64),
    ours("train", "DINOv2-g/14", 64),
    ours("forward", "ViT-B/16"),
    ours("forward", "ViT-L/14"),
    ours("forward", "EVA02-L/14", 64),
    ours("forward", "DINOv2-g/14", 64),
)
# What a test holds: the same, of large networks the first blocks alone. Each block takes the compiler 1 to 4 s, and one
# more is what those before it are
BLOCKS = {"ViT-L/14": 6, "EVA02-L/14": 6, "DINOv2-g/14": 6}
HELD = tuple(replace(case, blocks=BLOCKS.get(case.model, 0)) for case in DEFAULTS)
PLAIN = XLA | {"remat": "none"}
# a step on eight devices, of the first blocks
SPLIT = replace(ours("train", "ViT-L/14", 1024), blocks=BLOCKS["ViT-L/14"])
# each lever alone, and together
LEVERS = (
    ours("train", **PLAIN),
    ours("train", **XLA),
    ours("train", **PLAIN | {"remat": "full"}),
    ours("train", **PLAIN | {"attention": "cudnn"}),
    ours("train", **PLAIN | {"norms": "pallas"}),
    ours("train", **PLAIN | {"activations": "pallas"}),
    ours("train", **PLAIN | {"unroll": True}),
    ours("train", **CUDNN),
    ours("train", **NORMED),
    ours("train", **FUSED),
    ours("train", **UNROLLED),
    ours("train", drop_path=0.4),
    ours("train", drop_path=0.4, drop_path_by="subset"),
    ours("forward", **FORWARD_XLA),
    ours("forward", **FORWARD_XLA | {"attention": "cudnn"}),
    ours("forward", **FORWARD_XLA | {"norms": "pallas"}),
    ours("forward", **FORWARD_XLA | {"activations": "pallas"}),
    ours("forward", **FORWARD_XLA | {"unroll": True}),
    ours("forward", **FORWARD),
)


def _all() -> dict[str, Case]:
    """Those, and what of the same models is measured on GPUs, beside which the prediction stands."""
    known = {_shape(case) for case in DEFAULTS}
    measured = [x for x in MEASURED if x.side == "ours" and _shape(x) in known]
    return {case.name: case for case in (*DEFAULTS, *LEVERS, *measured)}


def _shape(case: Case) -> tuple[str, str, int]:
    return case.kind, case.model, case.batch


CASES = tuple(_all().values())
KNOWN = {case.name: case for case in (*CASES, *HELD)}  # the table's rows, and what a test holds
