"""TIPS (arXiv:2410.16512): the second class token was trained against synthetic captions."""

from functools import partial

from fmjax.specs import Source, ViTSpec, Weights
from fmjax.zoo.sizes import BASE, GATED_GIANT, LARGE, SMALL, SO400M
from fmjax.zoo.statistics import UNIT

# the authors resize the table bilinear and antialiased (pytorch/image_encoder.py, interpolate_pos_encoding, with the
# options of run_image_encoder_inference.py; scenic/models/vit.py, jax.image.resize), and images by squashing them; timm
# resizes its tables bicubic, and images by their shorter side (vision_transformer.py, default_cfgs)
_TIMM = {"resample": "bicubic_antialias"}
_CROPPED = {"interpolation": "bicubic", "resize_mode": "shortest"}
_tips = partial(
    ViTSpec,
    image_size=(448, 448),
    patch_size=14,
    num_cls=2,
    layer_scale=True,
    resample="bilinear_antialias",
)

SPECS = (
    _tips(name="tips_s14", **SMALL, aliases=("vit_small",)),
    _tips(name="tips_b14", **BASE, aliases=("vit_base",)),
    _tips(name="tips_l14", **LARGE, aliases=("vit_large",)),
    _tips(name="tips_so14", **SO400M, aliases=("vit_so400m",)),
    _tips(name="tips_g14", **GATED_GIANT, mlp="swiglu", aliases=("vit_giant2",)),
)

WEIGHTS = (
    Weights(
        model="tips_s14",
        tag="tips_v1_hr",
        sources=(
            Source(
                "url",
                "https://storage.googleapis.com/tips_data/v1_0/checkpoints/pytorch/tips_oss_s14_highres_distilled_vision.npz",
                "tips_oss_s14_highres_distilled_vision.npz",
                "tips_npz",
            ),
        ),
        **UNIT,
        image_size=(448, 448),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_knn": 75.1},
    ),
    Weights(
        model="tips_b14",
        tag="tips_v1_hr",
        sources=(
            Source(
                "url",
                "https://storage.googleapis.com/tips_data/v1_0/checkpoints/pytorch/tips_oss_b14_highres_distilled_vision.npz",
                "tips_oss_b14_highres_distilled_vision.npz",
                "tips_npz",
            ),
        ),
        **UNIT,
        image_size=(448, 448),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_knn": 80.0},
    ),
    Weights(
        model="tips_b14",
        tag="tips_v2",
        sources=(
            Source(
                "url",
                "https://storage.googleapis.com/tips_data/v2_0/checkpoints/pytorch/tips_v2_oss_b14_vision.npz",
                "tips_v2_oss_b14_vision.npz",
                "tips_npz",
            ),
            Source("hf", "google/tipsv2-b14", "model.safetensors", "hf_tipsv2"),
            Source(
                "hf",
                "timm/vit_base_patch14_reg1_tipsv2.webli",
                "model.safetensors",
                "timm",
                overrides=_TIMM,
                preprocessing=_CROPPED,
            ),
        ),
        **UNIT,
        image_size=(448, 448),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_knn": 79.8},
        aliases=("vit_base_patch14_reg1_tipsv2.webli",),
    ),
    Weights(
        model="tips_l14",
        tag="tips_v1_hr",
        sources=(
            Source(
                "url",
                "https://storage.googleapis.com/tips_data/v1_0/checkpoints/pytorch/tips_oss_l14_highres_distilled_vision.npz",
                "tips_oss_l14_highres_distilled_vision.npz",
                "tips_npz",
            ),
        ),
        **UNIT,
        image_size=(448, 448),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_knn": 82.5},
    ),
    Weights(
        model="tips_l14",
        tag="tips_v2",
        sources=(
            Source(
                "url",
                "https://storage.googleapis.com/tips_data/v2_0/checkpoints/pytorch/tips_v2_oss_l14_vision.npz",
                "tips_v2_oss_l14_vision.npz",
                "tips_npz",
            ),
            Source("hf", "google/tipsv2-l14", "model.safetensors", "hf_tipsv2"),
            Source(
                "hf",
                "timm/vit_large_patch14_reg1_tipsv2.webli",
                "model.safetensors",
                "timm",
                overrides=_TIMM,
                preprocessing=_CROPPED,
            ),
        ),
        **UNIT,
        image_size=(448, 448),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_knn": 82.5},
        aliases=("vit_large_patch14_reg1_tipsv2.webli",),
        unverified="google/tipsv2-l14: a name by convention, in no published source",
    ),
    Weights(
        model="tips_so14",
        tag="tips_v1_hr",
        sources=(
            Source(
                "url",
                "https://storage.googleapis.com/tips_data/v1_0/checkpoints/pytorch/tips_oss_so400m14_highres_largetext_distilled_vision.npz",
                "tips_oss_so400m14_highres_largetext_distilled_vision.npz",
                "tips_npz",
            ),
        ),
        **UNIT,
        image_size=(448, 448),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_knn": 83.0},
    ),
    Weights(
        model="tips_so14",
        tag="tips_v2",
        sources=(
            Source(
                "url",
                "https://storage.googleapis.com/tips_data/v2_0/checkpoints/pytorch/tips_v2_oss_so14_vision.npz",
                "tips_v2_oss_so14_vision.npz",
                "tips_npz",
            ),
            Source("hf", "google/tipsv2-so14", "model.safetensors", "hf_tipsv2"),
            Source(
                "hf",
                "timm/vit_so400m_patch14_reg1_tipsv2.webli",
                "model.safetensors",
                "timm",
                overrides=_TIMM,
                preprocessing=_CROPPED,
            ),
        ),
        **UNIT,
        image_size=(448, 448),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_knn": 82.8},
        aliases=("vit_so400m_patch14_reg1_tipsv2.webli",),
        unverified="google/tipsv2-so14: a name by convention, in no published source",
    ),
    Weights(
        model="tips_g14",
        tag="tips_v1_hr",
        sources=(
            Source(
                "url",
                "https://storage.googleapis.com/tips_data/v1_0/checkpoints/pytorch/tips_oss_g14_highres_vision.npz",
                "tips_oss_g14_highres_vision.npz",
                "tips_npz",
            ),
        ),
        **UNIT,
        image_size=(448, 448),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_knn": 83.2},
    ),
    Weights(
        model="tips_g14",
        tag="tips_v2",
        sources=(
            Source(
                "url",
                "https://storage.googleapis.com/tips_data/v2_0/checkpoints/pytorch/tips_v2_oss_g14_vision.npz",
                "tips_v2_oss_g14_vision.npz",
                "tips_npz",
            ),
            Source("hf", "google/tipsv2-g14", "model.safetensors", "hf_tipsv2"),
            Source(
                "hf",
                "timm/vit_giant_patch14_reg1_tipsv2.webli",
                "model.safetensors",
                "timm",
                overrides=_TIMM,
                preprocessing=_CROPPED,
            ),
        ),
        **UNIT,
        image_size=(448, 448),
        licence="Apache-2.0",
        interpolation="bilinear",
        resize_mode="squash",
        accuracy={"imagenet1k_knn": 83.7},
        aliases=("vit_giant_patch14_reg1_tipsv2.webli",),
        unverified="google/tipsv2-g14: a name by convention, in no published source",
    ),
)
