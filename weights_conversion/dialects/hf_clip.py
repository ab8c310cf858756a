"""Hugging Face's CLIP and SigLIP as stored on disk (transformers modeling_clip.py, modeling_siglip.py)."""

from weights_conversion.dialect import Dialect, Rule
from weights_conversion.dialects.parts import PROJECTIONS, linear, linears, norm, pytorch_attention
from weights_conversion.transforms import CONV, LEAD_2, LINEAR

_EMBED = "vision_model.embeddings."
_LAYER = "vision_model.encoder.layers.{i}."
_SIBLINGS = {
    "text_model.*": "text tower",
    "text_projection.weight": "text tower",
    "logit_scale": "contrastive temperature",
    "logit_bias": "contrastive bias",
}
_DERIVED = {f"{_EMBED}position_ids": "0, 1, 2, ...: derived"}


# what both have: patches, positions and blocks
_TOWER = (
    Rule(_EMBED + "patch_embedding.weight", "patch_embed.kernel", CONV),
    Rule(_EMBED + "patch_embedding.bias", "patch_embed.bias"),
    Rule(_EMBED + "position_embedding.weight", "pos_embed"),
    *linears(_LAYER + "self_attn", "blocks.{i}.attn", PROJECTIONS | {"out_proj": "out"}),
    *norm(_LAYER + "layer_norm1", "blocks.{i}.norm1"),
    *linear(_LAYER + "mlp.fc1", "blocks.{i}.mlp.up"),
    *linear(_LAYER + "mlp.fc2", "blocks.{i}.mlp.down"),
    *norm(_LAYER + "layer_norm2", "blocks.{i}.norm2"),
    *norm("vision_model.post_layernorm", "norm"),
)

HF_CLIP = Dialect(
    name="hf_clip",
    rules=(
        Rule(_EMBED + "class_embedding", "cls_token"),
        *norm("vision_model.pre_layrnorm", "norm_pre"),
        *_TOWER,
        Rule("visual_projection.weight", "proj.kernel", LINEAR),
    ),
    extras=_SIBLINGS,
    drop=_DERIVED,
    requires=(_EMBED + "patch_embedding.weight", "vision_model.pre_layrnorm.weight"),
)

HF_SIGLIP = Dialect(
    name="hf_siglip",
    rules=(
        *_TOWER,
        Rule("vision_model.head.probe", "pool.probe", LEAD_2),
        *pytorch_attention("vision_model.head.attention", "pool"),
        *norm("vision_model.head.layernorm", "pool.norm"),
        *linear("vision_model.head.mlp.fc1", "pool.mlp.up"),
        *linear("vision_model.head.mlp.fc2", "pool.mlp.down"),
    ),
    extras=_SIBLINGS,
    drop=_DERIVED,
    requires=(_EMBED + "patch_embedding.bias", "vision_model.head.probe"),
)
