"""Hugging Face's DINOv3 as stored on disk (transformers modeling_dinov3_vit.py)."""

from weights_conversion.dialect import Dialect, Rule
from weights_conversion.dialects.parts import PROJECTIONS, linear, linears, norm
from weights_conversion.transforms import CONV, LEAD_1, LEAD_2

HF_DINOV3 = Dialect(
    name="hf_dinov3",
    rules=(
        Rule("embeddings.cls_token", "cls_token", LEAD_2),
        Rule("embeddings.register_tokens", "registers", LEAD_1),
        Rule("embeddings.patch_embeddings.weight", "patch_embed.kernel", CONV),
        Rule("embeddings.patch_embeddings.bias", "patch_embed.bias"),
        *norm("layer.{i}.norm1", "blocks.{i}.norm1"),
        *linears("layer.{i}.attention", "blocks.{i}.attn", PROJECTIONS | {"o_proj": "out"}),
        Rule("layer.{i}.layer_scale1.lambda1", "blocks.{i}.ls1.scale"),
        *norm("layer.{i}.norm2", "blocks.{i}.norm2"),
        *linear("layer.{i}.mlp.gate_proj", "blocks.{i}.mlp.gate"),
        *linear("layer.{i}.mlp.up_proj", "blocks.{i}.mlp.up"),
        *linear("layer.{i}.mlp.down_proj", "blocks.{i}.mlp.down"),
        Rule("layer.{i}.layer_scale2.lambda1", "blocks.{i}.ls2.scale"),
        *norm("norm", "norm"),
    ),
    extras={"embeddings.mask_token": "used in pretraining only"},
    requires=("embeddings.patch_embeddings.weight", "layer.0.attention.q_proj.weight"),
    containers=("", "model."),
)
