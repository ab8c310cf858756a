"""C-RADIO (arXiv:2312.06709, arXiv:2412.07679, arXiv:2601.17237): a class token for each teacher; the pooled output
joins some of them."""

from functools import partial

from fmjax.specs import Source, ViTSpec, Weights
from fmjax.zoo.sizes import BASE, HUGE, LARGE, SO400M
from fmjax.zoo.statistics import OPENAI

# RADIO's code resizes the table without aligned corners, whatever the version (vit_patch_generator.py,
# _get_pos_embeddings); until 2025-06-28 it aligned them. A repository on the hub has its own copy of the code: v3-B's
# and v3-H's still align, v3-L's, v3-g's and v4's do not, as timm notes of them (naflexvit.py, _radio_vit_cfg); of v2's
# nothing is known
_ALIGNED = {"resample": "bilinear_corners_window"}
_radio = partial(
    ViTSpec,
    patch_size=16,
    image_size=(2048, 2048),
    patch_bias=False,
    positions="patches",
    num_cls=4,
    num_registers=4,
    final_norm=False,
    pool_tokens=(0, 1, 2),
    resample="bilinear_window",
)
# v4 has three teachers, and joins the tokens of two (TAO cv/backbone_v2/radio.py; transformers configuration_radio.py)
_radio_v4 = partial(_radio, num_cls=3, num_registers=7, pool_tokens=(0, 1))
_COUNTS = "four class tokens, four registers and a table of 128 x 128 are what the code builds, and no file was opened"
_COUNTS_V4 = "three class tokens, seven registers and a table of 128 x 128 are what the code builds; no file was opened"
_V2_CODE = "; which way the code in its repository resizes the table, with aligned corners or without, is not known"
_V3_SCALES = "; timm reads its file as one without layer scales, TAO's code builds them"

SPECS = (
    _radio(name="C-RADIOv2-B", **BASE),
    _radio(name="C-RADIOv2-L", **LARGE),
    _radio(name="C-RADIOv2-H", **HUGE),
    _radio(
        name="C-RADIOv3-B",
        **BASE,
        layer_scale=True,
        aliases=("c-radio_v3-b",),
    ),
    _radio(
        name="C-RADIOv3-L",
        **LARGE,
        layer_scale=True,
        aliases=("c-radio_v3-l",),
    ),
    _radio(name="C-RADIOv3-H", **HUGE, aliases=("c-radio_v3-h",)),
    _radio(
        name="C-RADIOv3-g",
        width=1536,
        depth=40,
        num_heads=24,
        mlp_dim=6144,
        aliases=("c-radio_v3-g",),
    ),
    _radio_v4(
        name="C-RADIOv4-SO400M",
        **SO400M,
        aliases=("c-radio_v4-so400m",),
    ),
    _radio_v4(name="C-RADIOv4-H", **HUGE, aliases=("c-radio_v4-h",)),
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
        unverified=_COUNTS + _V2_CODE,
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
        unverified=_COUNTS
        + _V2_CODE
        + "; nvidia/C-RADIOv2-L: a name by convention, in no published source",
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
        unverified=_COUNTS
        + _V2_CODE
        + "; nvidia/C-RADIOv2-H: a name by convention, in no published source",
    ),
    Weights(
        model="C-RADIOv3-B",
        tag="nvidia",
        sources=(
            Source("hf", "nvidia/C-RADIOv3-B", "model.safetensors", "radio", overrides=_ALIGNED),
        ),
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
    Weights(
        model="C-RADIOv3-H",
        tag="nvidia",
        sources=(
            Source("hf", "nvidia/C-RADIOv3-H", "model.safetensors", "radio", overrides=_ALIGNED),
        ),
        **OPENAI,
        image_size=(512, 512),
        licence="NVIDIA Open Model License",
        interpolation="bilinear",
        resize_mode="squash",
        unverified=_COUNTS + _V3_SCALES,
    ),
    Weights(
        model="C-RADIOv3-g",
        tag="nvidia",
        sources=(Source("hf", "nvidia/C-RADIOv3-g", "model.safetensors", "radio"),),
        **OPENAI,
        image_size=(512, 512),
        licence="NVIDIA Open Model License",
        interpolation="bilinear",
        resize_mode="squash",
        unverified=_COUNTS,
    ),
    Weights(
        model="C-RADIOv4-SO400M",
        tag="nvidia",
        sources=(Source("hf", "nvidia/C-RADIOv4-SO400M", "model.safetensors", "radio"),),
        **OPENAI,
        image_size=(512, 512),
        licence="NVIDIA Open Model License",
        interpolation="bilinear",
        resize_mode="squash",
        unverified=_COUNTS_V4 + "; RADIO's code also has a tower with an MLP of 4320",
    ),
    Weights(
        model="C-RADIOv4-H",
        tag="nvidia",
        sources=(Source("hf", "nvidia/C-RADIOv4-H", "model.safetensors", "radio"),),
        **OPENAI,
        image_size=(512, 512),
        licence="NVIDIA Open Model License",
        interpolation="bilinear",
        resize_mode="squash",
        unverified=_COUNTS_V4,
    ),
)
