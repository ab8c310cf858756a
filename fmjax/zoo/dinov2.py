"""DINOv2 (arXiv:2304.07193), with registers (arXiv:2309.16588). Published at 518 px; evaluated at 224."""

from functools import partial

from fmjax.specs import Source, ViTSpec, Weights
from fmjax.zoo.sizes import BASE, GATED_GIANT, LARGE, SMALL
from fmjax.zoo.statistics import IMAGENET

# the authors evaluate at 224 out of 256 (dinov2/data/transforms.py, make_classification_eval_transform), timm at the
# size of the position table (vision_transformer.py, default_cfgs)
_TIMM = {"image_size": (518, 518), "crop_pct": 1.0}
_dinov2 = partial(ViTSpec, patch_size=14, image_size=(518, 518), layer_scale=True)

SPECS = (
    _dinov2(
        name="dinov2_vits14",
        **SMALL,
        norm_eps=1e-06,
        resample="bicubic_offset",
        aliases=("vit_small_patch14_dinov2",),
    ),
    _dinov2(
        name="dinov2_vits14_reg",
        **SMALL,
        norm_eps=1e-06,
        num_registers=4,
        aliases=("vit_small_patch14_reg4_dinov2",),
    ),
    _dinov2(
        name="dinov2_vitb14",
        **BASE,
        norm_eps=1e-06,
        resample="bicubic_offset",
        aliases=("vit_base_patch14_dinov2",),
    ),
    _dinov2(
        name="dinov2_vitb14_reg",
        **BASE,
        norm_eps=1e-06,
        num_registers=4,
        aliases=("vit_base_patch14_reg4_dinov2",),
    ),
    _dinov2(
        name="dinov2_vitl14",
        **LARGE,
        norm_eps=1e-06,
        resample="bicubic_offset",
        aliases=("vit_large_patch14_dinov2",),
    ),
    _dinov2(
        name="dinov2_vitl14_reg",
        **LARGE,
        norm_eps=1e-06,
        num_registers=4,
        aliases=("vit_large_patch14_reg4_dinov2",),
    ),
    _dinov2(
        name="dinov2_vitg14",
        **GATED_GIANT,
        mlp="swiglu",
        norm_eps=1e-06,
        resample="bicubic_offset",
        aliases=("vit_giant_patch14_dinov2",),
    ),
    _dinov2(
        name="dinov2_vitg14_reg",
        **GATED_GIANT,
        mlp="swiglu",
        norm_eps=1e-06,
        num_registers=4,
        aliases=("vit_giant_patch14_reg4_dinov2",),
    ),
)

WEIGHTS = (
    Weights(
        model="dinov2_vits14",
        tag="lvd142m",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
                "dinov2_vits14_pretrain.pth",
                "dinov2",
            ),
            Source("hf", "facebook/dinov2-small", "model.safetensors", "hf_dinov2", overrides={"resample": "bicubic"}),
            Source(
                "hf",
                "timm/vit_small_patch14_dinov2.lvd142m",
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
        accuracy={"imagenet1k_knn": 79.0, "imagenet1k_linear": 81.1},
        aliases=("vit_small_patch14_dinov2.lvd142m",),
    ),
    Weights(
        model="dinov2_vits14_reg",
        tag="lvd142m",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth",
                "dinov2_vits14_reg4_pretrain.pth",
                "dinov2",
            ),
            Source("hf", "facebook/dinov2-with-registers-small", "model.safetensors", "hf_dinov2_with_registers"),
            Source(
                "hf", "timm/vit_small_patch14_reg4_dinov2.lvd142m", "model.safetensors", "timm", preprocessing=_TIMM
            ),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="Apache-2.0",
        crop_pct=0.875,
        accuracy={"imagenet1k_knn": 79.1, "imagenet1k_linear": 80.9},
        aliases=("vit_small_patch14_reg4_dinov2.lvd142m",),
        unverified="facebook/dinov2-with-registers-small: a name by convention, in no published source",
    ),
    Weights(
        model="dinov2_vitb14",
        tag="lvd142m",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
                "dinov2_vitb14_pretrain.pth",
                "dinov2",
            ),
            Source("hf", "facebook/dinov2-base", "model.safetensors", "hf_dinov2", overrides={"resample": "bicubic"}),
            Source(
                "hf",
                "timm/vit_base_patch14_dinov2.lvd142m",
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
        accuracy={"imagenet1k_knn": 82.1, "imagenet1k_linear": 84.5},
        aliases=("vit_base_patch14_dinov2.lvd142m",),
    ),
    Weights(
        model="dinov2_vitb14_reg",
        tag="lvd142m",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth",
                "dinov2_vitb14_reg4_pretrain.pth",
                "dinov2",
            ),
            Source("hf", "facebook/dinov2-with-registers-base", "model.safetensors", "hf_dinov2_with_registers"),
            Source("hf", "timm/vit_base_patch14_reg4_dinov2.lvd142m", "model.safetensors", "timm", preprocessing=_TIMM),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="Apache-2.0",
        crop_pct=0.875,
        accuracy={"imagenet1k_knn": 82.0, "imagenet1k_linear": 84.6},
        aliases=("vit_base_patch14_reg4_dinov2.lvd142m",),
    ),
    Weights(
        model="dinov2_vitl14",
        tag="lvd142m",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
                "dinov2_vitl14_pretrain.pth",
                "dinov2",
            ),
            Source("hf", "facebook/dinov2-large", "model.safetensors", "hf_dinov2", overrides={"resample": "bicubic"}),
            Source(
                "hf",
                "timm/vit_large_patch14_dinov2.lvd142m",
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
        accuracy={"imagenet1k_knn": 83.5, "imagenet1k_linear": 86.3},
        aliases=("vit_large_patch14_dinov2.lvd142m",),
        unverified="facebook/dinov2-large: a name by convention, in no published source",
    ),
    Weights(
        model="dinov2_vitl14_reg",
        tag="lvd142m",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_reg4_pretrain.pth",
                "dinov2_vitl14_reg4_pretrain.pth",
                "dinov2",
            ),
            Source("hf", "facebook/dinov2-with-registers-large", "model.safetensors", "hf_dinov2_with_registers"),
            Source(
                "hf", "timm/vit_large_patch14_reg4_dinov2.lvd142m", "model.safetensors", "timm", preprocessing=_TIMM
            ),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="Apache-2.0",
        crop_pct=0.875,
        accuracy={"imagenet1k_knn": 83.8, "imagenet1k_linear": 86.7},
        aliases=("vit_large_patch14_reg4_dinov2.lvd142m",),
        unverified="facebook/dinov2-with-registers-large: a name by convention, in no published source",
    ),
    Weights(
        model="dinov2_vitg14",
        tag="lvd142m",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitg14/dinov2_vitg14_pretrain.pth",
                "dinov2_vitg14_pretrain.pth",
                "dinov2",
            ),
            Source("hf", "facebook/dinov2-giant", "model.safetensors", "hf_dinov2", overrides={"resample": "bicubic"}),
            Source(
                "hf",
                "timm/vit_giant_patch14_dinov2.lvd142m",
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
        accuracy={"imagenet1k_knn": 83.5, "imagenet1k_linear": 86.5},
        aliases=("vit_giant_patch14_dinov2.lvd142m",),
    ),
    Weights(
        model="dinov2_vitg14_reg",
        tag="lvd142m",
        sources=(
            Source(
                "url",
                "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitg14/dinov2_vitg14_reg4_pretrain.pth",
                "dinov2_vitg14_reg4_pretrain.pth",
                "dinov2",
            ),
            Source("hf", "facebook/dinov2-with-registers-giant", "model.safetensors", "hf_dinov2_with_registers"),
            Source(
                "hf", "timm/vit_giant_patch14_reg4_dinov2.lvd142m", "model.safetensors", "timm", preprocessing=_TIMM
            ),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="Apache-2.0",
        crop_pct=0.875,
        accuracy={"imagenet1k_knn": 83.7, "imagenet1k_linear": 87.1},
        aliases=("vit_giant_patch14_reg4_dinov2.lvd142m",),
        unverified="facebook/dinov2-with-registers-giant: a name by convention, in no published source",
    ),
)
