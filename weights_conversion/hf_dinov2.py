"""Hugging Face's DINOv2, without and with registers, as stored on disk (transformers modeling_dinov2*.py)."""

from dataclasses import replace

from weights_conversion.rules import Dialect, Rule
from weights_conversion.transforms import CONV, LEAD_1, LEAD_2, LINEAR, LINEAR_SPLIT, SPLIT

_LAYER = "encoder.layer.{i}."
_GATE = "blocks.mlp.gate.kernel"

HF_DINOV2 = Dialect(
    name="hf_dinov2",
    rules=(
        Rule("embeddings.cls_token", "cls_token", LEAD_2),
        Rule("embeddings.position_embeddings", "pos_embed", LEAD_1),
        Rule("embeddings.register_tokens", "registers", LEAD_1),
        Rule("embeddings.patch_embeddings.projection.weight", "patch_embed.kernel", CONV),
        Rule("embeddings.patch_embeddings.projection.bias", "patch_embed.bias"),
        Rule(_LAYER + "norm1.weight", "blocks.{i}.norm1.scale"),
        Rule(_LAYER + "norm1.bias", "blocks.{i}.norm1.bias"),
        *(
            rule
            for theirs, ours in (
                ("attention.query", "q"),
                ("attention.key", "k"),
                ("attention.value", "v"),
                ("output.dense", "out"),
            )
            for rule in (
                Rule(f"{_LAYER}attention.{theirs}.weight", f"blocks.{{i}}.attn.{ours}.kernel", LINEAR),
                Rule(f"{_LAYER}attention.{theirs}.bias", f"blocks.{{i}}.attn.{ours}.bias"),
            )
        ),
        Rule(_LAYER + "layer_scale1.lambda1", "blocks.{i}.ls1.scale"),
        Rule(_LAYER + "norm2.weight", "blocks.{i}.norm2.scale"),
        Rule(_LAYER + "norm2.bias", "blocks.{i}.norm2.bias"),
        Rule(_LAYER + "mlp.fc1.weight", "blocks.{i}.mlp.up.kernel", LINEAR, unless=_GATE),
        Rule(_LAYER + "mlp.fc1.bias", "blocks.{i}.mlp.up.bias", unless=_GATE),
        Rule(_LAYER + "mlp.fc2.weight", "blocks.{i}.mlp.down.kernel", LINEAR, unless=_GATE),
        Rule(_LAYER + "mlp.fc2.bias", "blocks.{i}.mlp.down.bias", unless=_GATE),
        Rule(
            _LAYER + "mlp.weights_in.weight",
            ("blocks.{i}.mlp.gate.kernel", "blocks.{i}.mlp.up.kernel"),
            LINEAR_SPLIT[2],
        ),
        Rule(_LAYER + "mlp.weights_in.bias", ("blocks.{i}.mlp.gate.bias", "blocks.{i}.mlp.up.bias"), SPLIT[2]),
        Rule(_LAYER + "mlp.weights_out.weight", "blocks.{i}.mlp.down.kernel", LINEAR, when=_GATE),
        Rule(_LAYER + "mlp.weights_out.bias", "blocks.{i}.mlp.down.bias", when=_GATE),
        Rule(_LAYER + "layer_scale2.lambda1", "blocks.{i}.ls2.scale"),
        Rule("layernorm.weight", "norm.scale"),
        Rule("layernorm.bias", "norm.bias"),
    ),
    extras={"embeddings.mask_token": "used in pretraining only"},
    requires=("embeddings.position_embeddings", "encoder.layer.0.layer_scale1.lambda1"),
    forbids=("embeddings.register_tokens",),
)

HF_DINOV2_WITH_REGISTERS = replace(
    HF_DINOV2,
    name="hf_dinov2_with_registers",
    requires=(*HF_DINOV2.requires, "embeddings.register_tokens"),
    forbids=(),
)
