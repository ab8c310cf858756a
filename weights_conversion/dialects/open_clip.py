"""OpenCLIP's own vision transformer, and OpenAI's (open_clip transformer.py); a file usually holds the text tower
too."""

from dataclasses import replace

from weights_conversion.dialect import Dialect, Rule
from weights_conversion.dialects.parts import linear, norm, pytorch_attention
from weights_conversion.transforms import CONV, IN_OUT

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
}
# TAO's classifiers hold the two towers as `model` of a backbone, which is `model` of the trainer (TAO cv/backbone_v2
# open_clip.py); their head, over the projected embedding, stands outside, as model.head
CONTAINERS = ("", "model.model.")
_OPENAI = dict.fromkeys(
    ("input_resolution", "context_length", "vocab_size"), "constant of OpenAI's files"
)

OPEN_CLIP = Dialect(
    name="open_clip",
    prefix="visual.",
    rules=(
        Rule("class_embedding", "cls_token"),
        Rule("positional_embedding", "pos_embed"),
        Rule("conv1.weight", "patch_embed.kernel", CONV),
        *norm("ln_pre", "norm_pre"),
        *norm(_BLOCK + "ln_1", "blocks.{i}.norm1"),
        *pytorch_attention(_BLOCK + "attn", "blocks.{i}.attn"),
        *norm(_BLOCK + "ln_2", "blocks.{i}.norm2"),
        *linear(_BLOCK + "mlp.c_fc", "blocks.{i}.mlp.up"),
        *linear(_BLOCK + "mlp.c_proj", "blocks.{i}.mlp.down"),
        *norm("ln_post", "norm"),
        *norm("ln_post", "fc_norm"),
        Rule("proj", "proj.kernel", IN_OUT),
    ),
    extras=TEXT_TOWER,
    requires=("visual.conv1.weight", "visual.transformer.resblocks.0.attn.in_proj_weight"),
    forbids=(*_OPENAI, "visual.attn_pool.*"),
    containers=CONTAINERS,
)

OPENAI_JIT = replace(
    OPEN_CLIP,
    name="openai_jit",
    extras=TEXT_TOWER | _OPENAI,
    requires=(*OPEN_CLIP.requires, *_OPENAI),
    forbids=(),
    containers=("",),
)
