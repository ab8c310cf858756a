"""CLIPA image towers (arXiv:2305.07017): the mean of the patches is pooled, then normalised and projected."""

from functools import partial

from fmjax.specs import Source, ViTSpec, Weights
from fmjax.zoo.sizes import BIG_G, HUGE, LARGE
from fmjax.zoo.statistics import IMAGENET

_clipa = partial(ViTSpec, norm_eps=1e-05, patch_bias=False, pool="patches", norm_after_pool=True)

SPECS = (
    _clipa(
        name="ViT-L-14-CLIPA",
        **LARGE,
        patch_size=14,
        image_size=(224, 224),
        embed_dim=768,
    ),
    _clipa(
        name="ViT-L-14-CLIPA-336",
        **LARGE,
        patch_size=14,
        image_size=(336, 336),
        embed_dim=768,
    ),
    _clipa(
        name="ViT-H-14-CLIPA",
        **HUGE,
        patch_size=14,
        image_size=(224, 224),
        embed_dim=1024,
    ),
    _clipa(
        name="ViT-H-14-CLIPA-336",
        **HUGE,
        patch_size=14,
        image_size=(336, 336),
        embed_dim=1024,
    ),
    _clipa(
        name="ViT-bigG-14-CLIPA",
        **BIG_G,
        patch_size=14,
        image_size=(224, 224),
        embed_dim=1280,
    ),
    _clipa(
        name="ViT-bigG-14-CLIPA-336",
        **BIG_G,
        patch_size=14,
        image_size=(336, 336),
        embed_dim=1280,
    ),
)

WEIGHTS = (
    Weights(
        model="ViT-L-14-CLIPA",
        tag="datacomp1b",
        sources=(
            Source(
                "hf",
                "UCSC-VLAA/ViT-L-14-CLIPA-datacomp1B",
                "open_clip_model.safetensors",
                "open_clip",
            ),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_zeroshot": 79.57},
        unverified="licence from memory of the model card",
    ),
    Weights(
        model="ViT-L-14-CLIPA-336",
        tag="datacomp1b",
        sources=(
            Source(
                "hf",
                "UCSC-VLAA/ViT-L-14-CLIPA-336-datacomp1B",
                "open_clip_model.safetensors",
                "open_clip",
            ),
        ),
        **IMAGENET,
        image_size=(336, 336),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_zeroshot": 80.26},
        unverified="licence from memory of the model card",
    ),
    Weights(
        model="ViT-H-14-CLIPA",
        tag="datacomp1b",
        sources=(
            Source(
                "hf",
                "UCSC-VLAA/ViT-H-14-CLIPA-datacomp1B",
                "open_clip_model.safetensors",
                "open_clip",
            ),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_zeroshot": 81.52},
        unverified="licence from memory of the model card",
    ),
    Weights(
        model="ViT-H-14-CLIPA-336",
        tag="laion2b",
        sources=(
            Source(
                "hf",
                "UCSC-VLAA/ViT-H-14-CLIPA-336-laion2B",
                "open_clip_model.safetensors",
                "open_clip",
            ),
        ),
        **IMAGENET,
        image_size=(336, 336),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_zeroshot": 79.1},
        unverified="licence from memory of the model card",
    ),
    Weights(
        model="ViT-H-14-CLIPA-336",
        tag="datacomp1b",
        sources=(
            Source(
                "hf",
                "UCSC-VLAA/ViT-H-14-CLIPA-336-datacomp1B",
                "open_clip_model.safetensors",
                "open_clip",
            ),
        ),
        **IMAGENET,
        image_size=(336, 336),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_zeroshot": 81.8},
        unverified="licence from memory of the model card",
    ),
    Weights(
        model="ViT-bigG-14-CLIPA",
        tag="datacomp1b",
        sources=(
            Source(
                "hf",
                "UCSC-VLAA/ViT-bigG-14-CLIPA-datacomp1B",
                "open_clip_model.safetensors",
                "open_clip",
            ),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_zeroshot": 82.7},
        unverified="licence from memory of the model card",
    ),
    Weights(
        model="ViT-bigG-14-CLIPA-336",
        tag="datacomp1b",
        sources=(
            Source(
                "hf",
                "UCSC-VLAA/ViT-bigG-14-CLIPA-336-datacomp1B",
                "open_clip_model.safetensors",
                "open_clip",
            ),
        ),
        **IMAGENET,
        image_size=(336, 336),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_zeroshot": 83.09},
        unverified="licence from memory of the model card",
    ),
)
