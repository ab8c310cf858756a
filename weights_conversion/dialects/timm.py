"""timm's VisionTransformer and Eva (vision_transformer.py, eva.py): one table, since they share names."""

from weights_conversion.dialect import Dialect, Rule, zeros
from weights_conversion.dialects.parts import GATE, GATED_NORM, QKV, gate_and_up, joined, linear, norm
from weights_conversion.transforms import CONV, FOLDED_CLASS, LEAD_1, LEAD_2

_EXTRA_TOKENS = ("registers", "summary_tokens")  # such models keep the class token and its position as one sum
_K_BIAS = "blocks.attn.k.bias"
_POSITIONS = "pos_embed"  # Eva models without a table, DINOv3, have other names for scales, gate and value
_PATCH_NORM = "patch_norm.scale"  # AIMv2, which keeps gate and value apart
_CLASSIFIER = "classifier.kernel"

TIMM = Dialect(
    name="timm",
    code="timm",
    rules=(
        Rule("cls_token", "cls_token", LEAD_2, unless=_EXTRA_TOKENS),
        Rule("cls_token", "cls_token", LEAD_2, when="registers", unless=_POSITIONS),
        Rule("pos_embed", "pos_embed", LEAD_1, unless=_EXTRA_TOKENS),
        Rule(("cls_token", "pos_embed"), ("cls_token", "pos_embed"), FOLDED_CLASS, when=_EXTRA_TOKENS),
        Rule("reg_token", "registers", LEAD_1, unless="summary_tokens"),
        Rule("reg_token", "summary_tokens", LEAD_1, unless="registers"),
        Rule("patch_embed.proj.weight", "patch_embed.kernel", CONV),
        Rule("patch_embed.proj.bias", "patch_embed.bias"),
        *norm("patch_embed.norm", "patch_norm"),
        *norm("norm_pre", "norm_pre"),
        *norm("blocks.{i}.norm1", "blocks.{i}.norm1"),
        *joined(
            "blocks.{i}.attn.qkv.weight", "blocks.{i}.attn.qkv.bias", "blocks.{i}.attn", tuple(QKV), unless=GATED_NORM
        ),
        Rule("blocks.{i}.attn.q_bias", "blocks.{i}.attn.q.bias", unless=(GATED_NORM, _K_BIAS)),
        Rule("blocks.{i}.attn.v_bias", "blocks.{i}.attn.v.bias", unless=(GATED_NORM, _K_BIAS)),
        *(
            rule
            for part in QKV
            for rule in linear(f"blocks.{{i}}.attn.{part}_proj", f"blocks.{{i}}.attn.{part}", when=GATED_NORM)
        ),
        *norm("blocks.{i}.attn.norm", "blocks.{i}.attn.norm"),
        *linear("blocks.{i}.attn.proj", "blocks.{i}.attn.out"),
        *norm("blocks.{i}.norm2", "blocks.{i}.norm2"),
        *linear("blocks.{i}.mlp.fc1", "blocks.{i}.mlp.up", unless=GATE),
        *gate_and_up("blocks.{i}.mlp.fc1", when=_POSITIONS, unless=(GATED_NORM, _PATCH_NORM)),
        *(
            rule
            for when, unless in (((GATED_NORM, _PATCH_NORM), ()), (GATE, _POSITIONS))
            for part, ours in (("fc1_g", "gate"), ("fc1_x", "up"))
            for rule in linear(f"blocks.{{i}}.mlp.{part}", f"blocks.{{i}}.mlp.{ours}", when=when, unless=unless)
        ),
        *norm("blocks.{i}.mlp.norm", "blocks.{i}.mlp.norm"),
        *linear("blocks.{i}.mlp.fc2", "blocks.{i}.mlp.down"),
        *(
            Rule(f"blocks.{{i}}.{theirs}{n}{end}", f"blocks.{{i}}.ls{n}.scale", when=when, unless=unless)
            for n in (1, 2)
            for theirs, end, when, unless in (("ls", ".gamma", _POSITIONS, ()), ("gamma_", "", (), _POSITIONS))
        ),
        *norm("norm", "norm"),
        *norm("fc_norm", "fc_norm"),
        Rule("attn_pool.latent", "pool.probe", LEAD_2),
        *linear("attn_pool.q", "pool.q"),
        *joined("attn_pool.kv.weight", "attn_pool.kv.bias", "pool", ("k", "v")),
        *linear("attn_pool.proj", "pool.out"),
        *norm("attn_pool.norm", "pool.norm"),
        *linear("attn_pool.mlp.fc1", "pool.mlp.up"),
        *linear("attn_pool.mlp.fc2", "pool.mlp.down"),
        # timm has one head: a classifier where there is one, else the projection
        *linear("head", "classifier"),
        *linear("head", "proj", unless=_CLASSIFIER),
    ),
    constants={"head.bias": zeros(like="proj.kernel")},
    requires=("patch_embed.proj.weight", "blocks.0.norm1.weight", "blocks.0.attn.proj.weight"),
    forbids=("mask_token", "register_tokens", "storage_tokens", "decoder_*", "visual.*", "blocks.0.mlp.w1*", "rope*"),
)
