"""AIMv2 as Apple publishes it (ml-aim aim/v2/torch), and in transformers' own names (modeling_aimv2.py)."""

from weights_conversion.dialect import Dialect, Rule
from weights_conversion.dialects.parts import PROJECTIONS, QKV_KERNELS, linear, linears, norm
from weights_conversion.transforms import CONV, LEAD_1, LINEAR_SPLIT

AIMV2 = Dialect(
    name="aimv2",
    rules=(
        Rule("preprocessor.pos_embed", "pos_embed", LEAD_1),
        Rule("preprocessor.patchifier.proj.weight", "patch_embed.kernel", CONV),
        Rule("preprocessor.patchifier.proj.bias", "patch_embed.bias"),
        *norm("preprocessor.patchifier.norm", "patch_norm"),
        *norm("trunk.blocks.{i}.norm_1", "blocks.{i}.norm1"),
        Rule("trunk.blocks.{i}.attn.qkv.weight", QKV_KERNELS, LINEAR_SPLIT[3]),
        *linear("trunk.blocks.{i}.attn.proj", "blocks.{i}.attn.out"),
        *norm("trunk.blocks.{i}.norm_2", "blocks.{i}.norm2"),
        *linear("trunk.blocks.{i}.mlp.fc1", "blocks.{i}.mlp.gate"),
        *linear("trunk.blocks.{i}.mlp.fc3", "blocks.{i}.mlp.up"),
        *linear("trunk.blocks.{i}.mlp.fc2", "blocks.{i}.mlp.down"),
        *norm("trunk.post_trunk_norm", "norm"),
    ),
    requires=("preprocessor.patchifier.proj.weight",),
)

HF_AIMV2 = Dialect(
    name="hf_aimv2",
    rules=(
        Rule("embeddings.position_embedding.weight", "pos_embed"),
        Rule("embeddings.patch_embed.weight", "patch_embed.kernel", CONV),
        Rule("embeddings.patch_embed.bias", "patch_embed.bias"),
        *norm("embeddings.rms_norm", "patch_norm"),
        *norm("encoder.layers.{i}.rms_norm1", "blocks.{i}.norm1"),
        *linears(
            "encoder.layers.{i}.attention", "blocks.{i}.attn", PROJECTIONS | {"out_proj": "out"}
        ),
        *norm("encoder.layers.{i}.rms_norm2", "blocks.{i}.norm2"),
        *linear("encoder.layers.{i}.ffn.gate_proj", "blocks.{i}.mlp.gate"),
        *linear("encoder.layers.{i}.ffn.up_proj", "blocks.{i}.mlp.up"),
        *linear("encoder.layers.{i}.ffn.down_proj", "blocks.{i}.mlp.down"),
        *norm("rms_norm", "norm"),
    ),
    requires=("embeddings.rms_norm.weight", "encoder.layers.0.ffn.gate_proj.weight"),
)
