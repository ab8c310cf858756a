"""The Perception Encoder as Meta publishes it (perception_models core/vision_encoder/pe.py): open_clip's names and an
attention pool."""

from dataclasses import replace

from weights_conversion.dialect import Rule
from weights_conversion.dialects.open_clip import OPEN_CLIP
from weights_conversion.dialects.parts import linear, norm, pytorch_attention
from weights_conversion.transforms import LEAD_2

PE_ORIGINAL = replace(
    OPEN_CLIP,
    name="pe_original",
    rules=(
        *OPEN_CLIP.rules,
        Rule("attn_pool.probe", "pool.probe", LEAD_2),
        *pytorch_attention("attn_pool.attn", "pool"),
        *norm("attn_pool.layernorm", "pool.norm"),
        *linear("attn_pool.mlp.c_fc", "pool.mlp.up"),
        *linear("attn_pool.mlp.c_proj", "pool.mlp.down"),
    ),
    requires=("visual.conv1.weight", "visual.attn_pool.probe"),
    forbids=(),
)
