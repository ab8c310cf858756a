"""timm's config.json of a model: the class that computes it and every argument of it, so that
`timm.create_model("local-dir:FOLDER", pretrained=True)` builds and fills it (timm models/_hub.py, _factory.py).

An architecture of timm's is named for what no JSON can say: the class, its norm's epsilon and its MLP's class. All
sizes are arguments, so that rows of one's own, and images of other sizes, are models of it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fmjax.deploy.folder import Folder, refused
from fmjax.models.vit import ViT
from fmjax.specs import PreprocessConfig, Rope, ViTSpec


@dataclass(frozen=True)
class Base:
    """One of timm's architectures, whose arguments are all replaced."""

    architecture: str
    kind: Literal["VisionTransformer", "Eva"]
    has: Mapping[str, Any]  # the fields of a spec that it stands for
    packed: bool = False  # its MLP's hidden size counts gate and values


LAYER_6: dict[str, Any] = {"norm": "layer", "norm_eps": 1e-6, "patch_norm": False}
LAYER_5: dict[str, Any] = {"norm": "layer", "norm_eps": 1e-5, "patch_norm": False}
RMS_5: dict[str, Any] = {"norm": "rms", "norm_eps": 1e-5, "patch_norm": True}
BASES = (
    Base("vit_base_patch16_224", "VisionTransformer", LAYER_6 | {"mlp": "mlp"}),
    Base("vit_base_patch16_clip_224", "VisionTransformer", LAYER_5 | {"mlp": "mlp"}),
    Base("vit_giant_patch14_dinov2", "VisionTransformer", LAYER_6 | {"mlp": "swiglu"}, packed=True),
    Base("aimv2_large_patch14_224", "VisionTransformer", RMS_5 | {"mlp": "swiglu"}),
    Base("eva02_base_patch14_224", "Eva", LAYER_6),
    Base("vit_small_patch16_dinov3_qkvb", "Eva", LAYER_5),
)
POOLS = {"cls": "token", "patches": "avg", "map": "map"}
INTERPOLATIONS = {"bilinear_no_antialias": "bilinear"}  # which timm has not
LIBRARY = "timm"


def folder(
    model: ViT,
    preprocessing: PreprocessConfig,
    *,
    outputs: int,
    classes: Sequence[str],
    licence: str,
) -> Folder:
    """What lies beside `model.safetensors` of the dialect "timm".

    outputs: the width of the classifier, 0 without one; classes: their names. Raises CheckpointError where timm has no
    class for such a model.
    """
    spec, base = model.spec, _base(model.spec)
    named = {"label_names": list(classes)} if outputs and classes else {}
    outputs = outputs or spec.embed_dim  # timm has one head, which else is the projection
    config = {
        "architecture": base.architecture,
        "num_classes": outputs,
        "num_features": spec.width,
        "global_pool": POOLS[spec.pool],
        "model_args": arguments(spec, base) | {"num_classes": outputs},
        "pretrained_cfg": _data(preprocessing, outputs, licence),
        **named,
    }
    return Folder("model.safetensors", {"config.json": config})


def _base(spec: ViTSpec) -> Base:
    # Eva turns queries and keys, has no bias of keys, and can norm behind a branch
    eva = spec.rope is not None or not spec.k_bias or spec.block == "post_norm"
    kind = "Eva" if eva else "VisionTransformer"
    lacks = _lacks(spec, eva=eva)
    if lacks:
        raise refused(LIBRARY, spec, lacks[0])
    for base in BASES:
        if base.kind == kind and all(
            getattr(spec, name) == value for name, value in base.has.items()
        ):
            return base
    raise refused(LIBRARY, spec, f"a {spec.norm} norm of epsilon {spec.norm_eps:g} in {kind}")


def _lacks(spec: ViTSpec, *, eva: bool) -> list[str]:
    """What a model has that timm's class has not."""
    classes = spec.pool_tokens == (0,) or spec.pool != "cls"
    in_both = {
        "several class tokens that it pools": classes,
        "registers behind the patches": spec.register_position == "after_cls",
        "registers beside several class tokens": spec.num_cls < 2 or not spec.num_registers,
    }
    if eva:
        # its MLP is timm's own, without an argument for the activation
        gated = spec.mlp == "swiglu"
        own = {f"{spec.activation} in Eva": gated or spec.activation == "gelu"}
    else:
        same = spec.pool != "map" or (spec.pool_heads, spec.pool_mlp_dim) == (
            spec.num_heads,
            spec.mlp_dim,
        )
        own = {
            "a patch embedding without bias": spec.patch_bias or spec.norm_pre,
            "a patch embedding with a bias before a norm": not (spec.patch_bias and spec.norm_pre),
            "a pooling of another size than its blocks": same,
        }
    return [words for words, holds in {**in_both, **own}.items() if not holds]


def arguments(spec: ViTSpec, base: Base) -> dict[str, Any]:
    """All arguments of the class that follow from the graph."""
    # those that are called alike in both classes
    both = {
        "img_size": list(spec.image_size),
        "patch_size": spec.patch_size,
        "embed_dim": spec.width,
        "depth": spec.depth,
        "num_heads": spec.num_heads,
        "mlp_ratio": ratio(spec.mlp_dim * (1 + base.packed), spec.width),
        "qkv_bias": spec.qkv_bias,
        "init_values": 1e-5 if spec.layer_scale else None,
        "class_token": spec.num_cls > 0,
        "global_pool": POOLS[spec.pool],
    }
    own = _of_eva(spec) if base.kind == "Eva" else _of_vit(spec)
    return both | own


def _of_vit(spec: ViTSpec) -> dict[str, Any]:
    # class tokens behind the first are registers there
    others = spec.num_registers + max(spec.num_cls - 1, 0)
    activation = "silu" if spec.mlp == "swiglu" else spec.activation
    return {
        "proj_bias": spec.bias,
        "pos_embed": "none" if spec.positions == "none" else "learn",
        # beside other tokens the class token is kept with its position added
        "no_embed_class": others > 0 or spec.positions == "patches",
        "reg_tokens": others,
        "pre_norm": spec.norm_pre,
        "final_norm": spec.final_norm or spec.norm_after_pool,
        "fc_norm": spec.norm_after_pool,
        "act_layer": activation,
    }


def _of_eva(spec: ViTSpec) -> dict[str, Any]:
    gated = spec.mlp == "swiglu"
    pooling = {}
    if spec.pool == "map":
        pooling = {
            "attn_pool_num_heads": spec.pool_heads,
            "attn_pool_mlp_ratio": ratio(spec.pool_mlp_dim, spec.width),
        }
    return {
        "attn_type": "rope" if spec.k_bias else "eva",
        "qkv_fused": not spec.mlp_norm,  # as the files have it
        "swiglu_mlp": gated,
        # a hidden size that is aligned, to whatever, has gate and values apart
        "swiglu_align_to": int(gated and spec.positions == "none"),
        "scale_mlp": spec.mlp_norm,
        "scale_attn_inner": spec.attn_norm,
        "num_reg_tokens": spec.num_registers,
        "no_embed_class": spec.positions == "patches",
        "use_abs_pos_emb": spec.positions != "none",
        "use_rot_pos_emb": spec.rope is not None,
        "use_post_norm": spec.block == "post_norm",
        "use_pre_transformer_norm": spec.norm_pre,
        "use_post_transformer_norm": spec.final_norm and not spec.norm_after_pool,
        "use_fc_norm": spec.norm_after_pool,
        **_of_rope(spec.rope or Rope()),
        **pooling,
    }


ROPE_TYPES = {"centred": "dinov3", "index": "cat"}
INDEXING = {"rows": "ij", "columns": "xy"}


def _of_rope(rope: Rope) -> dict[str, Any]:
    return {
        "rope_type": ROPE_TYPES[rope.coordinates],
        "rope_grid_offset": rope.offset,
        "rope_grid_indexing": INDEXING[rope.first_axis],
        "rope_temperature": rope.base,
        "rope_rotate_half": rope.pairs == "halves",
        "ref_feat_shape": rope.reference_grid,
    }


def ratio(hidden: int, width: int) -> float:
    """A ratio whose product with the width, cut to a whole number, is the hidden size."""
    exact = hidden / width
    return exact if int(width * exact) == hidden else (hidden + 0.5) / width


def _data(config: PreprocessConfig, outputs: int, licence: str) -> dict[str, Any]:
    """What timm's transforms read (timm data/config.py)."""
    # of a size of its own: its table is not resized when it is loaded
    return {
        "input_size": [3, *config.image_size],
        "fixed_input_size": True,
        "interpolation": INTERPOLATIONS.get(config.interpolation, config.interpolation),
        "crop_pct": config.crop_pct,
        "crop_mode": "center" if config.resize_mode == "shortest" else "squash",
        "mean": list(config.mean),
        "std": list(config.std),
        "num_classes": outputs,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": licence.lower(),
    }
