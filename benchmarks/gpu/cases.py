"""What is measured, the most important first. Imports neither jax nor torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from fmjax.bench.timing import STEPS as ROUND_STEPS
from fmjax.bench.timing import TIME_S
from fmjax.names import get_spec, get_weights, register
from fmjax.specs import ViTSpec

Side = Literal["ours", "peers"]
Kind = Literal["reference", "agreement", "product", "train", "profile", "forward", "attention"]
Product = tuple[int, int, int]
CLASSES = 1000
STEPS: tuple[Kind, ...] = ("train", "profile", "forward")  # kinds of a model and a batch
# seconds that a row takes on an H200, and some: compiling, warming up and timing. With less left it is not begun
NEEDS: dict[Kind, float] = {
    "reference": 20,
    "agreement": 60,
    "product": 8,
    "train": 25,
    "profile": 10,
    "forward": 15,
    "attention": 25,
}
COMPILES = 50.0  # torch.compile of a training step, and XLA's of one without a loop over blocks
TRIES = 150.0  # the same with every product tried in many ways


@dataclass(frozen=True)
class Model:
    """The same network in all libraries; open_clip's and transformers' are made of fmjax's row."""

    ours: str
    timm: str
    size: int  # pixels
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of timm's
    changes: Mapping[str, Any] = field(
        default_factory=dict
    )  # of fmjax's row, where no run is made of it


# CLIP's towers with the erf form of GELU, which timm's eager mode computes in one kernel
MODELS = {
    "ViT-L/14": Model("ViT-L-14.laion2b_s32b_b82k", "vit_large_patch14_clip_224", 224),
    "ViT-B/16": Model("ViT-B-16.laion2b_s34b_b88k", "vit_base_patch16_clip_224", 224),
    "ViT-H/14": Model("ViT-H-14.laion2b_s32b_b79k", "vit_huge_patch14_clip_224", 224),
    "ViT-g/14": Model("ViT-g-14.laion2b_s34b_b88k", "vit_giant_patch14_clip_224", 224),
    "DINOv2-L/14": Model(
        "dinov2_vitl14.lvd142m", "vit_large_patch14_dinov2", 224, {"img_size": 224}
    ),
    "DINOv2-L/14 at 518": Model("dinov2_vitl14.lvd142m", "vit_large_patch14_dinov2", 518),
    "DINOv2-g/14": Model(
        "dinov2_vitg14.lvd142m", "vit_giant_patch14_dinov2", 224, {"img_size": 224}
    ),
    "DINOv2-g/14 at 518": Model("dinov2_vitg14.lvd142m", "vit_giant_patch14_dinov2", 518),
    "EVA02-B/16": Model("EVA02-B-16.merged2b_s8b_b131k", "eva02_base_patch16_clip_224", 224),
    "EVA02-L/14": Model("EVA02-L-14-336.merged2b_s6b_b61k", "eva02_large_patch14_clip_336", 336),
    "EVA02-E/14": Model("EVA02-E-14.laion2b_s4b_b115k", "eva02_enormous_patch14_clip_224", 224),
}
TINY = Model(
    "demo_vit_ti4.fashion_mnist",
    "vit_tiny_patch16_224",
    28,
    {"img_size": 28, "patch_size": 4, "embed_dim": 96, "depth": 6, "num_heads": 3},
)
# of the shape of CLIP's, which open_clip and transformers have
TINY_CLIP = Model(
    "ViT-B-16.laion2b_s34b_b88k",
    "vit_base_patch16_clip_224",
    32,
    changes={"width": 96, "depth": 2, "num_heads": 3, "mlp_dim": 384, "embed_dim": 64},
)
SQUARE: Product = (8192, 8192, 8192)
TOKENS = 128 * 257
# q, k, v or out; the three in one; up; down
PRODUCTS: tuple[Product, ...] = (
    SQUARE,
    (TOKENS, 1024, 1024),
    (TOKENS, 1024, 3072),
    (TOKENS, 1024, 4096),
    (TOKENS, 4096, 1024),
)
# tokens and head width of attention, with 16 heads
HEADS = 16
ATTENTION = ((197, 64), (257, 64), (577, 64), (1370, 64), (257, 88))


@dataclass(frozen=True)
class Case:
    """A row. options: fields of the run's config (ours), or how torch computes (peers)."""

    side: Side
    kind: Kind
    model: str = "ViT-L/14"
    batch: int = 128
    options: Mapping[str, Any] = field(default_factory=dict)
    blocks: int = 0  # so many first ones alone, of fmjax's; 0: all

    @property
    def name(self) -> str:
        told = " ".join(f"{name}={value}" for name, value in self.options.items())
        library = {"ours": "fmjax", "peers": "torch"}[self.side]
        cut = f" of {self.blocks} blocks" if self.blocks else ""
        of = f" {self.model}{cut} batch {self.batch}" if self.kind in STEPS else ""
        return f"{library} {self.kind}{of} {told}".rstrip()

    @property
    def needs_s(self) -> float:
        """Seconds without which the row is not begun."""
        mode = self.options.get("compile", "no")
        if mode.startswith("max-autotune"):
            return TRIES
        # fmjax's blocks are unrolled unless it is told otherwise
        compiles = mode != "no" or (self.side == "ours" and self.options.get("unroll", True))
        return COMPILES if compiles and self.kind == "train" else NEEDS[self.kind]

    @property
    def told(self) -> dict[str, Any]:
        """What a row of the results begins with."""
        told = {"row": self.name, "side": self.side, "kind": self.kind, "model": self.model}
        cut = {"blocks": self.blocks} if self.blocks else {}
        return told | {"batch": self.batch, "options": dict(self.options)} | cut

    @property
    def slug(self) -> str:
        """The name as that of a file."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.name)


XLA = {"remat": "dots", "attention": "xla", "norms": "xla", "activations": "xla", "unroll": False}
CUDNN = XLA | {"attention": "cudnn"}
NORMED = CUDNN | {"norms": "pallas"}
FUSED = NORMED | {"activations": "pallas"}
FP8 = {"dtype": "fp8"}  # its rate alone, by which benchmarks/fp8 says what a step would gain
UNROLLED = FUSED | {"unroll": True}  # all that auto comes to, but for attention of few tokens
# of a forward pass, which keeps nothing
FORWARD = {name: value for name, value in UNROLLED.items() if name != "remat"}
FORWARD_XLA = {name: value for name, value in XLA.items() if name != "remat"}
EAGER, COMPILED = {"compile": "no"}, {"compile": "default"}
TRIED = {"compile": "max-autotune-no-cudagraphs"}
WHOLE = {"compile": "step"}  # both passes and the optimiser as one
LARGEST = {"remat": "full"}  # EVA02-E's state takes 49 GB


def ours(kind: Kind, model: str = "ViT-L/14", batch: int = 128, **options: Any) -> Case:
    return Case("ours", kind, model, batch, options)


def peers(kind: Kind, model: str = "ViT-L/14", batch: int = 128, **options: Any) -> Case:
    return Case("peers", kind, model, batch, options)


def compared_with(library: str) -> tuple[Case, ...]:
    """The rows of a library beside timm, once its function is known to be the same."""
    by = {"sdpa": "cudnn", "library": library}
    return (
        peers("reference", "ViT-B/16", 8, library=library),
        ours("agreement", "ViT-B/16", 8, library=library),
        peers("train", **COMPILED, **by),
        peers("train", **WHOLE, **by),
        peers("forward", **COMPILED, **by),
    )


def both(model: str, batch: int, forward: int, **options: Any) -> Iterator[Case]:
    """A model of the table: fmjax's rows and those of timm. batch, forward: images of both kinds of rows. options: of
    training."""
    yield ours("train", model, batch, **options)
    yield ours("forward", model, forward)
    yield peers("train", model, batch, **COMPILED, sdpa="cudnn")
    yield peers("forward", model, forward, **COMPILED, sdpa="cudnn")


# What has no options is as a run without flags has it. Rows of one library that follow each other share a process
CASES = (
    ours("product"),
    # a ratio of two functions would say nothing
    peers("reference", "ViT-B/16", 8),
    ours("agreement", "ViT-B/16", 8),
    ours("train"),
    ours("train", "ViT-B/16"),
    ours("forward"),
    ours("forward", "ViT-B/16"),
    ours("profile"),
    ours("train", "EVA02-L/14", 64),
    ours("train", "DINOv2-g/14", 64),
    peers("train", **COMPILED, sdpa="cudnn"),
    peers("train", "ViT-B/16", **COMPILED, sdpa="cudnn"),
    ours("product", **FP8),
    peers("forward", **COMPILED, sdpa="cudnn"),
    peers("forward", "ViT-B/16", **COMPILED, sdpa="cudnn"),
    peers("train", "EVA02-L/14", 64, **COMPILED, sdpa="cudnn"),
    peers("train", "DINOv2-g/14", 64, **COMPILED, sdpa="cudnn"),
    peers("forward", "EVA02-L/14", 64, **COMPILED, sdpa="cudnn"),
    peers("forward", "DINOv2-g/14", 64, **COMPILED, sdpa="cudnn"),
    ours("forward", "DINOv2-g/14", 64),
    ours("forward", "EVA02-L/14", 64),
    ours("train", **UNROLLED),
    ours("train", "ViT-B/16", **UNROLLED),
    ours("forward", **FORWARD),
    ours("forward", "ViT-B/16", **FORWARD),
    ours("train", **UNROLLED | {"activations": "xla"}),
    ours("forward", **FORWARD | {"unroll": False}),
    peers("train", **TRIED, sdpa="cudnn"),
    ours("profile", "ViT-B/16"),
    ours("train", **FUSED),
    ours("train", **NORMED),
    ours("train", **CUDNN | {"unroll": True}),
    ours("train", **CUDNN),
    ours("attention"),
    peers("train", **COMPILED, sdpa="flash"),
    peers("train", **EAGER, sdpa="cudnn"),
    peers("train", **EAGER, sdpa="flash"),
    peers("attention"),
    peers("train", "ViT-B/16", **EAGER, sdpa="cudnn"),
    peers("forward", "ViT-B/16", **EAGER, sdpa="cudnn"),
    peers("forward", **EAGER, sdpa="cudnn"),
    peers("profile", **COMPILED, sdpa="cudnn"),
    peers("profile", "ViT-B/16", **COMPILED, sdpa="cudnn"),
    ours("train", **XLA),
    ours("forward", **FORWARD_XLA),
    peers("train", "DINOv2-g/14", 64, **EAGER, sdpa="cudnn"),
    peers("train", "EVA02-L/14", 64, **EAGER, sdpa="cudnn"),
    peers("product"),
    peers("forward", **EAGER, sdpa="flash"),
    ours("train", "ViT-B/16", **FUSED),
    ours("train", "ViT-B/16", **CUDNN),
    ours("train", "ViT-B/16", **XLA),
    ours("forward", "ViT-B/16", **FORWARD_XLA),
    *both("DINOv2-L/14", 128, 128),
    *both("ViT-H/14", 64, 128),
    *both("ViT-g/14", 64, 64),
    *both("EVA02-B/16", 128, 128),
    *both("DINOv2-L/14 at 518", 16, 32),
    *both("DINOv2-g/14 at 518", 8, 16),
    *both("EVA02-E/14", 16, 32, **LARGEST),
    # each at the batch that it is fastest with
    ours("train", "ViT-L/14", 256),
    peers("train", "ViT-L/14", 256, **COMPILED, sdpa="cudnn"),
    ours("train", "ViT-B/16", 512),
    peers("train", "ViT-B/16", 512, **COMPILED, sdpa="cudnn"),
    peers("train", **WHOLE, sdpa="cudnn"),
    *compared_with("open_clip"),
    *compared_with("transformers"),
)
NAMED = {case.name: case for case in CASES}


def model_of(case: Case, *, tiny: bool) -> Model:
    """The networks of a row."""
    if not tiny:
        model = MODELS[case.model]
        return replace(model, ours=_cut(model.ours, case.blocks)) if case.blocks else model
    return TINY if library_of(case) == "timm" else TINY_CLIP


def _cut(name: str, blocks: int) -> str:
    """Adds a network of so many blocks of one to the roster of this process, and returns its name."""
    spec, weights = get_spec(name), get_weights(name)
    cut = replace(spec, name=f"{spec.name}_{blocks}", depth=blocks, aliases=(), weights="")
    # its preprocessing is that of the weights
    own = replace(weights, model=cut.name, aliases=())
    register(cut, own)
    return own.name


def library_of(case: Case) -> str:
    """Whose network is computed by torch, or fmjax's compared with."""
    return case.options.get("library", "timm")


def spec_of(model: Model) -> ViTSpec:
    """fmjax's graph of a network, at its size."""
    size = (model.size, model.size)
    return replace(get_spec(model.ours), image_size=size, **model.changes)


def batch_of(case: Case, *, tiny: bool) -> int:
    """Images of a row."""
    return 4 if tiny else case.batch


def products_of(*, tiny: bool) -> tuple[Product, ...]:
    """The products of matrices, rows x contracted x columns."""
    return ((64, 64, 64), (40, 32, 96)) if tiny else PRODUCTS


def attention_of(*, tiny: bool) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Images, and of each case tokens and head width."""
    return (1, ((18, 16),)) if tiny else (64, ATTENTION)


def length_of(*, tiny: bool, seconds: float = TIME_S) -> dict[str, Any]:
    """How long something is timed: seconds of all rounds, and steps of each at least."""
    return {"seconds": 0.0, "least": 2} if tiny else {"seconds": seconds, "least": ROUND_STEPS}
