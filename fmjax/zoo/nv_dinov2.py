"""NV-DINOv2: NVIDIA's commercially usable DINOv2, published on NGC for TAO (its accuracies are not published)."""

from functools import partial

from fmjax.specs import Source, ViTSpec, Weights
from fmjax.zoo.sizes import GATED_GIANT
from fmjax.zoo.statistics import IMAGENET

# TAO evaluates them as classifiers at 224 (cv/classification_pyt experiment_specs/train_imagenet_nvdino_large.yaml and
# ..._giant.yaml), with images squashed bilinear (dataloader/augmentation.py, CLDataAugmentation.transform); their
# statistics are those of its trainer (ssl/nvdinov2 dataloader/transform.py)
_nv = partial(
    ViTSpec,
    patch_size=14,
    image_size=(518, 518),
    mlp="swiglu",
    layer_scale=True,
    resample="bicubic_offset",
)
_DOUBT = (
    "the file's wrapper and list and the norms' epsilon (1e-6 in TAO's inference, 1e-5 in its trainer) are in no "
    "published source"
)

SPECS = (
    _nv(
        name="nv_dinov2_vitl14",
        width=1024,
        depth=24,
        num_heads=16,
        mlp_dim=2736,
        norm_eps=1e-06,
        aliases=("vit_large_patch14_dinov2_swiglu",),
    ),
    _nv(
        name="nv_dinov2_vitg14_reg4",
        **GATED_GIANT,
        norm_eps=1e-06,
        num_registers=4,
        register_position="end",
        aliases=("vit_giant_patch14_reg4_dinov2_swiglu",),
    ),
)

WEIGHTS = (
    Weights(
        model="nv_dinov2_vitl14",
        tag="trainable_v1_1",
        sources=(
            Source(
                "ngc",
                "nvaie/nv_dinov2_classification_model:trainable_v1.1",
                "NV_DINOV2_518.ckpt",
                "tao_nvdinov2",
            ),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="NVIDIA AI Enterprise / NGC terms (not open source)",
        interpolation="bilinear",
        resize_mode="squash",
        aliases=("nv_dinov2_vitl14.trainable_v1.1",),
        unverified=_DOUBT,
    ),
    Weights(
        model="nv_dinov2_vitg14_reg4",
        tag="stage2",
        sources=(Source("ngc", "", "step_000625000_stage2_timm.ckpt", "tao_nvdinov2"),),
        **IMAGENET,
        image_size=(224, 224),
        licence="NVIDIA AI Enterprise / NGC terms (not open source)",
        interpolation="bilinear",
        resize_mode="squash",
        unverified=_DOUBT,
    ),
)
