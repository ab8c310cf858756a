"""EVA-CLIP as its authors publish it (eva_clip eva_vit_model.py): EVA01 and E join q, k and v, EVA02 B and L do not."""

from weights_conversion.dialect import Dialect
from weights_conversion.dialects.eva02_original import EVA_RULES, ROPE
from weights_conversion.dialects.open_clip import TEXT_TOWER
from weights_conversion.dialects.parts import linear, norm

_ROPE = {f"visual.{key}": why for key, why in ROPE.items()}

EVA_CLIP = Dialect(
    name="eva_clip",
    prefix="visual.",
    rules=(*EVA_RULES, *norm("norm", "norm"), *linear("head", "proj")),
    extras=TEXT_TOWER | _ROPE,
    requires=("visual.patch_embed.proj.weight", "visual.blocks.0.attn.q_bias"),
)
