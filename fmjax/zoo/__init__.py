"""The rows: one file a family, data only."""

from fmjax.zoo import (
    aimv2,
    augreg,
    clip,
    clipa,
    demo,
    dino,
    dinov2,
    dinov3,
    eva02,
    eva_clip,
    mae,
    metaclip2,
    nv_dinov2,
    pe_core,
    radio,
    siglip,
    tips,
)

_FAMILIES = (
    clip,
    metaclip2,
    clipa,
    eva_clip,
    dinov2,
    nv_dinov2,
    siglip,
    dinov3,
    mae,
    dino,
    augreg,
    eva02,
    pe_core,
    aimv2,
    radio,
    tips,
    demo,
)
SPECS = tuple(spec for family in _FAMILIES for spec in family.SPECS)
WEIGHTS = tuple(weights for family in _FAMILIES for weights in family.WEIGHTS)
