"""Whose memory is asked for: models, what a step keeps and trains, and the cards. Imports no jax."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu import cases as gpu
from fmjax.commands import surroundings

Fields = Mapping[str, Any]
# images in a step on one card, the most first
BATCHES = tuple(2**power for power in reversed(range(11)))
SHARE = float(surroundings.MEMORY[1])  # of a card's memory that the programs of a command have
# Name -> GiB as CUDA says them, of the card of this size that has the least: the rest is its own (ECC, firmware)
CARDS = {
    "141 GB": 139.8,  # H200
    "80 GB": 79.1,  # H100, A100
    "40 GB": 39.4,  # A100
    "24 GB": 22.0,  # L4; an RTX 4090 has 23.6
    "16 GB": 14.56,  # T4; an RTX 4080 has 15.6
}


@dataclass(frozen=True)
class Model:
    """A name, and pixels of a side."""

    name: str
    size: int = 224


# those that are timed on GPUs, and more of their kind
MODELS = {
    "ViT-B/16": Model(gpu.MODELS["ViT-B/16"].ours),
    "ViT-L/14": Model(gpu.MODELS["ViT-L/14"].ours),
    "ViT-H/14": Model("ViT-H-14.laion2b_s32b_b79k"),
    "DINOv2-L/14": Model("dinov2_vitl14.lvd142m"),
    "DINOv2-L/14, 518 pixels": Model("dinov2_vitl14.lvd142m", 518),
    "EVA02-L/14, 336 pixels": Model(gpu.MODELS["EVA02-L/14"].ours, 336),
    "DINOv2-g/14": Model(gpu.MODELS["DINOv2-g/14"].ours),
    "EVA02-E/14": Model("EVA02-E-14-plus.laion2b_s9b_b144k"),
}
# whose blocks are also traced one by one, as a run without flags does on a GPU; 64 blocks never are
TRACED = ("ViT-B/16", "ViT-L/14", "DINOv2-g/14")
# What blocks keep for the backward pass, as flags -> fields of the run's config
UNROLLED: Fields = {"remat": "dots"}  # what a run without flags does on a GPU, up to 48 blocks
SCANNED: Fields = {"remat": "dots", "unroll": False}
LEAST: Fields = {"remat": "full", "unroll": False}
KEPT = {
    "--remat dots": UNROLLED,
    "--remat dots --unroll false": SCANNED,
    "--remat full --unroll false": LEAST,
}
# What is trained by what, as flags -> fields of its recipe
ADAMW: Fields = {}
HALF: Fields = {"moments": "bfloat16"}
FACTORED: Fields = {"optimiser": "adafactor"}
ADAPTERS: Fields = {"lora_rank": 16}
NARROW: Fields = ADAPTERS | {"frozen": "bfloat16"}
TRAINED = {
    "AdamW": ADAMW,
    "AdamW, --recipe.moments bfloat16": HALF,
    "--recipe.optimiser adafactor": FACTORED,
    "AdamW, --recipe.lora-rank 16": ADAPTERS,
    "AdamW, --recipe.lora-rank 16 --recipe.frozen bfloat16": NARROW,
}
# how a step computes: a T4 has neither bfloat16 nor cuDNN's attention, nor the kernels in Pallas
FAST: Fields = {"dtype": "bfloat16"}
OLD: Fields = {"dtype": "float16", "attention": "xla", "norms": "xla", "activations": "xla"}
COMPUTED = {"": FAST, "as on a T4": OLD}


@dataclass(frozen=True)
class Case:
    """A row: keys of the tables above."""

    model: str
    kept: str
    trained: str = "AdamW"
    computed: str = ""

    @property
    def name(self) -> str:
        told = (self.model, self.kept, self.trained, self.computed)
        return ", ".join(filter(None, told))


def _of(table: Mapping[str, Any], value: Any) -> str:
    """The key of a value."""
    return next(key for key, other in table.items() if other == value)


def _cases() -> Iterator[Case]:
    dots, default, full = _of(KEPT, SCANNED), _of(KEPT, UNROLLED), _of(KEPT, LEAST)
    half, factored = _of(TRAINED, HALF), _of(TRAINED, FACTORED)
    adapters, narrow = _of(TRAINED, ADAPTERS), _of(TRAINED, NARROW)
    for model in MODELS:
        if model in TRACED:
            yield Case(model, default)
        yield Case(model, dots)
        yield Case(model, full)
    # the state is most of what the largest take
    largest = list(MODELS)[-1]
    for trained in (half, factored, adapters, narrow):
        yield Case(largest, full, trained)
    for trained in (half, adapters, narrow):
        yield Case("DINOv2-g/14", full, trained)
    yield Case("ViT-B/16", dots, computed=_of(COMPUTED, OLD))


CASES = tuple(_cases())
