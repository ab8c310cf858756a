"""EVA-02 as its authors publish it (EVA-02 modeling_finetune.py, modeling_pretrain.py), and what EVA-CLIP shares."""

from dataclasses import replace

from weights_conversion.dialect import Dialect, Rule
from weights_conversion.dialects.parts import (
    GATE,
    GATED_NORM,
    QKV_KERNELS,
    gate_and_up,
    linear,
    norm,
)
from weights_conversion.transforms import CONV, LEAD_1, LEAD_2, LINEAR, LINEAR_SPLIT

_DERIVED = "sine and cosine of the rotary positions: derived"
ROPE = {"rope.freqs_*": _DERIVED, "blocks.*.rope.freqs_*": _DERIVED}

EVA_RULES = (
    Rule("cls_token", "cls_token", LEAD_2),
    Rule("pos_embed", "pos_embed", LEAD_1),
    Rule("patch_embed.proj.weight", "patch_embed.kernel", CONV),
    Rule("patch_embed.proj.bias", "patch_embed.bias"),
    *norm("blocks.{i}.norm1", "blocks.{i}.norm1"),
    Rule("blocks.{i}.attn.q_bias", "blocks.{i}.attn.q.bias"),
    Rule("blocks.{i}.attn.v_bias", "blocks.{i}.attn.v.bias"),
    Rule("blocks.{i}.attn.qkv.weight", QKV_KERNELS, LINEAR_SPLIT[3], unless=GATED_NORM),
    Rule("blocks.{i}.attn.q_proj.weight", "blocks.{i}.attn.q.kernel", LINEAR, when=GATED_NORM),
    Rule("blocks.{i}.attn.k_proj.weight", "blocks.{i}.attn.k.kernel", LINEAR, when=GATED_NORM),
    Rule("blocks.{i}.attn.v_proj.weight", "blocks.{i}.attn.v.kernel", LINEAR, when=GATED_NORM),
    *norm("blocks.{i}.attn.inner_attn_ln", "blocks.{i}.attn.norm"),
    *linear("blocks.{i}.attn.proj", "blocks.{i}.attn.out"),
    *norm("blocks.{i}.norm2", "blocks.{i}.norm2"),
    *linear("blocks.{i}.mlp.fc1", "blocks.{i}.mlp.up", unless=GATE),
    *linear("blocks.{i}.mlp.fc2", "blocks.{i}.mlp.down", unless=GATE),
    *gate_and_up("blocks.{i}.mlp.w12", unless=GATED_NORM),
    *linear("blocks.{i}.mlp.w1", "blocks.{i}.mlp.gate", when=GATED_NORM),
    *linear("blocks.{i}.mlp.w2", "blocks.{i}.mlp.up", when=GATED_NORM),
    *norm("blocks.{i}.mlp.ffn_ln", "blocks.{i}.mlp.norm"),
    *linear("blocks.{i}.mlp.w3", "blocks.{i}.mlp.down", when=GATE),
)

# the norm of the pretrained model is where fine-tuning starts its fc_norm from (timm eva.py, checkpoint_filter_fn)
EVA02_ORIGINAL = Dialect(
    name="eva02_original",
    rules=(*EVA_RULES, *norm("norm", "fc_norm"), *linear("head", "classifier")),
    extras=ROPE,
    requires=("blocks.0.attn.q_bias", ("blocks.0.mlp.w1.weight", "blocks.0.mlp.w12.weight")),
    forbids=("visual.*", "mask_token", "fc_norm.*"),
)
EVA02_ORIGINAL_PRETRAIN = replace(
    EVA02_ORIGINAL,
    name="eva02_original_pretrain",
    extras=ROPE
    | {"mask_token": "used in pretraining only", "lm_head.*": "used in pretraining only"},
    requires=(*EVA02_ORIGINAL.requires, "mask_token", "lm_head.weight"),
    forbids=("visual.*", "fc_norm.*"),
)
EVA02_ORIGINAL_FINETUNE = replace(
    EVA02_ORIGINAL,
    name="eva02_original_finetune",
    rules=(*EVA_RULES, *norm("fc_norm", "fc_norm"), *linear("head", "classifier")),
    requires=(*EVA02_ORIGINAL.requires, "fc_norm.weight"),
    forbids=("visual.*", "mask_token"),
)
