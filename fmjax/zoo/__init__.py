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
    nv_clip,
    nv_dinov2,
    pe_core,
    radio,
    siglip,
    tips,
)

_FAMILIES = {
    "CLIP": clip,
    "MetaCLIP 2": metaclip2,
    "CLIPA": clipa,
    "NV-CLIP": nv_clip,
    "EVA-CLIP": eva_clip,
    "DINOv2": dinov2,
    "NV-DINOv2": nv_dinov2,
    "SigLIP": siglip,
    "DINOv3": dinov3,
    "MAE": mae,
    "DINO": dino,
    "AugReg ViT": augreg,
    "EVA-02": eva02,
    "PE-Core": pe_core,
    "AIMv2": aimv2,
    "C-RADIO": radio,
    "TIPS": tips,
    "demo": demo,
}
SPECS = tuple(spec for family in _FAMILIES.values() for spec in family.SPECS)
WEIGHTS = tuple(weights for family in _FAMILIES.values() for weights in family.WEIGHTS)
FAMILY = {spec.name: name for name, family in _FAMILIES.items() for spec in family.SPECS}
