"""Every backbone in every dialect that it is published in, and the reference that knows the truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import fmjax
from fmjax.names import get_weights
from fmjax.specs import Rope, ViTSpec, Weights
from fmjax.weights.publisher import spec_of_publisher
from fmjax.zoo import FAMILY
from tests.parity import references as r

Size = tuple[int, int]

# the reference's own name for a model, where it is no alias of ours, and what it has to be told
TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT-B-32-256": ("vit_base_patch32_clip_256", {}),
    "ViT-B-16-plus-240": ("vit_base_patch16_plus_clip_240", {}),
    "ViT-H-14-378": ("vit_huge_patch14_clip_378", {}),
    "nv_dinov2_vitl14": (
        "vit_giant_patch14_dinov2",
        {"embed_dim": 1024, "num_heads": 16, "mlp_ratio": 2 * 2736 / 1024},
    ),
    "nv_dinov2_vitg14_reg4": ("vit_giant_patch14_reg4_dinov2", {}),
    "PE-Core-B-16": ("vit_pe_core_base_patch16_224", {}),
    "PE-Core-L-14-336": ("vit_pe_core_large_patch14_336", {}),
    "PE-Core-bigG-14-448": ("vit_pe_core_gigantic_patch14_448", {}),
    "PE-Core-S-16-384": ("vit_pe_core_small_patch16_384", {}),
    "PE-Core-T-16-384": ("vit_pe_core_tiny_patch16_384", {}),
    # like v3 without layer scales
    "C-RADIOv2-B": ("vit_huge_patch16_radio_v3", {"embed_dim": 768, "num_heads": 12}),
    "C-RADIOv2-L": ("vit_huge_patch16_radio_v3", {"embed_dim": 1024, "num_heads": 16}),
    "C-RADIOv2-H": ("vit_huge_patch16_radio_v3", {}),
    "C-RADIOv3-B": ("vit_base_patch16_radio_v3", {}),
    "C-RADIOv3-L": ("vit_large_patch16_radio_v3", {}),
    "C-RADIOv3-H": ("vit_huge_patch16_radio_v3", {}),
    "C-RADIOv3-g": ("vit_giant_patch16_radio_v3", {}),
    "C-RADIOv4-SO400M": ("vit_so400m_patch16_radio_v4", {}),
    "C-RADIOv4-H": ("vit_huge_patch16_radio_v4", {}),
    "dinov3_vitl16plus": (
        "vit_huge_plus_patch16_dinov3_qkvb",
        {"embed_dim": 1024, "num_heads": 16},
    ),
    "tips_s14": ("vit_base_patch14_reg1_tipsv2", {"embed_dim": 384, "num_heads": 6}),
}

# where the reference that reads these files here follows another image size in another way than their publisher does
ANTIALIAS = {"resample": "bicubic_antialias"}
DIFFERENT: dict[str, dict[str, Any]] = {
    "dinov2": ANTIALIAS,
    "dinov2_chunked": ANTIALIAS,
    "tao_nvdinov2": ANTIALIAS,
    "eva_clip": ANTIALIAS,
    "eva02_original": ANTIALIAS,
    "eva02_original_pretrain": ANTIALIAS,
    "eva02_original_finetune": ANTIALIAS,
    "mae": ANTIALIAS,
    "dino": ANTIALIAS,
    "tips_npz": ANTIALIAS,
    "hf_tipsv2": ANTIALIAS,
    "open_clip": ANTIALIAS,  # NV-CLIP's, whose towers TAO runs with open_clip's layers and its own resampling
}
# read by timm's own loader, then computed as timm does
BY_TIMM = {"big_vision_npz", "augreg_npz", "pe_original"}
ONE_SIZE = {"hf_aimv2"}  # the reference takes no other size


@dataclass(frozen=True)
class Case:
    """One architecture in one dialect, cut in depth but never in width."""

    model: str
    dialect: str

    @property
    def id(self) -> str:
        return f"{self.model}-{self.dialect}"

    @property
    def depth(self) -> int:
        return 1 if fmjax.get_spec(self.model).width > 1000 else 2

    @cached_property
    def spec(self) -> ViTSpec:
        """The spec as this dialect's publisher computes it, with what the reference does differently."""
        rows = published(self.model)
        dialect = "timm" if self.dialect in BY_TIMM else self.dialect
        own = [row for row in rows if any(source.dialect == dialect for source in row.sources)]
        spec = spec_of_publisher(fmjax.get_spec(self.model), next(iter(own or rows), None), dialect)
        quick = (
            {"activation": "quick_gelu"}
            if self.dialect == "openai_jit" or self.is_openai_in_transformers
            else {}
        )
        return replace(spec, depth=self.depth, **DIFFERENT.get(self.dialect, {}), **quick)

    @property
    def is_openai_in_transformers(self) -> bool:
        return self.dialect == "hf_clip" and any(
            row.tag == "openai" for row in published(self.model)
        )

    @property
    def num_classes(self) -> int:
        """A classifier is compared where files of the dialect have one."""
        return (
            10
            if self.dialect in ("augreg_npz", "eva02_original_finetune")
            or self.model.startswith("augreg")
            else 0
        )

    @property
    def timm(self) -> tuple[str, dict[str, Any]]:
        """timm's name and arguments."""
        import timm

        if self.model in TIMM:
            return TIMM[self.model]
        aliases = [*fmjax.get_spec(self.model).aliases]
        aliases += [
            alias.partition(".")[0] for row in published(self.model) for alias in row.aliases
        ]
        return next(alias for alias in aliases if timm.is_model(alias)), {}

    @property
    def sizes(self) -> dict[str, Size]:
        """Native, another square, and one that is not square."""
        native, patch = native_size(self.model), self.spec.patch_size
        grid = native[0] // patch
        other = max(3, grid * 3 // 4)
        wide = (max(2, grid // 2), max(3, grid // 2 + 4))
        sizes = {
            "native": native,
            "square": (other * patch,) * 2,
            "wide": (wide[0] * patch, wide[1] * patch),
        }
        return {"native": native} if self.dialect in ONE_SIZE else sizes

    @property
    def reference(self) -> type[r.Reference]:
        return next(kind for dialects, kind in r.KINDS.items() if self.dialect in dialects)


def published(model: str) -> list[Weights]:
    """All weights of an architecture."""
    rows = (get_weights(name) for name in fmjax.list_models(f"{model}.*", pretrained=True))
    return [row for row in rows if row.model == model]


def native_size(model: str) -> Size:
    """The size that the reference's position table is for; RADIO's is for any, and its published evaluation size is
    taken."""
    if model.startswith("C-RADIO"):
        return get_weights(f"{model}.nvidia").image_size
    return fmjax.get_spec(model).image_size


def all_cases() -> list[Case]:
    """Every architecture with every dialect of its sources, and with those that its tensors were listed in."""
    from tests.unit.test_specs import PUBLISHED

    cases = []
    for model in fmjax.list_models():
        dialects = [source.dialect for row in published(model) for source in row.sources]
        dialects += PUBLISHED.get(model, {"dialects": {}})["dialects"]
        cases += [
            Case(model, dialect) for dialect in dict.fromkeys(dialects) if model != "demo_vit_ti4"
        ]
    cases += [Case("dinov2_vits14", "dinov2_chunked"), Case("eva02_tiny_patch14", "eva02_original")]
    cases += [Case("C-RADIOv3-B", "radio_hub"), Case("C-RADIOv4-H", "radio_hub")]
    return [case for case in cases if case.id not in UNVERIFIED]


# what no installable reference can be built for, and why
UNVERIFIED: dict[str, str] = {}
CASES = all_cases()


def sample() -> list[Case]:
    """The smallest architecture of every family in every dialect of it, and with every activation there."""
    found: dict[tuple[str, ...], Case] = {}
    for case in sorted(CASES, key=lambda case: (fmjax.get_spec(case.model).width, case.model)):
        found.setdefault((family(case.model), case.dialect, case.spec.activation), case)
    return sorted(found.values(), key=lambda case: case.model)


def family(model: str) -> str:
    """The part of a name that its siblings share, with what changes the graph."""
    spec = fmjax.get_spec(model)
    rope = replace(spec.rope or Rope(), offset=0.0)
    traits = (
        spec.mlp,
        spec.block,
        spec.num_registers,
        spec.mlp_norm,
        spec.num_cls,
        spec.qkv_bias,
        spec.layer_scale,
    )
    return f"{FAMILY[model]} {traits} {rope.pairs}"
