"""Perception Encoder, core models (arXiv:2504.13181). timm rescales the rotary positions of other image sizes."""

from functools import partial

from fmjax.specs import Rope, Source, ViTSpec, Weights
from fmjax.zoo.sizes import BASE, LARGE, SMALL, TINY
from fmjax.zoo.statistics import HALF

_pe = partial(
    ViTSpec,
    norm_eps=1e-05,
    norm_pre=True,
    patch_bias=False,
    rope=Rope(first_axis="columns", offset=1.0),
    pool="map",
    pool_heads=8,
    resample="bilinear",
)

SPECS = (
    _pe(
        name="PE-Core-B-16",
        **BASE,
        patch_size=16,
        image_size=(224, 224),
        pool_mlp_dim=3072,
        embed_dim=1024,
        aliases=("PE-Core-B16-224",),
    ),
    _pe(
        name="PE-Core-L-14-336",
        **LARGE,
        patch_size=14,
        image_size=(336, 336),
        pool_mlp_dim=4096,
        embed_dim=1024,
        aliases=("PE-Core-L14-336",),
    ),
    _pe(
        name="PE-Core-bigG-14-448",
        width=1536,
        depth=50,
        num_heads=16,
        mlp_dim=8960,
        patch_size=14,
        image_size=(448, 448),
        pool_mlp_dim=6144,
        embed_dim=1280,
        num_cls=0,
        positions="patches",
        rope=Rope(first_axis="columns"),
        aliases=("PE-Core-G14-448",),
    ),
    _pe(
        name="PE-Core-S-16-384",
        **SMALL,
        patch_size=16,
        image_size=(384, 384),
        pool_mlp_dim=1536,
        embed_dim=512,
        aliases=("PE-Core-S16-384",),
    ),
    _pe(
        name="PE-Core-T-16-384",
        **TINY,
        patch_size=16,
        image_size=(384, 384),
        pool_mlp_dim=768,
        embed_dim=512,
        aliases=("PE-Core-T16-384",),
    ),
)

WEIGHTS = (
    Weights(
        model="PE-Core-B-16",
        tag="meta",
        sources=(
            Source(
                "hf",
                "timm/PE-Core-B-16",
                "open_clip_model.safetensors",
                "open_clip_timm",
                overrides={
                    "resample": "bicubic_antialias",
                    "rope": Rope(first_axis="columns", offset=1.0, reference_grid=(14, 14)),
                },
            ),
            Source("hf", "facebook/PE-Core-B16-224", "PE-Core-B16-224.pt", "pe_original"),
        ),
        **HALF,
        image_size=(224, 224),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_zeroshot": 78.4},
    ),
    Weights(
        model="PE-Core-L-14-336",
        tag="meta",
        sources=(
            Source(
                "hf",
                "timm/PE-Core-L-14-336",
                "open_clip_model.safetensors",
                "open_clip_timm",
                overrides={
                    "resample": "bicubic_antialias",
                    "rope": Rope(first_axis="columns", offset=1.0, reference_grid=(24, 24)),
                },
            ),
            Source("hf", "facebook/PE-Core-L14-336", "PE-Core-L14-336.pt", "pe_original"),
        ),
        **HALF,
        image_size=(336, 336),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_zeroshot": 83.5},
    ),
    Weights(
        model="PE-Core-bigG-14-448",
        tag="meta",
        sources=(
            Source(
                "hf",
                "timm/PE-Core-bigG-14-448",
                "open_clip_model.safetensors",
                "open_clip_timm",
                overrides={
                    "resample": "bicubic_antialias",
                    "rope": Rope(first_axis="columns", reference_grid=(32, 32)),
                },
            ),
            Source("hf", "facebook/PE-Core-G14-448", "PE-Core-G14-448.pt", "pe_original"),
        ),
        **HALF,
        image_size=(448, 448),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_zeroshot": 85.4},
    ),
    Weights(
        model="PE-Core-S-16-384",
        tag="meta",
        sources=(
            Source(
                "hf",
                "timm/PE-Core-S-16-384",
                "open_clip_model.safetensors",
                "open_clip_timm",
                overrides={
                    "resample": "bicubic_antialias",
                    "rope": Rope(first_axis="columns", offset=1.0, reference_grid=(24, 24)),
                },
            ),
            Source("hf", "facebook/PE-Core-S16-384", "PE-Core-S16-384.pt", "pe_original"),
        ),
        **HALF,
        image_size=(384, 384),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_zeroshot": 72.7},
    ),
    Weights(
        model="PE-Core-T-16-384",
        tag="meta",
        sources=(
            Source(
                "hf",
                "timm/PE-Core-T-16-384",
                "open_clip_model.safetensors",
                "open_clip_timm",
                overrides={
                    "resample": "bicubic_antialias",
                    "rope": Rope(first_axis="columns", offset=1.0, reference_grid=(24, 24)),
                },
            ),
            Source("hf", "facebook/PE-Core-T16-384", "PE-Core-T16-384.pt", "pe_original"),
        ),
        **HALF,
        image_size=(384, 384),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_zeroshot": 62.1},
    ),
)
