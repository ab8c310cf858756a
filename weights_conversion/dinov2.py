"""DINOv2 as Meta publishes it, and NVIDIA's, which has timm's MLP names and the registers' own (TAO dino_v2.py)."""

from dataclasses import replace

from weights_conversion.rules import Dialect, Rule
from weights_conversion.timm import TIMM
from weights_conversion.transforms import CONV, LEAD_1, LEAD_2, LINEAR, LINEAR_SPLIT, SPLIT

_GATE = "blocks.mlp.gate.kernel"

DINOV2 = Dialect(
    name="dinov2",
    rules=(
        Rule("cls_token", "cls_token", LEAD_2),
        Rule("pos_embed", "pos_embed", LEAD_1),
        Rule("register_tokens", "registers", LEAD_1),
        Rule("patch_embed.proj.weight", "patch_embed.kernel", CONV),
        Rule("patch_embed.proj.bias", "patch_embed.bias"),
        Rule("blocks.{i}.norm1.weight", "blocks.{i}.norm1.scale"),
        Rule("blocks.{i}.norm1.bias", "blocks.{i}.norm1.bias"),
        Rule("blocks.{i}.attn.qkv.weight", tuple(f"blocks.{{i}}.attn.{n}.kernel" for n in "qkv"), LINEAR_SPLIT[3]),
        Rule("blocks.{i}.attn.qkv.bias", tuple(f"blocks.{{i}}.attn.{n}.bias" for n in "qkv"), SPLIT[3]),
        Rule("blocks.{i}.attn.proj.weight", "blocks.{i}.attn.out.kernel", LINEAR),
        Rule("blocks.{i}.attn.proj.bias", "blocks.{i}.attn.out.bias"),
        Rule("blocks.{i}.ls1.gamma", "blocks.{i}.ls1.scale"),
        Rule("blocks.{i}.norm2.weight", "blocks.{i}.norm2.scale"),
        Rule("blocks.{i}.norm2.bias", "blocks.{i}.norm2.bias"),
        Rule("blocks.{i}.mlp.fc1.weight", "blocks.{i}.mlp.up.kernel", LINEAR, unless=_GATE),
        Rule("blocks.{i}.mlp.fc1.bias", "blocks.{i}.mlp.up.bias", unless=_GATE),
        Rule("blocks.{i}.mlp.fc2.weight", "blocks.{i}.mlp.down.kernel", LINEAR, unless=_GATE),
        Rule("blocks.{i}.mlp.fc2.bias", "blocks.{i}.mlp.down.bias", unless=_GATE),
        Rule("blocks.{i}.mlp.w12.weight", ("blocks.{i}.mlp.gate.kernel", "blocks.{i}.mlp.up.kernel"), LINEAR_SPLIT[2]),
        Rule("blocks.{i}.mlp.w12.bias", ("blocks.{i}.mlp.gate.bias", "blocks.{i}.mlp.up.bias"), SPLIT[2]),
        Rule("blocks.{i}.mlp.w3.weight", "blocks.{i}.mlp.down.kernel", LINEAR, when=_GATE),
        Rule("blocks.{i}.mlp.w3.bias", "blocks.{i}.mlp.down.bias", when=_GATE),
        Rule("blocks.{i}.ls2.gamma", "blocks.{i}.ls2.scale"),
        Rule("norm.weight", "norm.scale"),
        Rule("norm.bias", "norm.bias"),
    ),
    extras={"mask_token": "used in pretraining only"},
    requires=("mask_token", "pos_embed", "blocks.0.ls1.gamma"),
    forbids=("visual.*",),
)

_META_ONLY = {"cls_token", "pos_embed", "register_tokens"}
_TIMM_ONLY = {("cls_token", "pos_embed"), "cls_token", "pos_embed", "reg_token"}

TAO_NVDINOV2 = replace(
    TIMM,
    name="tao_nvdinov2",
    rules=(
        *(rule for rule in DINOV2.rules if rule.torch in _META_ONLY),
        *(rule for rule in TIMM.rules if rule.torch not in _TIMM_ONLY),
    ),
    requires=("cls_token", "pos_embed", "blocks.0.ls1.gamma", "blocks.0.mlp.fc1.weight"),
    forbids=("mask_token", "reg_token", "visual.*"),
)
