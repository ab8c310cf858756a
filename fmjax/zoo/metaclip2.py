"""MetaCLIP 2 image towers, trained on worldwide text (arXiv:2507.22062)."""

from functools import partial

from fmjax.specs import Source, ViTSpec, Weights
from fmjax.zoo.sizes import BIG_G, HUGE
from fmjax.zoo.statistics import OPENAI

_clip = partial(ViTSpec, norm_eps=1e-05, norm_pre=True, patch_bias=False)

SPECS = (
    _clip(
        name="ViT-H-14-worldwide",
        **HUGE,
        patch_size=14,
        image_size=(224, 224),
        embed_dim=1024,
    ),
    _clip(
        name="ViT-H-14-worldwide-378",
        **HUGE,
        patch_size=14,
        image_size=(378, 378),
        embed_dim=1024,
    ),
    _clip(
        name="ViT-bigG-14-worldwide",
        **BIG_G,
        patch_size=14,
        image_size=(224, 224),
        embed_dim=1280,
    ),
    _clip(
        name="ViT-bigG-14-worldwide-378",
        **BIG_G,
        patch_size=14,
        image_size=(378, 378),
        embed_dim=1280,
    ),
)

WEIGHTS = (
    Weights(
        model="ViT-H-14-worldwide",
        tag="metaclip2_worldwide",
        sources=(
            Source(
                "hf",
                "timm/vit_huge_patch14_clip_224.metaclip2_worldwide",
                "open_clip_model.safetensors",
                "open_clip",
            ),
        ),
        **OPENAI,
        image_size=(224, 224),
        licence="CC-BY-NC-4.0",
        overrides={"activation": "quick_gelu"},
    ),
    Weights(
        model="ViT-H-14-worldwide-378",
        tag="metaclip2_worldwide",
        sources=(
            Source(
                "hf",
                "timm/vit_huge_patch14_clip_378.metaclip2_worldwide",
                "open_clip_model.safetensors",
                "open_clip",
            ),
        ),
        **OPENAI,
        image_size=(378, 378),
        licence="CC-BY-NC-4.0",
        resize_mode="squash",
    ),
    Weights(
        model="ViT-bigG-14-worldwide",
        tag="metaclip2_worldwide",
        sources=(
            Source(
                "hf",
                "timm/vit_gigantic_patch14_clip_224.metaclip2_worldwide",
                "open_clip_model.safetensors",
                "open_clip",
            ),
        ),
        **OPENAI,
        image_size=(224, 224),
        licence="CC-BY-NC-4.0",
    ),
    Weights(
        model="ViT-bigG-14-worldwide-378",
        tag="metaclip2_worldwide",
        sources=(
            Source(
                "hf",
                "timm/vit_gigantic_patch14_clip_378.metaclip2_worldwide",
                "open_clip_model.safetensors",
                "open_clip",
            ),
        ),
        **OPENAI,
        image_size=(378, 378),
        licence="CC-BY-NC-4.0",
        resize_mode="squash",
    ),
)
