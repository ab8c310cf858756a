"""Hugging Face's CLIP as stored on disk (transformers modeling_clip.py)."""

from weights_conversion.rules import Dialect, Rule
from weights_conversion.transforms import CONV, LINEAR

_EMBED = "vision_model.embeddings."
_LAYER = "vision_model.encoder.layers.{i}."

HF_CLIP = Dialect(
    name="hf_clip",
    rules=(
        Rule(_EMBED + "class_embedding", "cls_token"),
        Rule(_EMBED + "patch_embedding.weight", "patch_embed.kernel", CONV),
        Rule(_EMBED + "position_embedding.weight", "pos_embed"),
        Rule("vision_model.pre_layrnorm.weight", "norm_pre.scale"),
        Rule("vision_model.pre_layrnorm.bias", "norm_pre.bias"),
        *(
            rule
            for theirs, ours in (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v"), ("out_proj", "out"))
            for rule in (
                Rule(f"{_LAYER}self_attn.{theirs}.weight", f"blocks.{{i}}.attn.{ours}.kernel", LINEAR),
                Rule(f"{_LAYER}self_attn.{theirs}.bias", f"blocks.{{i}}.attn.{ours}.bias"),
            )
        ),
        Rule(_LAYER + "layer_norm1.weight", "blocks.{i}.norm1.scale"),
        Rule(_LAYER + "layer_norm1.bias", "blocks.{i}.norm1.bias"),
        Rule(_LAYER + "mlp.fc1.weight", "blocks.{i}.mlp.up.kernel", LINEAR),
        Rule(_LAYER + "mlp.fc1.bias", "blocks.{i}.mlp.up.bias"),
        Rule(_LAYER + "mlp.fc2.weight", "blocks.{i}.mlp.down.kernel", LINEAR),
        Rule(_LAYER + "mlp.fc2.bias", "blocks.{i}.mlp.down.bias"),
        Rule(_LAYER + "layer_norm2.weight", "blocks.{i}.norm2.scale"),
        Rule(_LAYER + "layer_norm2.bias", "blocks.{i}.norm2.bias"),
        Rule("vision_model.post_layernorm.weight", "norm.scale"),
        Rule("vision_model.post_layernorm.bias", "norm.bias"),
        Rule("visual_projection.weight", "proj.kernel", LINEAR),
    ),
    extras={
        "text_model.*": "text tower",
        "text_projection.weight": "text tower",
        "logit_scale": "contrastive temperature",
    },
    drop={"vision_model.embeddings.position_ids": "0, 1, 2, ...: derived"},
    requires=("vision_model.embeddings.patch_embedding.weight", "vision_model.pre_layrnorm.weight"),
)
