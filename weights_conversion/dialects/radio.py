"""C-RADIO as NVIDIA publishes it (RADIO radio/radio_model.py, vit_patch_generator.py): four class tokens, one for each
teacher, and four registers, in one table."""

from weights_conversion.dialect import Dialect, Rule
from weights_conversion.dialects.parts import QKV, joined, linear, norm
from weights_conversion.transforms import LEAD_1, PATCH_LINEAR, rows

RADIO = Dialect(
    name="radio",
    prefix="model.",
    rules=(
        Rule("patch_generator.cls_token.token", ("cls_token", "summary_tokens", "registers"), rows(1, 3, 4)),
        Rule("patch_generator.pos_embed", "pos_embed", LEAD_1),
        Rule("patch_generator.embedder.weight", "patch_embed.kernel", PATCH_LINEAR),
        *norm("blocks.{i}.norm1", "blocks.{i}.norm1"),
        *joined("blocks.{i}.attn.qkv.weight", "blocks.{i}.attn.qkv.bias", "blocks.{i}.attn", tuple(QKV)),
        *linear("blocks.{i}.attn.proj", "blocks.{i}.attn.out"),
        Rule("blocks.{i}.ls1.grandma", "blocks.{i}.ls1.scale"),
        *norm("blocks.{i}.norm2", "blocks.{i}.norm2"),
        *linear("blocks.{i}.mlp.fc1", "blocks.{i}.mlp.up"),
        *linear("blocks.{i}.mlp.fc2", "blocks.{i}.mlp.down"),
        Rule("blocks.{i}.ls2.grandma", "blocks.{i}.ls2.scale"),
    ),
    extras={
        "input_conditioner.norm_*": "mean and standard deviation: part of the preprocessing here",
        "summary_idxs": "which class tokens the summary joins",
        "model.reg_token": "left over, used by nothing",
        "adaptors.*": "adaptor to a teacher",
        "_adaptors.*": "adaptor to a teacher",
        "feature_normalizer.*": "adaptor to a teacher",
    },
    requires=("model.patch_generator.cls_token.token", "model.patch_generator.embedder.weight"),
    leads=("radio_model.", "", "base_model."),
)
