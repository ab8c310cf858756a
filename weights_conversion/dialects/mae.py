"""MAE (mae models_mae.py, models_vit.py) and DINO (dino vision_transformer.py): an older timm's names."""

from dataclasses import replace

from weights_conversion.dialects.timm import TIMM_VIT

_NAMES = ("patch_embed.proj.weight", "cls_token", "pos_embed", "blocks.0.attn.qkv.weight")
_OTHERS = ("blocks.0.ls1.gamma", "register_tokens", "reg_token", "storage_tokens", "visual.*")

MAE = replace(
    TIMM_VIT,
    name="mae",
    code="mae",
    extras={
        "mask_token": "used in pretraining only",
        "decoder_*": "decoder, used in pretraining only",
    },
    requires=_NAMES,
    forbids=(*_OTHERS, "blocks.0.attn.q_bias", "norm_pre.*"),
)
DINO = replace(
    TIMM_VIT,
    name="dino",
    code="dino",
    requires=_NAMES,
    forbids=(*_OTHERS, "mask_token", "decoder_*", "blocks.0.attn.q_bias", "norm_pre.*"),
    containers=("", "backbone.", "module.backbone."),
)
