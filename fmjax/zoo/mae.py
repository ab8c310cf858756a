"""MAE encoders (arXiv:2111.06377)."""

from functools import partial

from fmjax.specs import Source, ViTSpec, Weights
from fmjax.zoo.sizes import BASE, HUGE, LARGE
from fmjax.zoo.statistics import IMAGENET

# the authors evaluate at 224 out of 256 (util/datasets.py, build_transform), timm at 224 out of 248 (its default)
_TIMM = {"crop_pct": 0.9}
_mae = partial(ViTSpec, resample="bicubic")

SPECS = (
    _mae(
        name="mae_vit_base_patch16",
        **BASE,
        patch_size=16,
        image_size=(224, 224),
    ),
    _mae(
        name="mae_vit_large_patch16",
        **LARGE,
        patch_size=16,
        image_size=(224, 224),
    ),
    _mae(
        name="mae_vit_huge_patch14",
        **HUGE,
        patch_size=14,
        image_size=(224, 224),
    ),
)

WEIGHTS = (
    Weights(
        model="mae_vit_base_patch16",
        tag="pretrain",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth",
                "mae_pretrain_vit_base.pth",
                "mae",
            ),
            Source(
                "hf",
                "facebook/vit-mae-base",
                "model.safetensors",
                "hf_vit_mae",
                overrides={"norm_eps": 1e-12},
            ),
            Source(
                "hf",
                "timm/vit_base_patch16_224.mae",
                "model.safetensors",
                "timm",
                preprocessing=_TIMM,
                overrides={"resample": "bicubic_antialias"},
            ),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="CC-BY-NC-4.0",
        crop_pct=0.875,
        accuracy={"imagenet1k_finetune": 83.664},
        aliases=("vit_base_patch16_224.mae",),
    ),
    Weights(
        model="mae_vit_large_patch16",
        tag="pretrain",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_large.pth",
                "mae_pretrain_vit_large.pth",
                "mae",
            ),
            Source(
                "hf",
                "facebook/vit-mae-large",
                "model.safetensors",
                "hf_vit_mae",
                overrides={"norm_eps": 1e-12},
            ),
            Source(
                "hf",
                "timm/vit_large_patch16_224.mae",
                "model.safetensors",
                "timm",
                preprocessing=_TIMM,
                overrides={"resample": "bicubic_antialias"},
            ),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="CC-BY-NC-4.0",
        crop_pct=0.875,
        accuracy={"imagenet1k_finetune": 85.952},
        aliases=("vit_large_patch16_224.mae",),
        unverified="facebook/vit-mae-large: a name by convention, in no published source",
    ),
    Weights(
        model="mae_vit_huge_patch14",
        tag="pretrain",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_huge.pth",
                "mae_pretrain_vit_huge.pth",
                "mae",
            ),
            Source(
                "hf",
                "facebook/vit-mae-huge",
                "model.safetensors",
                "hf_vit_mae",
                overrides={"norm_eps": 1e-12},
            ),
            Source(
                "hf",
                "timm/vit_huge_patch14_224.mae",
                "model.safetensors",
                "timm",
                preprocessing=_TIMM,
                overrides={"resample": "bicubic_antialias"},
            ),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="CC-BY-NC-4.0",
        crop_pct=0.875,
        accuracy={"imagenet1k_finetune": 86.928},
        aliases=("vit_huge_patch14_224.mae",),
        unverified="facebook/vit-mae-huge: a name by convention, in no published source",
    ),
)
