"""OpenCLIP's own vision transformer, and OpenAI's (open_clip transformer.py); a file usually holds the text tower
too."""

from weights_conversion.rules import Dialect, Rule
from weights_conversion.transforms import CONV, IN_OUT, LINEAR, LINEAR_SPLIT, SPLIT

_BLOCK = "transformer.resblocks.{i}."

TEXT_TOWER = {
    "positional_embedding": "text tower",
    "text_projection": "text tower",
    "token_embedding.weight": "text tower",
    "ln_final.*": "text tower",
    "transformer.*": "text tower",
    "attn_mask": "text tower",
    "text.*": "text tower",
    "logit_scale": "contrastive temperature",
    "logit_bias": "contrastive bias",
    "input_resolution": "constant of OpenAI's files",
    "context_length": "constant of OpenAI's files",
    "vocab_size": "constant of OpenAI's files",
}

OPEN_CLIP = Dialect(
    name="open_clip",
    prefix="visual.",
    rules=(
        Rule("class_embedding", "cls_token"),
        Rule("positional_embedding", "pos_embed"),
        Rule("conv1.weight", "patch_embed.kernel", CONV),
        Rule("ln_pre.weight", "norm_pre.scale"),
        Rule("ln_pre.bias", "norm_pre.bias"),
        Rule(_BLOCK + "ln_1.weight", "blocks.{i}.norm1.scale"),
        Rule(_BLOCK + "ln_1.bias", "blocks.{i}.norm1.bias"),
        Rule(_BLOCK + "attn.in_proj_weight", tuple(f"blocks.{{i}}.attn.{n}.kernel" for n in "qkv"), LINEAR_SPLIT[3]),
        Rule(_BLOCK + "attn.in_proj_bias", tuple(f"blocks.{{i}}.attn.{n}.bias" for n in "qkv"), SPLIT[3]),
        Rule(_BLOCK + "attn.out_proj.weight", "blocks.{i}.attn.out.kernel", LINEAR),
        Rule(_BLOCK + "attn.out_proj.bias", "blocks.{i}.attn.out.bias"),
        Rule(_BLOCK + "ln_2.weight", "blocks.{i}.norm2.scale"),
        Rule(_BLOCK + "ln_2.bias", "blocks.{i}.norm2.bias"),
        Rule(_BLOCK + "mlp.c_fc.weight", "blocks.{i}.mlp.up.kernel", LINEAR),
        Rule(_BLOCK + "mlp.c_fc.bias", "blocks.{i}.mlp.up.bias"),
        Rule(_BLOCK + "mlp.c_proj.weight", "blocks.{i}.mlp.down.kernel", LINEAR),
        Rule(_BLOCK + "mlp.c_proj.bias", "blocks.{i}.mlp.down.bias"),
        Rule("ln_post.weight", "norm.scale"),
        Rule("ln_post.bias", "norm.bias"),
        Rule("proj", "proj.kernel", IN_OUT),
    ),
    extras=TEXT_TOWER,
    requires=("visual.conv1.weight", "visual.transformer.resblocks.0.attn.in_proj_weight"),
)
