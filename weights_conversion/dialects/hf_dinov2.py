"""Hugging Face's DINOv2, without and with registers, as stored on disk (transformers modeling_dinov2*.py)."""

from dataclasses import replace

from weights_conversion.dialect import Dialect, Rule
from weights_conversion.dialects.parts import (
    GATE,
    TRANSFORMERS_VIT,
    gate_and_up,
    linear,
    linears,
    norm,
    with_classifier,
)
from weights_conversion.transforms import CONV, LEAD_1, LEAD_2

_LAYER = "encoder.layer.{i}."

HF_DINOV2 = Dialect(
    name="hf_dinov2",
    rules=(
        Rule("embeddings.cls_token", "cls_token", LEAD_2),
        Rule("embeddings.position_embeddings", "pos_embed", LEAD_1),
        Rule("embeddings.register_tokens", "registers", LEAD_1),
        Rule("embeddings.patch_embeddings.projection.weight", "patch_embed.kernel", CONV),
        Rule("embeddings.patch_embeddings.projection.bias", "patch_embed.bias"),
        *norm(_LAYER + "norm1", "blocks.{i}.norm1"),
        *linears(_LAYER + "attention", "blocks.{i}.attn", TRANSFORMERS_VIT),
        Rule(_LAYER + "layer_scale1.lambda1", "blocks.{i}.ls1.scale"),
        *norm(_LAYER + "norm2", "blocks.{i}.norm2"),
        *linear(_LAYER + "mlp.fc1", "blocks.{i}.mlp.up", unless=GATE),
        *linear(_LAYER + "mlp.fc2", "blocks.{i}.mlp.down", unless=GATE),
        *gate_and_up(_LAYER + "mlp.weights_in"),
        *linear(_LAYER + "mlp.weights_out", "blocks.{i}.mlp.down", when=GATE),
        Rule(_LAYER + "layer_scale2.lambda1", "blocks.{i}.ls2.scale"),
        *norm("layernorm", "norm"),
    ),
    extras={"embeddings.mask_token": "used in pretraining only"},
    requires=("embeddings.position_embeddings", "encoder.layer.0.layer_scale1.lambda1"),
    forbids=("embeddings.register_tokens", "classifier.*"),
    containers=("", "dinov2."),
)

HF_DINOV2_WITH_REGISTERS = replace(
    HF_DINOV2,
    name="hf_dinov2_with_registers",
    requires=(*HF_DINOV2.requires, "embeddings.register_tokens"),
    forbids=("classifier.*",),
    containers=("", "dinov2_with_registers."),
)

# the classifier of transformers sees the class token and the mean of the patches
HF_DINOV2_CLASSIFIER = with_classifier(HF_DINOV2, "dinov2.", "cls_patches")
HF_DINOV2_WITH_REGISTERS_CLASSIFIER = with_classifier(
    HF_DINOV2_WITH_REGISTERS, "dinov2_with_registers.", "cls_patches"
)
