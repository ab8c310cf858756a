"""Hugging Face's ViT (DINO) and ViT-MAE as stored on disk (transformers modeling_vit.py, modeling_vit_mae.py)."""

from dataclasses import replace

from weights_conversion.dialect import Dialect, Rule
from weights_conversion.dialects.parts import (
    TRANSFORMERS_VIT,
    linear,
    linears,
    norm,
    with_classifier,
)
from weights_conversion.transforms import CONV, LEAD_1, LEAD_2

_LAYER = "encoder.layer.{i}."

HF_VIT = Dialect(
    name="hf_vit",
    rules=(
        Rule("embeddings.cls_token", "cls_token", LEAD_2),
        Rule("embeddings.position_embeddings", "pos_embed", LEAD_1),
        Rule("embeddings.patch_embeddings.projection.weight", "patch_embed.kernel", CONV),
        Rule("embeddings.patch_embeddings.projection.bias", "patch_embed.bias"),
        *norm(_LAYER + "layernorm_before", "blocks.{i}.norm1"),
        *linears(_LAYER + "attention", "blocks.{i}.attn", TRANSFORMERS_VIT),
        *norm(_LAYER + "layernorm_after", "blocks.{i}.norm2"),
        *linear(_LAYER + "intermediate.dense", "blocks.{i}.mlp.up"),
        *linear(_LAYER + "output.dense", "blocks.{i}.mlp.down"),
        *norm("layernorm", "norm"),
    ),
    extras={"pooler.dense.*": "untrained pooler of transformers"},
    requires=("embeddings.position_embeddings", "encoder.layer.0.layernorm_before.weight"),
    forbids=("decoder.*", "classifier.*"),
    containers=("", "vit."),
)
HF_VIT_CLASSIFIER = with_classifier(HF_VIT, "vit.", "pool")
HF_VIT_MAE = replace(
    HF_VIT,
    name="hf_vit_mae",
    extras={"decoder.*": "decoder, used in pretraining only"},
    forbids=("pooler.*", "classifier.*"),
)
