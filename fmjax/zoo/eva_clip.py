"""EVA-CLIP and EVA02-CLIP image towers (arXiv:2303.15389)."""

from functools import partial

from fmjax.specs import Rope, Source, ViTSpec, Weights
from fmjax.zoo.statistics import OPENAI

# the authors and open_clip leave no margin (eva_clip/transform.py); timm does at 224, by its default
_TIMM = {"crop_pct": 0.9}
_ROPE = Rope(reference_grid=(16, 16))
_eva = partial(ViTSpec, k_bias=False, proj_bias=True)

SPECS = (
    _eva(
        name="EVA01-g-14",
        width=1408,
        depth=40,
        num_heads=16,
        mlp_dim=6144,
        patch_size=14,
        image_size=(224, 224),
        norm_eps=1e-06,
        embed_dim=1024,
        aliases=("eva_giant_patch14_clip_224", "EVA01-CLIP-g-14"),
    ),
    _eva(
        name="EVA01-g-14-plus",
        width=1408,
        depth=40,
        num_heads=16,
        mlp_dim=6144,
        patch_size=14,
        image_size=(224, 224),
        norm_eps=1e-06,
        embed_dim=1024,
        aliases=("eva_giant_patch14_clip_224", "EVA01-CLIP-g-14-plus"),
    ),
    _eva(
        name="EVA02-B-16",
        width=768,
        depth=12,
        num_heads=12,
        mlp_dim=2048,
        patch_size=16,
        image_size=(224, 224),
        mlp="swiglu",
        norm_eps=1e-06,
        rope=_ROPE,
        attn_norm=True,
        mlp_norm=True,
        embed_dim=512,
        aliases=("eva02_base_patch16_clip_224", "EVA02-CLIP-B-16"),
    ),
    _eva(
        name="EVA02-L-14",
        width=1024,
        depth=24,
        num_heads=16,
        mlp_dim=2730,
        patch_size=14,
        image_size=(224, 224),
        mlp="swiglu",
        norm_eps=1e-06,
        rope=_ROPE,
        attn_norm=True,
        mlp_norm=True,
        embed_dim=768,
        aliases=("eva02_large_patch14_clip_224", "EVA02-CLIP-L-14"),
    ),
    _eva(
        name="EVA02-L-14-336",
        width=1024,
        depth=24,
        num_heads=16,
        mlp_dim=2730,
        patch_size=14,
        image_size=(336, 336),
        mlp="swiglu",
        norm_eps=1e-06,
        rope=_ROPE,
        attn_norm=True,
        mlp_norm=True,
        embed_dim=768,
        aliases=("eva02_large_patch14_clip_336", "EVA02-CLIP-L-14-336"),
    ),
    _eva(
        name="EVA02-E-14",
        width=1792,
        depth=64,
        num_heads=16,
        mlp_dim=15360,
        patch_size=14,
        image_size=(224, 224),
        block="post_norm",
        norm_eps=1e-06,
        embed_dim=1024,
        aliases=("eva02_enormous_patch14_clip_224", "EVA02-CLIP-bigE-14"),
    ),
    _eva(
        name="EVA02-E-14-plus",
        width=1792,
        depth=64,
        num_heads=16,
        mlp_dim=15360,
        patch_size=14,
        image_size=(224, 224),
        block="post_norm",
        norm_eps=1e-06,
        embed_dim=1024,
        aliases=("eva02_enormous_patch14_clip_224", "EVA02-CLIP-bigE-14-plus"),
    ),
)

WEIGHTS = (
    Weights(
        model="EVA01-g-14",
        tag="laion400m_s11b_b41k",
        sources=(
            Source(
                "hf",
                "timm/eva_giant_patch14_clip_224.laion400m_s11b_b41k",
                "open_clip_model.safetensors",
                "open_clip_timm",
            ),
            Source(
                "hf", "QuanSun/EVA-CLIP", "EVA01_CLIP_g_14_psz14_s11B.pt", "eva_clip", overrides={"resample": "bicubic"}
            ),
            Source("hf", "timm/eva_giant_patch14_clip_224.laion400m", "model.safetensors", "timm", preprocessing=_TIMM),
        ),
        **OPENAI,
        image_size=(224, 224),
        licence="MIT",
        accuracy={"imagenet1k_zeroshot": 78.52},
        aliases=("eva_giant_patch14_clip_224.laion400m",),
    ),
    Weights(
        model="EVA01-g-14-plus",
        tag="merged2b_s11b_b114k",
        sources=(
            Source(
                "hf",
                "timm/eva_giant_patch14_plus_clip_224.merged2b_s11b_b114k",
                "open_clip_model.safetensors",
                "open_clip_timm",
            ),
            Source(
                "hf",
                "QuanSun/EVA-CLIP",
                "EVA01_CLIP_g_14_plus_psz14_s11B.pt",
                "eva_clip",
                overrides={"resample": "bicubic"},
            ),
            Source("hf", "timm/eva_giant_patch14_clip_224.merged2b", "model.safetensors", "timm", preprocessing=_TIMM),
        ),
        **OPENAI,
        image_size=(224, 224),
        licence="MIT",
        accuracy={"imagenet1k_zeroshot": 79.33},
        aliases=("eva_giant_patch14_clip_224.merged2b",),
    ),
    Weights(
        model="EVA02-B-16",
        tag="merged2b_s8b_b131k",
        sources=(
            Source(
                "hf",
                "timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k",
                "open_clip_model.safetensors",
                "open_clip_timm",
            ),
            Source(
                "hf", "QuanSun/EVA-CLIP", "EVA02_CLIP_B_psz16_s8B.pt", "eva_clip", overrides={"resample": "bicubic"}
            ),
            Source("hf", "timm/eva02_base_patch16_clip_224.merged2b", "model.safetensors", "timm", preprocessing=_TIMM),
        ),
        **OPENAI,
        image_size=(224, 224),
        licence="MIT",
        accuracy={"imagenet1k_zeroshot": 74.72},
        aliases=("eva02_base_patch16_clip_224.merged2b",),
    ),
    Weights(
        model="EVA02-L-14",
        tag="merged2b_s4b_b131k",
        sources=(
            Source(
                "hf",
                "timm/eva02_large_patch14_clip_224.merged2b_s4b_b131k",
                "open_clip_model.safetensors",
                "open_clip_timm",
            ),
            Source(
                "hf", "QuanSun/EVA-CLIP", "EVA02_CLIP_L_psz14_s4B.pt", "eva_clip", overrides={"resample": "bicubic"}
            ),
            Source(
                "hf", "timm/eva02_large_patch14_clip_224.merged2b", "model.safetensors", "timm", preprocessing=_TIMM
            ),
        ),
        **OPENAI,
        image_size=(224, 224),
        licence="MIT",
        accuracy={"imagenet1k_zeroshot": 79.77},
        aliases=("eva02_large_patch14_clip_224.merged2b",),
    ),
    Weights(
        model="EVA02-L-14-336",
        tag="merged2b_s6b_b61k",
        sources=(
            Source(
                "hf",
                "timm/eva02_large_patch14_clip_336.merged2b_s6b_b61k",
                "open_clip_model.safetensors",
                "open_clip_timm",
            ),
            Source(
                "hf", "QuanSun/EVA-CLIP", "EVA02_CLIP_L_336_psz14_s6B.pt", "eva_clip", overrides={"resample": "bicubic"}
            ),
            Source("hf", "timm/eva02_large_patch14_clip_336.merged2b", "model.safetensors", "timm"),
        ),
        **OPENAI,
        image_size=(336, 336),
        licence="MIT",
        accuracy={"imagenet1k_zeroshot": 80.39},
        aliases=("eva02_large_patch14_clip_336.merged2b", "EVA02-L-14-336.laion400m_e31"),
    ),
    Weights(
        model="EVA02-E-14",
        tag="laion2b_s4b_b115k",
        sources=(
            Source(
                "hf",
                "timm/eva02_enormous_patch14_clip_224.laion2b_s4b_b115k",
                "open_clip_model.safetensors",
                "open_clip_timm",
            ),
            Source(
                "hf", "QuanSun/EVA-CLIP", "EVA02_CLIP_E_psz14_s4B.pt", "eva_clip", overrides={"resample": "bicubic"}
            ),
            Source(
                "hf", "timm/eva02_enormous_patch14_clip_224.laion2b", "model.safetensors", "timm", preprocessing=_TIMM
            ),
        ),
        **OPENAI,
        image_size=(224, 224),
        licence="MIT",
        accuracy={"imagenet1k_zeroshot": 81.96},
        aliases=("eva02_enormous_patch14_clip_224.laion2b", "EVA02-E-14.laion400m_e31"),
    ),
    Weights(
        model="EVA02-E-14-plus",
        tag="laion2b_s9b_b144k",
        sources=(
            Source(
                "hf",
                "timm/eva02_enormous_patch14_plus_clip_224.laion2b_s9b_b144k",
                "open_clip_model.safetensors",
                "open_clip_timm",
            ),
            Source(
                "hf",
                "QuanSun/EVA-CLIP",
                "EVA02_CLIP_E_psz14_plus_s9B.pt",
                "eva_clip",
                overrides={"resample": "bicubic"},
            ),
            Source(
                "hf",
                "timm/eva02_enormous_patch14_clip_224.laion2b_plus",
                "model.safetensors",
                "timm",
                preprocessing=_TIMM,
            ),
        ),
        **OPENAI,
        image_size=(224, 224),
        licence="MIT",
        accuracy={"imagenet1k_zeroshot": 82.01},
        aliases=("eva02_enormous_patch14_clip_224.laion2b_plus", "EVA02-E-14-plus.laion2b_s32b_b79k"),
    ),
)
