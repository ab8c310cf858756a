"""OpenCLIP models whose image tower is a timm model (EVA-CLIP, SigLIP, PE): timm's names under `visual.trunk.`, the
text tower beside."""

from weights_conversion.dialect import Dialect
from weights_conversion.dialects.open_clip import LEADS, TEXT_TOWER
from weights_conversion.dialects.timm import TIMM

OPEN_CLIP_TIMM = Dialect(
    name="open_clip_timm",
    code="timm",
    prefix="visual.trunk.",
    rules=TIMM.rules,
    extras=TEXT_TOWER,
    constants=TIMM.constants,
    requires=("visual.trunk.patch_embed.proj.weight", "visual.trunk.blocks.0.norm1.weight"),
    leads=LEADS,
)
