"""The rows: one file a family, data only."""

from fmjax.zoo import clip, demo, dinov2, eva_clip, nv_dinov2

SPECS = clip.SPECS + eva_clip.SPECS + dinov2.SPECS + nv_dinov2.SPECS + demo.SPECS
WEIGHTS = clip.WEIGHTS + eva_clip.WEIGHTS + dinov2.WEIGHTS + nv_dinov2.WEIGHTS + demo.WEIGHTS
