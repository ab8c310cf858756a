"""NV-CLIP: NVIDIA's commercially usable CLIP, published on NGC for TAO: CLIPA's towers, trained with SigLIP's loss."""

from functools import partial

from fmjax.specs import Source, ViTSpec, Weights
from fmjax.zoo.sizes import HUGE, LARGE
from fmjax.zoo.statistics import IMAGENET

# TAO builds them with open_clip, and follows another image size as DINO does (TAO cv/backbone_v2/open_clip.py,
# NVCLIP_MODEL_CONFIG and _enable_interpolated_forward); it evaluates classifiers over them with images squashed
# bilinear (cv/classification_pyt dataloader/augmentation.py, CLDataAugmentation.transform)
_nv_clip = partial(
    ViTSpec,
    patch_size=14,
    norm_eps=1e-05,
    patch_bias=False,
    pool="patches",
    norm_after_pool=True,
    resample="bicubic_offset",
)
_DOUBT = (
    "the file's name, its wrapper and list, the version on NGC and the channel statistics (here those of CLIPA) are in "
    "no published source"
)

SPECS = (
    _nv_clip(
        name="ViT-L-14-SigLIP-CLIPA-224",
        **LARGE,
        image_size=(224, 224),
        embed_dim=768,
        aliases=("vit_l_14_siglip_clipa_224",),
    ),
    _nv_clip(
        name="ViT-L-14-SigLIP-CLIPA-336",
        **LARGE,
        image_size=(336, 336),
        embed_dim=768,
        aliases=("vit_l_14_siglip_clipa_336",),
    ),
    _nv_clip(
        name="ViT-H-14-SigLIP-CLIPA-224",
        **HUGE,
        image_size=(224, 224),
        embed_dim=1024,
        aliases=("vit_h_14_siglip_clipa_224",),
    ),
)

WEIGHTS = (
    Weights(
        model="ViT-L-14-SigLIP-CLIPA-224",
        tag="nvclip",
        sources=(
            Source("ngc", "nvidia/tao/nvclip_vit", "NVCLIP_224_700M_ViTL14.ckpt", "open_clip"),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="NVIDIA AI Enterprise / NGC terms (not open source)",
        interpolation="bilinear",
        resize_mode="squash",
        unverified=_DOUBT,
    ),
    Weights(
        model="ViT-L-14-SigLIP-CLIPA-336",
        tag="nvclip",
        sources=(
            Source("ngc", "nvidia/tao/nvclip_vit", "NVCLIP_336_700M_ViTL14.ckpt", "open_clip"),
        ),
        **IMAGENET,
        image_size=(336, 336),
        licence="NVIDIA AI Enterprise / NGC terms (not open source)",
        interpolation="bilinear",
        resize_mode="squash",
        unverified=_DOUBT,
    ),
    Weights(
        model="ViT-H-14-SigLIP-CLIPA-224",
        tag="nvclip",
        sources=(
            Source("ngc", "nvidia/tao/nvclip_vit", "NVCLIP_224_700M_ViTH14.ckpt", "open_clip"),
        ),
        **IMAGENET,
        image_size=(224, 224),
        licence="NVIDIA AI Enterprise / NGC terms (not open source)",
        interpolation="bilinear",
        resize_mode="squash",
        unverified=_DOUBT,
    ),
)
