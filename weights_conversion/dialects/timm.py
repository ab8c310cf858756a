"""timm's two classes, VisionTransformer (vision_transformer.py) and Eva (eva.py), which spell tokens, scales and biases
differently."""

from weights_conversion.dialect import Dialect, Rule, zeros
from weights_conversion.dialects.parts import (
    GATE,
    GATED_NORM,
    PROJECTIONS,
    QKV,
    QKV_KERNELS,
    gate_and_up,
    joined_linear,
    linear,
    linears,
    norm,
)
from weights_conversion.transforms import CONV, FOLDED_CLASS, LEAD_1, LEAD_2, LINEAR_SPLIT

_EXTRA_TOKENS = ("registers", "summary_tokens")
_POSITIONS = "pos_embed"  # Eva models without a table, DINOv3, align the hidden width, which keeps gate and value apart
_PATCH_NORM = "patch_norm.scale"  # AIMv2, which keeps them apart
_CLASSIFIER = "classifier.kernel"

_EMBED = (
    Rule("patch_embed.proj.weight", "patch_embed.kernel", CONV),
    Rule("patch_embed.proj.bias", "patch_embed.bias"),
    *norm("patch_embed.norm", "patch_norm"),
    *norm("norm_pre", "norm_pre"),
    *norm("blocks.{i}.norm1", "blocks.{i}.norm1"),
)
_HEAD = (
    *norm("norm", "norm"),
    *norm("fc_norm", "fc_norm"),
    Rule("attn_pool.latent", "pool.probe", LEAD_2),
    *linear("attn_pool.q", "pool.q"),
    *joined_linear("attn_pool.kv", "pool", ("k", "v")),
    *linear("attn_pool.proj", "pool.out"),
    *norm("attn_pool.norm", "pool.norm"),
    *linear("attn_pool.mlp.fc1", "pool.mlp.up"),
    *linear("attn_pool.mlp.fc2", "pool.mlp.down"),
    # timm has one head: a classifier where there is one, else the projection
    *linear("head", "classifier"),
    *linear("head", "proj", unless=_CLASSIFIER),
)
_CONSTANTS = {"head.bias": zeros(like="proj.kernel")}
_REQUIRED = ("patch_embed.proj.weight", "blocks.0.norm1.weight", "blocks.0.attn.proj.weight")
_FORBIDDEN = (
    "mask_token",
    "register_tokens",
    "storage_tokens",
    "decoder_*",
    "visual.*",
    "blocks.0.mlp.w1*",
    "rope*",
)
# what Eva alone has: q and v with a bias and k without, layers for the three, or layer scale by another name
EVA_ONLY = ("blocks.0.attn.q_bias", "blocks.0.attn.q_proj.weight", "blocks.0.gamma_1")

TIMM_VIT_LAYERS = (
    *_EMBED,
    *joined_linear("blocks.{i}.attn.qkv", "blocks.{i}.attn", QKV),
    *linear("blocks.{i}.attn.proj", "blocks.{i}.attn.out"),
    *norm("blocks.{i}.norm2", "blocks.{i}.norm2"),
    *linear("blocks.{i}.mlp.fc1", "blocks.{i}.mlp.up", unless=GATE),
    *gate_and_up("blocks.{i}.mlp.fc1", unless=_PATCH_NORM),
    *linear("blocks.{i}.mlp.fc1_g", "blocks.{i}.mlp.gate", when=_PATCH_NORM),
    *linear("blocks.{i}.mlp.fc1_x", "blocks.{i}.mlp.up", when=_PATCH_NORM),
    *linear("blocks.{i}.mlp.fc2", "blocks.{i}.mlp.down"),
    Rule("blocks.{i}.ls1.gamma", "blocks.{i}.ls1.scale"),
    Rule("blocks.{i}.ls2.gamma", "blocks.{i}.ls2.scale"),
    *_HEAD,
)
TIMM_VIT = Dialect(
    name="timm",
    code="timm",
    rules=(
        # beside other tokens the class token is kept with its position added (no_embed_class), as one sum
        Rule("cls_token", "cls_token", LEAD_2, unless=_EXTRA_TOKENS),
        Rule("pos_embed", "pos_embed", LEAD_1, unless=_EXTRA_TOKENS),
        Rule(
            ("cls_token", "pos_embed"), ("cls_token", "pos_embed"), FOLDED_CLASS, when=_EXTRA_TOKENS
        ),
        Rule("reg_token", "registers", LEAD_1, unless="summary_tokens"),
        Rule("reg_token", "summary_tokens", LEAD_1, unless="registers"),
        *TIMM_VIT_LAYERS,
    ),
    constants=_CONSTANTS,
    requires=_REQUIRED,
    forbids=(*_FORBIDDEN, *EVA_ONLY),
)

TIMM_EVA = Dialect(
    name="timm",
    code="timm",
    rules=(
        Rule("cls_token", "cls_token", LEAD_2),
        Rule("pos_embed", "pos_embed", LEAD_1),
        Rule("reg_token", "registers", LEAD_1),
        *_EMBED,
        Rule("blocks.{i}.attn.qkv.weight", QKV_KERNELS, LINEAR_SPLIT[3], unless=GATED_NORM),
        Rule("blocks.{i}.attn.q_bias", "blocks.{i}.attn.q.bias", unless=GATED_NORM),
        Rule("blocks.{i}.attn.v_bias", "blocks.{i}.attn.v.bias", unless=GATED_NORM),
        *linears("blocks.{i}.attn", "blocks.{i}.attn", PROJECTIONS, when=GATED_NORM),
        *norm("blocks.{i}.attn.norm", "blocks.{i}.attn.norm"),
        *linear("blocks.{i}.attn.proj", "blocks.{i}.attn.out"),
        *norm("blocks.{i}.norm2", "blocks.{i}.norm2"),
        *linear("blocks.{i}.mlp.fc1", "blocks.{i}.mlp.up", unless=GATE),
        *gate_and_up("blocks.{i}.mlp.fc1", when=_POSITIONS, unless=GATED_NORM),
        *linear("blocks.{i}.mlp.fc1_g", "blocks.{i}.mlp.gate", when=GATED_NORM),
        *linear("blocks.{i}.mlp.fc1_x", "blocks.{i}.mlp.up", when=GATED_NORM),
        *linear("blocks.{i}.mlp.fc1_g", "blocks.{i}.mlp.gate", when=GATE, unless=_POSITIONS),
        *linear("blocks.{i}.mlp.fc1_x", "blocks.{i}.mlp.up", when=GATE, unless=_POSITIONS),
        *norm("blocks.{i}.mlp.norm", "blocks.{i}.mlp.norm"),
        *linear("blocks.{i}.mlp.fc2", "blocks.{i}.mlp.down"),
        Rule("blocks.{i}.gamma_1", "blocks.{i}.ls1.scale"),
        Rule("blocks.{i}.gamma_2", "blocks.{i}.ls2.scale"),
        *_HEAD,
    ),
    constants=_CONSTANTS,
    requires=(*_REQUIRED, EVA_ONLY),
    forbids=_FORBIDDEN,
)
