"""C-RADIO (arXiv:2312.06709, arXiv:2412.07679): a class token for each teacher; the pooled output joins three."""

from functools import partial

from fmjax.specs import Source, ViTSpec, Weights
from fmjax.zoo.statistics import OPENAI

_radio = partial(
    ViTSpec,
    image_size=(2048, 2048),
    patch_bias=False,
    positions="patches",
    num_cls=4,
    num_registers=4,
    final_norm=False,
    pool_tokens=(0, 1, 2),
)
_COUNTS = (
    "four class tokens, four registers and a table of 128 x 128 are what the code builds, and no file was opened; "
    "NVIDIA's code resizes the table with aligned corners, but changed to unaligned ones for some repositories"
)

SPECS = (
    _radio(
        name="C-RADIOv2-B",
        width=768,
        depth=12,
        num_heads=12,
        mlp_dim=3072,
        patch_size=16,
        resample="bilinear_corners_window",
    ),
    _radio(
        name="C-RADIOv2-L",
        width=1024,
        depth=24,
        num_heads=16,
        mlp_dim=4096,
        patch_size=16,
        resample="bilinear_corners_window",
    ),
    _radio(
        name="C-RADIOv2-H",
        width=1280,
        depth=32,
        num_heads=16,
        mlp_dim=5120,
        patch_size=16,
        resample="bilinear_corners_window",
    ),
    _radio(
        name="C-RADIOv3-B",
        width=768,
        depth=12,
        num_heads=12,
        mlp_dim=3072,
        patch_size=16,
        resample="bilinear_corners_window",
        layer_scale=True,
        aliases=("c-radio_v3-b",),
    ),
    _radio(
        name="C-RADIOv3-L",
        width=1024,
        depth=24,
        num_heads=16,
        mlp_dim=4096,
        patch_size=16,
        resample="bilinear_window",
        layer_scale=True,
        aliases=("c-radio_v3-l",),
    ),
)

WEIGHTS = (
    Weights(
        model="C-RADIOv2-B",
        tag="nvidia",
        sources=(Source("hf", "nvidia/C-RADIOv2-B", "model.safetensors", "radio"),),
        **OPENAI,
        image_size=(768, 768),
        licence="NVIDIA Open Model License",
        interpolation="bilinear",
        resize_mode="squash",
        unverified=_COUNTS,
    ),
    Weights(
        model="C-RADIOv2-L",
        tag="nvidia",
        sources=(Source("hf", "nvidia/C-RADIOv2-L", "model.safetensors", "radio"),),
        **OPENAI,
        image_size=(768, 768),
        licence="NVIDIA Open Model License",
        interpolation="bilinear",
        resize_mode="squash",
        unverified=_COUNTS + "; nvidia/C-RADIOv2-L: a name by convention, in no published source",
    ),
    Weights(
        model="C-RADIOv2-H",
        tag="nvidia",
        sources=(Source("hf", "nvidia/C-RADIOv2-H", "model.safetensors", "radio"),),
        **OPENAI,
        image_size=(768, 768),
        licence="NVIDIA Open Model License",
        interpolation="bilinear",
        resize_mode="squash",
        unverified=_COUNTS + "; nvidia/C-RADIOv2-H: a name by convention, in no published source",
    ),
    Weights(
        model="C-RADIOv3-B",
        tag="nvidia",
        sources=(Source("hf", "nvidia/C-RADIOv3-B", "model.safetensors", "radio"),),
        **OPENAI,
        image_size=(512, 512),
        licence="NVIDIA Open Model License",
        interpolation="bilinear",
        resize_mode="squash",
        unverified=_COUNTS,
    ),
    Weights(
        model="C-RADIOv3-L",
        tag="nvidia",
        sources=(Source("hf", "nvidia/C-RADIOv3-L", "model.safetensors", "radio"),),
        **OPENAI,
        image_size=(512, 512),
        licence="NVIDIA Open Model License",
        interpolation="bilinear",
        resize_mode="squash",
        unverified=_COUNTS,
    ),
)
