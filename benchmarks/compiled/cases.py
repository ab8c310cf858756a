"""What is compiled for an H100: the engine's own step, and the forward pass."""

from __future__ import annotations

from benchmarks.gpu.cases import CASES as MEASURED
from benchmarks.gpu.cases import CUDNN, FASTEST, FUSED, Case, ours

# by default: what a test holds
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
PLAIN = {"remat": "none", "attention": "xla", "norms": "xla"}
# a step on eight devices
SPLIT = ours("train", batch=1024)
# each lever alone, and together
LEVERS = (
    ours("train", **PLAIN),
    ours("train", **PLAIN | {"remat": "dots"}),
    ours("train", **PLAIN | {"remat": "full"}),
    ours("train", **PLAIN | {"attention": "cudnn"}),
    ours("train", **PLAIN | {"norms": "pallas"}),
    ours("train", **CUDNN),
    ours("train", **FUSED),
    ours("train", **CUDNN, unroll=True),
    ours("train", **FUSED, unroll=True),
    ours("forward", attention="xla", norms="xla"),
    ours("forward", attention="cudnn", norms="xla"),
    ours("forward", attention="xla", norms="pallas"),
    ours("forward", **FASTEST),
    ours("forward", **FASTEST, unroll=True),
)


def _all() -> dict[str, Case]:
    """Those, and what is measured on GPUs, beside which the prediction stands."""
    measured = [x for x in MEASURED if x.side == "ours" and x.kind in ("train", "forward")]
    return {case.name: case for case in (*DEFAULTS, *LEVERS, *measured)}


CASES = tuple(_all().values())
