"""OpenCLIP models whose image tower is a timm model (EVA-CLIP, SigLIP, PE): timm's names under `visual.trunk.`, the
text tower beside."""

from dataclasses import replace

from weights_conversion.dialect import Dialect
from weights_conversion.dialects.open_clip import CONTAINERS, TEXT_TOWER
from weights_conversion.dialects.timm import EVA_ONLY, TIMM_EVA, TIMM_VIT

_REQUIRED = ("visual.trunk.patch_embed.proj.weight", "visual.trunk.blocks.0.norm1.weight")
_EVA_ONLY = tuple(f"visual.trunk.{key}" for key in EVA_ONLY)

OPEN_CLIP_TIMM_VIT = Dialect(
    name="open_clip_timm",
    code="timm",
    prefix="visual.trunk.",
    rules=TIMM_VIT.rules,
    extras=TEXT_TOWER,
    constants=TIMM_VIT.constants,
    requires=_REQUIRED,
    forbids=_EVA_ONLY,
    containers=CONTAINERS,
)
OPEN_CLIP_TIMM_EVA = replace(
    OPEN_CLIP_TIMM_VIT,
    rules=TIMM_EVA.rules,
    requires=(*_REQUIRED, _EVA_ONLY),
    forbids=(),
)
