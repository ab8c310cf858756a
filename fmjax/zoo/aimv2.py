"""AIMv2 (arXiv:2411.14402). The original has no pooled output; the mean of the patches, as in timm, is given."""

from functools import partial

from fmjax.specs import Source, ViTSpec, Weights
from fmjax.zoo.statistics import IMAGENET, OPENAI

# the authors contradict themselves: their own code is shown with ImageNet's statistics and a crop of 0.875 (ml-aim
# README.md, with aim/v1/torch/data.py, val_transforms), while their repositories on the hub have a CLIP processor, with
# OpenAI's statistics and no margin, as timm has (vision_transformer.py, default_cfgs)
_CLIP = {**OPENAI, "crop_pct": 1.0}
_aimv2 = partial(
    ViTSpec,
    image_size=(224, 224),
    mlp="swiglu",
    norm="rms",
    norm_eps=1e-05,
    patch_norm=True,
    positions="patches",
    num_cls=0,
    qkv_bias=False,
    bias=False,
    pool="patches",
)

SPECS = (
    _aimv2(name="aimv2_large", width=1024, depth=24, num_heads=8, mlp_dim=2816, patch_size=14),
    _aimv2(name="aimv2_huge", width=1536, depth=24, num_heads=12, mlp_dim=4096, patch_size=14),
    _aimv2(name="aimv2_1B", width=2048, depth=24, num_heads=16, mlp_dim=5632, patch_size=14),
    _aimv2(name="aimv2_3B", width=3072, depth=24, num_heads=24, mlp_dim=8192, patch_size=14),
)

WEIGHTS = (
    Weights(
        model="aimv2_large",
        tag="224px",
        sources=(
            Source("hf", "apple/aimv2-large-patch14-224", "model.safetensors", "aimv2", preprocessing=_CLIP),
            Source("hf", "timm/aimv2_large_patch14_224.apple_pt", "model.safetensors", "timm", preprocessing=_CLIP),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="Apple sample code licence (apple-ascl)",
        crop_pct=0.875,
        accuracy={"imagenet1k_attentive_probe": 86.6},
        aliases=("aimv2_large_patch14_224.apple_pt",),
    ),
    Weights(
        model="aimv2_large",
        tag="336px",
        sources=(
            Source("hf", "apple/aimv2-large-patch14-336", "model.safetensors", "aimv2", preprocessing=_CLIP),
            Source("hf", "timm/aimv2_large_patch14_336.apple_pt", "model.safetensors", "timm", preprocessing=_CLIP),
        ),
        **IMAGENET,
        image_size=(336, 336),
        licence="Apple sample code licence (apple-ascl)",
        crop_pct=0.875,
        overrides={"image_size": (336, 336)},
        aliases=("aimv2_large_patch14_336.apple_pt",),
    ),
    Weights(
        model="aimv2_large",
        tag="448px",
        sources=(
            Source("hf", "apple/aimv2-large-patch14-448", "model.safetensors", "aimv2", preprocessing=_CLIP),
            Source("hf", "timm/aimv2_large_patch14_448.apple_pt", "model.safetensors", "timm", preprocessing=_CLIP),
        ),
        **IMAGENET,
        image_size=(448, 448),
        licence="Apple sample code licence (apple-ascl)",
        crop_pct=0.875,
        overrides={"image_size": (448, 448)},
        aliases=("aimv2_large_patch14_448.apple_pt",),
    ),
    Weights(
        model="aimv2_huge",
        tag="224px",
        sources=(
            Source("hf", "apple/aimv2-huge-patch14-224", "model.safetensors", "aimv2", preprocessing=_CLIP),
            Source("hf", "timm/aimv2_huge_patch14_224.apple_pt", "model.safetensors", "timm", preprocessing=_CLIP),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="Apple sample code licence (apple-ascl)",
        crop_pct=0.875,
        accuracy={"imagenet1k_attentive_probe": 87.5},
        aliases=("aimv2_huge_patch14_224.apple_pt",),
    ),
    Weights(
        model="aimv2_huge",
        tag="336px",
        sources=(
            Source("hf", "apple/aimv2-huge-patch14-336", "model.safetensors", "aimv2", preprocessing=_CLIP),
            Source("hf", "timm/aimv2_huge_patch14_336.apple_pt", "model.safetensors", "timm", preprocessing=_CLIP),
        ),
        **IMAGENET,
        image_size=(336, 336),
        licence="Apple sample code licence (apple-ascl)",
        crop_pct=0.875,
        overrides={"image_size": (336, 336)},
        aliases=("aimv2_huge_patch14_336.apple_pt",),
    ),
    Weights(
        model="aimv2_huge",
        tag="448px",
        sources=(
            Source("hf", "apple/aimv2-huge-patch14-448", "model.safetensors", "aimv2", preprocessing=_CLIP),
            Source("hf", "timm/aimv2_huge_patch14_448.apple_pt", "model.safetensors", "timm", preprocessing=_CLIP),
        ),
        **IMAGENET,
        image_size=(448, 448),
        licence="Apple sample code licence (apple-ascl)",
        crop_pct=0.875,
        overrides={"image_size": (448, 448)},
        aliases=("aimv2_huge_patch14_448.apple_pt",),
    ),
    Weights(
        model="aimv2_1B",
        tag="224px",
        sources=(
            Source("hf", "apple/aimv2-1B-patch14-224", "model.safetensors", "aimv2", preprocessing=_CLIP),
            Source("hf", "timm/aimv2_1b_patch14_224.apple_pt", "model.safetensors", "timm", preprocessing=_CLIP),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="Apple sample code licence (apple-ascl)",
        crop_pct=0.875,
        accuracy={"imagenet1k_attentive_probe": 88.1},
        aliases=("aimv2_1b_patch14_224.apple_pt",),
    ),
    Weights(
        model="aimv2_1B",
        tag="336px",
        sources=(
            Source("hf", "apple/aimv2-1B-patch14-336", "model.safetensors", "aimv2", preprocessing=_CLIP),
            Source("hf", "timm/aimv2_1b_patch14_336.apple_pt", "model.safetensors", "timm", preprocessing=_CLIP),
        ),
        **IMAGENET,
        image_size=(336, 336),
        licence="Apple sample code licence (apple-ascl)",
        crop_pct=0.875,
        overrides={"image_size": (336, 336)},
        aliases=("aimv2_1b_patch14_336.apple_pt",),
    ),
    Weights(
        model="aimv2_1B",
        tag="448px",
        sources=(
            Source("hf", "apple/aimv2-1B-patch14-448", "model.safetensors", "aimv2", preprocessing=_CLIP),
            Source("hf", "timm/aimv2_1b_patch14_448.apple_pt", "model.safetensors", "timm", preprocessing=_CLIP),
        ),
        **IMAGENET,
        image_size=(448, 448),
        licence="Apple sample code licence (apple-ascl)",
        crop_pct=0.875,
        overrides={"image_size": (448, 448)},
        aliases=("aimv2_1b_patch14_448.apple_pt",),
    ),
    Weights(
        model="aimv2_3B",
        tag="224px",
        sources=(
            Source("hf", "apple/aimv2-3B-patch14-224", "model.safetensors", "aimv2", preprocessing=_CLIP),
            Source("hf", "timm/aimv2_3b_patch14_224.apple_pt", "model.safetensors", "timm", preprocessing=_CLIP),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="Apple sample code licence (apple-ascl)",
        crop_pct=0.875,
        accuracy={"imagenet1k_attentive_probe": 88.5},
        aliases=("aimv2_3b_patch14_224.apple_pt",),
    ),
    Weights(
        model="aimv2_3B",
        tag="336px",
        sources=(
            Source("hf", "apple/aimv2-3B-patch14-336", "model.safetensors", "aimv2", preprocessing=_CLIP),
            Source("hf", "timm/aimv2_3b_patch14_336.apple_pt", "model.safetensors", "timm", preprocessing=_CLIP),
        ),
        **IMAGENET,
        image_size=(336, 336),
        licence="Apple sample code licence (apple-ascl)",
        crop_pct=0.875,
        overrides={"image_size": (336, 336)},
        aliases=("aimv2_3b_patch14_336.apple_pt",),
    ),
    Weights(
        model="aimv2_3B",
        tag="448px",
        sources=(
            Source("hf", "apple/aimv2-3B-patch14-448", "model.safetensors", "aimv2", preprocessing=_CLIP),
            Source("hf", "timm/aimv2_3b_patch14_448.apple_pt", "model.safetensors", "timm", preprocessing=_CLIP),
        ),
        **IMAGENET,
        image_size=(448, 448),
        licence="Apple sample code licence (apple-ascl)",
        crop_pct=0.875,
        overrides={"image_size": (448, 448)},
        aliases=("aimv2_3b_patch14_448.apple_pt",),
    ),
)
