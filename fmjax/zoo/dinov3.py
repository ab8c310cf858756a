"""DINOv3 (arXiv:2508.10104): rotary positions only. Meta asks for an agreement before it lets one download."""

from functools import partial

from fmjax.specs import Rope, Source, ViTSpec, Weights
from fmjax.zoo.sizes import BASE, LARGE, SMALL
from fmjax.zoo.statistics import IMAGENET, SATELLITE

# the authors squash images bilinear (README.md, make_transform); timm crops them, bicubic (eva.py, default_cfgs)
_TIMM = {"interpolation": "bicubic", "resize_mode": "shortest"}
_ROPE = Rope(base=100.0, coordinates="centred", pairs="halves")
_dinov3 = partial(
    ViTSpec,
    norm_eps=1e-05,
    positions="none",
    num_registers=4,
    k_bias=False,
    layer_scale=True,
    rope=_ROPE,
)

SPECS = (
    _dinov3(name="dinov3_vits16", **SMALL, patch_size=16, image_size=(224, 224)),
    _dinov3(
        name="dinov3_vits16plus",
        **SMALL,
        patch_size=16,
        image_size=(224, 224),
        mlp="swiglu",
    ),
    _dinov3(name="dinov3_vitb16", **BASE, patch_size=16, image_size=(224, 224)),
    _dinov3(name="dinov3_vitl16", **LARGE, patch_size=16, image_size=(224, 224)),
    _dinov3(
        name="dinov3_vitl16plus",
        **LARGE,
        patch_size=16,
        image_size=(224, 224),
        mlp="swiglu",
    ),
    _dinov3(
        name="dinov3_vith16plus",
        width=1280,
        depth=32,
        num_heads=20,
        mlp_dim=5120,
        patch_size=16,
        image_size=(224, 224),
        mlp="swiglu",
    ),
    _dinov3(
        name="dinov3_vit7b16",
        width=4096,
        depth=40,
        num_heads=32,
        mlp_dim=8192,
        patch_size=16,
        image_size=(224, 224),
        mlp="swiglu",
        qkv_bias=False,
    ),
)

WEIGHTS = (
    Weights(
        model="dinov3_vits16",
        tag="lvd1689m",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dinov3/dinov3_vits16/dinov3_vits16_pretrain_lvd1689m-08c60483.pth",
                "dinov3_vits16_pretrain_lvd1689m-08c60483.pth",
                "dinov3",
            ),
            Source(
                "hf", "facebook/dinov3-vits16-pretrain-lvd1689m", "model.safetensors", "hf_dinov3"
            ),
            Source(
                "hf",
                "timm/vit_small_patch16_dinov3_qkvb.lvd1689m",
                "model.safetensors",
                "timm",
                preprocessing=_TIMM,
            ),
        ),
        **IMAGENET,
        image_size=(256, 256),
        licence="DINOv3 License",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet_real_linear": 87.0},
        aliases=("vit_small_patch16_dinov3_qkvb.lvd1689m",),
    ),
    Weights(
        model="dinov3_vits16plus",
        tag="lvd1689m",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dinov3/dinov3_vits16plus/dinov3_vits16plus_pretrain_lvd1689m-4057cbaa.pth",
                "dinov3_vits16plus_pretrain_lvd1689m-4057cbaa.pth",
                "dinov3",
            ),
            Source(
                "hf",
                "facebook/dinov3-vits16plus-pretrain-lvd1689m",
                "model.safetensors",
                "hf_dinov3",
            ),
            Source(
                "hf",
                "timm/vit_small_plus_patch16_dinov3_qkvb.lvd1689m",
                "model.safetensors",
                "timm",
                preprocessing=_TIMM,
            ),
        ),
        **IMAGENET,
        image_size=(256, 256),
        licence="DINOv3 License",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet_real_linear": 88.0},
        aliases=("vit_small_plus_patch16_dinov3_qkvb.lvd1689m",),
    ),
    Weights(
        model="dinov3_vitb16",
        tag="lvd1689m",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dinov3/dinov3_vitb16/dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth",
                "dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth",
                "dinov3",
            ),
            Source(
                "hf", "facebook/dinov3-vitb16-pretrain-lvd1689m", "model.safetensors", "hf_dinov3"
            ),
            Source(
                "hf",
                "timm/vit_base_patch16_dinov3_qkvb.lvd1689m",
                "model.safetensors",
                "timm",
                preprocessing=_TIMM,
            ),
        ),
        **IMAGENET,
        image_size=(256, 256),
        licence="DINOv3 License",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet_real_linear": 89.3},
        aliases=("vit_base_patch16_dinov3_qkvb.lvd1689m",),
    ),
    Weights(
        model="dinov3_vitl16",
        tag="lvd1689m",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dinov3/dinov3_vitl16/dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth",
                "dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth",
                "dinov3",
            ),
            Source(
                "hf", "facebook/dinov3-vitl16-pretrain-lvd1689m", "model.safetensors", "hf_dinov3"
            ),
            Source(
                "hf",
                "timm/vit_large_patch16_dinov3_qkvb.lvd1689m",
                "model.safetensors",
                "timm",
                preprocessing=_TIMM,
            ),
        ),
        **IMAGENET,
        image_size=(256, 256),
        licence="DINOv3 License",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet_real_linear": 90.2},
        aliases=("vit_large_patch16_dinov3_qkvb.lvd1689m",),
    ),
    Weights(
        model="dinov3_vitl16",
        tag="sat493m",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dinov3/dinov3_vitl16/dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth",
                "dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth",
                "dinov3",
            ),
            Source(
                "hf", "facebook/dinov3-vitl16-pretrain-sat493m", "model.safetensors", "hf_dinov3"
            ),
        ),
        **SATELLITE,
        image_size=(256, 256),
        licence="DINOv3 License",
        interpolation="bilinear",
        resize_mode="squash",
    ),
    Weights(
        model="dinov3_vitl16plus",
        tag="lvd1689m",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dinov3/dinov3_vitl16plus/dinov3_vitl16plus_pretrain_lvd1689m-46503df0.pth",
                "dinov3_vitl16plus_pretrain_lvd1689m-46503df0.pth",
                "dinov3",
            ),
        ),
        **IMAGENET,
        image_size=(256, 256),
        licence="DINOv3 License",
        interpolation="bilinear",
        resize_mode="squash",
        unverified="the README does not list it: its address is what hub/backbones.py builds, and its preprocessing is "
        "that of its siblings",
    ),
    Weights(
        model="dinov3_vith16plus",
        tag="lvd1689m",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dinov3/dinov3_vith16plus/dinov3_vith16plus_pretrain_lvd1689m-7c1da9a5.pth",
                "dinov3_vith16plus_pretrain_lvd1689m-7c1da9a5.pth",
                "dinov3",
            ),
            Source(
                "hf",
                "facebook/dinov3-vith16plus-pretrain-lvd1689m",
                "model.safetensors",
                "hf_dinov3",
            ),
            Source(
                "hf",
                "timm/vit_huge_plus_patch16_dinov3_qkvb.lvd1689m",
                "model.safetensors",
                "timm",
                preprocessing=_TIMM,
            ),
        ),
        **IMAGENET,
        image_size=(256, 256),
        licence="DINOv3 License",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet_real_linear": 90.3},
        aliases=("vit_huge_plus_patch16_dinov3_qkvb.lvd1689m",),
    ),
    Weights(
        model="dinov3_vit7b16",
        tag="lvd1689m",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dinov3/dinov3_vit7b16/dinov3_vit7b16_pretrain_lvd1689m-a955f4ea.pth",
                "dinov3_vit7b16_pretrain_lvd1689m-a955f4ea.pth",
                "dinov3",
            ),
            Source(
                "hf", "facebook/dinov3-vit7b16-pretrain-lvd1689m", "model.safetensors", "hf_dinov3"
            ),
            Source(
                "hf",
                "timm/vit_7b_patch16_dinov3.lvd1689m",
                "model.safetensors",
                "timm",
                preprocessing=_TIMM,
            ),
        ),
        **IMAGENET,
        image_size=(256, 256),
        licence="DINOv3 License",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet_real_linear": 90.4},
        aliases=("vit_7b_patch16_dinov3.lvd1689m",),
    ),
    Weights(
        model="dinov3_vit7b16",
        tag="sat493m",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dinov3/dinov3_vit7b16/dinov3_vit7b16_pretrain_sat493m-a6675841.pth",
                "dinov3_vit7b16_pretrain_sat493m-a6675841.pth",
                "dinov3",
            ),
            Source(
                "hf", "facebook/dinov3-vit7b16-pretrain-sat493m", "model.safetensors", "hf_dinov3"
            ),
        ),
        **SATELLITE,
        image_size=(256, 256),
        licence="DINOv3 License",
        interpolation="bilinear",
        resize_mode="squash",
    ),
)
