"""DINO (arXiv:2104.14294)."""

from functools import partial

from fmjax.specs import Source, ViTSpec, Weights
from fmjax.zoo.sizes import BASE, SMALL
from fmjax.zoo.statistics import IMAGENET

# the authors evaluate at 224 out of 256 (eval_linear.py), timm at 224 out of 248 (its default)
_TIMM = {"crop_pct": 0.9}
_dino = partial(ViTSpec, resample="bicubic_offset")

SPECS = (
    _dino(name="dino_vits16", **SMALL, patch_size=16, image_size=(224, 224)),
    _dino(name="dino_vits8", **SMALL, patch_size=8, image_size=(224, 224)),
    _dino(name="dino_vitb16", **BASE, patch_size=16, image_size=(224, 224)),
    _dino(name="dino_vitb8", **BASE, patch_size=8, image_size=(224, 224)),
)

WEIGHTS = (
    Weights(
        model="dino_vits16",
        tag="in1k",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
                "dino_deitsmall16_pretrain.pth",
                "dino",
            ),
            Source(
                "hf",
                "facebook/dino-vits16",
                "model.safetensors",
                "hf_vit",
                overrides={"resample": "bicubic", "norm_eps": 1e-12},
            ),
            Source(
                "hf",
                "timm/vit_small_patch16_224.dino",
                "model.safetensors",
                "timm",
                preprocessing=_TIMM,
                overrides={"resample": "bicubic_antialias"},
            ),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="Apache-2.0",
        crop_pct=0.875,
        accuracy={"imagenet1k_knn": 74.5, "imagenet1k_linear": 77.0},
        aliases=("vit_small_patch16_224.dino",),
        unverified="facebook/dino-vits16: a name by convention, in no published source",
    ),
    Weights(
        model="dino_vits8",
        tag="in1k",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dino/dino_deitsmall8_pretrain/dino_deitsmall8_pretrain.pth",
                "dino_deitsmall8_pretrain.pth",
                "dino",
            ),
            Source(
                "hf",
                "facebook/dino-vits8",
                "model.safetensors",
                "hf_vit",
                overrides={"resample": "bicubic", "norm_eps": 1e-12},
            ),
            Source(
                "hf",
                "timm/vit_small_patch8_224.dino",
                "model.safetensors",
                "timm",
                preprocessing=_TIMM,
                overrides={"resample": "bicubic_antialias"},
            ),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="Apache-2.0",
        crop_pct=0.875,
        accuracy={"imagenet1k_knn": 78.3, "imagenet1k_linear": 79.7},
        aliases=("vit_small_patch8_224.dino",),
        unverified="facebook/dino-vits8: a name by convention, in no published source",
    ),
    Weights(
        model="dino_vitb16",
        tag="in1k",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
                "dino_vitbase16_pretrain.pth",
                "dino",
            ),
            Source(
                "hf",
                "facebook/dino-vitb16",
                "model.safetensors",
                "hf_vit",
                overrides={"resample": "bicubic", "norm_eps": 1e-12},
            ),
            Source(
                "hf",
                "timm/vit_base_patch16_224.dino",
                "model.safetensors",
                "timm",
                preprocessing=_TIMM,
                overrides={"resample": "bicubic_antialias"},
            ),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="Apache-2.0",
        crop_pct=0.875,
        accuracy={"imagenet1k_knn": 76.1, "imagenet1k_linear": 78.2},
        aliases=("vit_base_patch16_224.dino",),
        unverified="facebook/dino-vitb16: a name by convention, in no published source",
    ),
    Weights(
        model="dino_vitb8",
        tag="in1k",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dino/dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth",
                "dino_vitbase8_pretrain.pth",
                "dino",
            ),
            Source(
                "hf",
                "facebook/dino-vitb8",
                "model.safetensors",
                "hf_vit",
                overrides={"resample": "bicubic", "norm_eps": 1e-12},
            ),
            Source(
                "hf",
                "timm/vit_base_patch8_224.dino",
                "model.safetensors",
                "timm",
                preprocessing=_TIMM,
                overrides={"resample": "bicubic_antialias"},
            ),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="Apache-2.0",
        crop_pct=0.875,
        accuracy={"imagenet1k_knn": 77.4, "imagenet1k_linear": 80.1},
        aliases=("vit_base_patch8_224.dino",),
        unverified="facebook/dino-vitb8: a name by convention, in no published source",
    ),
)
