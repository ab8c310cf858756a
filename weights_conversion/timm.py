"""timm's VisionTransformer and Eva (vision_transformer.py, eva.py): one table, since they share names."""

from weights_conversion.rules import Dialect, Rule, Zeros
from weights_conversion.transforms import CONV, FOLDED_CLASS, LEAD_1, LEAD_2, LINEAR, LINEAR_SPLIT, SPLIT

_EVA02 = "blocks.attn.norm.scale"  # the models with a norm inside attention keep q, k and v apart
_K_BIAS = "blocks.attn.k.bias"
_GATED_NORM = "blocks.mlp.norm.scale"  # the models with a norm inside a gated MLP keep gate and value apart
_GATE = "blocks.mlp.gate.kernel"
_CLASSIFIER = "classifier.kernel"

TIMM = Dialect(
    name="timm",
    rules=(
        Rule("cls_token", "cls_token", LEAD_2, unless="registers"),
        Rule("pos_embed", "pos_embed", LEAD_1, unless="registers"),
        Rule(("cls_token", "pos_embed"), ("cls_token", "pos_embed"), FOLDED_CLASS, when="registers"),
        Rule("reg_token", "registers", LEAD_1),
        Rule("patch_embed.proj.weight", "patch_embed.kernel", CONV),
        Rule("patch_embed.proj.bias", "patch_embed.bias"),
        Rule("norm_pre.weight", "norm_pre.scale"),
        Rule("norm_pre.bias", "norm_pre.bias"),
        Rule("blocks.{i}.norm1.weight", "blocks.{i}.norm1.scale"),
        Rule("blocks.{i}.norm1.bias", "blocks.{i}.norm1.bias"),
        Rule(
            "blocks.{i}.attn.qkv.weight",
            tuple(f"blocks.{{i}}.attn.{n}.kernel" for n in "qkv"),
            LINEAR_SPLIT[3],
            unless=_EVA02,
        ),
        Rule("blocks.{i}.attn.qkv.bias", tuple(f"blocks.{{i}}.attn.{n}.bias" for n in "qkv"), SPLIT[3]),
        Rule("blocks.{i}.attn.q_bias", "blocks.{i}.attn.q.bias", unless=(_EVA02, _K_BIAS)),
        Rule("blocks.{i}.attn.v_bias", "blocks.{i}.attn.v.bias", unless=(_EVA02, _K_BIAS)),
        Rule("blocks.{i}.attn.proj.weight", "blocks.{i}.attn.out.kernel", LINEAR),
        Rule("blocks.{i}.attn.proj.bias", "blocks.{i}.attn.out.bias"),
        Rule("blocks.{i}.ls1.gamma", "blocks.{i}.ls1.scale"),
        Rule("blocks.{i}.norm2.weight", "blocks.{i}.norm2.scale"),
        Rule("blocks.{i}.norm2.bias", "blocks.{i}.norm2.bias"),
        Rule("blocks.{i}.mlp.fc1.weight", "blocks.{i}.mlp.up.kernel", LINEAR, unless=_GATE),
        Rule("blocks.{i}.mlp.fc1.bias", "blocks.{i}.mlp.up.bias", unless=_GATE),
        Rule(
            "blocks.{i}.mlp.fc1.weight",
            ("blocks.{i}.mlp.gate.kernel", "blocks.{i}.mlp.up.kernel"),
            LINEAR_SPLIT[2],
            unless=_GATED_NORM,
        ),
        Rule(
            "blocks.{i}.mlp.fc1.bias",
            ("blocks.{i}.mlp.gate.bias", "blocks.{i}.mlp.up.bias"),
            SPLIT[2],
            unless=_GATED_NORM,
        ),
        Rule("blocks.{i}.mlp.fc2.weight", "blocks.{i}.mlp.down.kernel", LINEAR),
        Rule("blocks.{i}.mlp.fc2.bias", "blocks.{i}.mlp.down.bias"),
        Rule("blocks.{i}.ls2.gamma", "blocks.{i}.ls2.scale"),
        # EVA02
        Rule("blocks.{i}.attn.q_proj.weight", "blocks.{i}.attn.q.kernel", LINEAR, when=_EVA02),
        Rule("blocks.{i}.attn.q_proj.bias", "blocks.{i}.attn.q.bias", when=_EVA02),
        Rule("blocks.{i}.attn.k_proj.weight", "blocks.{i}.attn.k.kernel", LINEAR, when=_EVA02),
        Rule("blocks.{i}.attn.v_proj.weight", "blocks.{i}.attn.v.kernel", LINEAR, when=_EVA02),
        Rule("blocks.{i}.attn.v_proj.bias", "blocks.{i}.attn.v.bias", when=_EVA02),
        Rule("blocks.{i}.attn.norm.weight", "blocks.{i}.attn.norm.scale"),
        Rule("blocks.{i}.attn.norm.bias", "blocks.{i}.attn.norm.bias"),
        Rule("blocks.{i}.mlp.fc1_g.weight", "blocks.{i}.mlp.gate.kernel", LINEAR, when=_GATED_NORM),
        Rule("blocks.{i}.mlp.fc1_g.bias", "blocks.{i}.mlp.gate.bias", when=_GATED_NORM),
        Rule("blocks.{i}.mlp.fc1_x.weight", "blocks.{i}.mlp.up.kernel", LINEAR, when=_GATED_NORM),
        Rule("blocks.{i}.mlp.fc1_x.bias", "blocks.{i}.mlp.up.bias", when=_GATED_NORM),
        Rule("blocks.{i}.mlp.norm.weight", "blocks.{i}.mlp.norm.scale"),
        Rule("blocks.{i}.mlp.norm.bias", "blocks.{i}.mlp.norm.bias"),
        Rule("norm.weight", "norm.scale"),
        Rule("norm.bias", "norm.bias"),
        # timm has one head: a classifier where there is one, else the projection
        Rule("head.weight", "classifier.kernel", LINEAR),
        Rule("head.bias", "classifier.bias"),
        Rule("head.weight", "proj.kernel", LINEAR, unless=_CLASSIFIER),
        Rule("head.bias", "proj.bias", unless=_CLASSIFIER),
    ),
    constants={"head.bias": Zeros(like="proj.kernel")},
    requires=("patch_embed.proj.weight", "blocks.0.norm1.weight", "blocks.0.attn.proj.weight"),
    forbids=("mask_token", "register_tokens", "visual.*"),
)
