"""transformers' config.json and preprocessor_config.json of a model, so that `AutoModel.from_pretrained(FOLDER)` and
its class for classification build and fill it (transformers models/*/configuration_*.py, of version 5).

A row for each dialect says which class computes it, under what names it wants the sizes, and what it fixes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fmjax.deploy.folder import Folder, refused
from fmjax.errors import CheckpointError
from fmjax.models.vit import ViT
from fmjax.specs import PreprocessConfig, ViTSpec

LIBRARY = "transformers"
ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_tanh": "gelu_pytorch_tanh"}
# how it resizes: the shorter side and a crop, or both sides
PROCESSORS = {"shortest": "CLIPImageProcessor", "squash": "ViTImageProcessor"}
RESAMPLING = {"bilinear": 2, "bilinear_no_antialias": 2, "bicubic": 3}  # Pillow's numbers
GATED_MULTIPLE = 4  # of the width, before the two thirds that a gate leaves


@dataclass(frozen=True)
class Kind:
    """One of transformers' models."""

    model_type: str
    model: str  # the class of the backbone
    fields: Callable[[ViTSpec], dict[str, Any]]  # of its config, beside those that all have
    has: Mapping[str, Any]  # the fields of a spec that its class fixes
    classifier: str = ""  # the class with one; "" where it has none
    # the leading axes of a mask token of pretraining, which it asks for and never uses; () where it does not
    mask_token: tuple[int, ...] = ()
    own: Mapping[str, Any] = field(default_factory=dict)  # settings that do not depend on the model


def _clip(spec: ViTSpec) -> dict[str, Any]:
    return {"projection_dim": spec.embed_dim, "hidden_act": ACTIVATIONS[spec.activation]}


def _siglip(spec: ViTSpec) -> dict[str, Any]:
    if (spec.pool_heads, spec.pool_mlp_dim) != (spec.num_heads, spec.mlp_dim):
        raise refused(LIBRARY, spec, "a pooling of another size than its blocks")
    return {"hidden_act": ACTIVATIONS[spec.activation], "vision_use_head": True}


def _vit(spec: ViTSpec) -> dict[str, Any]:
    return {"hidden_act": ACTIVATIONS[spec.activation], "qkv_bias": spec.qkv_bias}


def _dinov2(spec: ViTSpec) -> dict[str, Any]:
    # its hidden size is a whole multiple of the width; with a gate, two thirds of that, up to the next eight
    gated = spec.mlp == "swiglu"
    multiple = GATED_MULTIPLE if gated else spec.mlp_dim // spec.width
    expected = multiple * spec.width
    if gated:
        expected = (int(expected * 2 / 3) + 7) // 8 * 8
    if expected != spec.mlp_dim:
        raise refused(LIBRARY, spec, f"an MLP of {spec.mlp_dim} at width {spec.width}")
    registers = {"num_register_tokens": spec.num_registers} if spec.num_registers else {}
    return {
        "hidden_act": ACTIVATIONS[spec.activation],
        "mlp_ratio": multiple,
        "qkv_bias": spec.qkv_bias,
        "use_swiglu_ffn": gated,
        **registers,
    }


def _dinov3(spec: ViTSpec) -> dict[str, Any]:
    gated = spec.mlp == "swiglu"
    rope = {} if spec.rope is None else {"rope_theta": spec.rope.base}
    return rope | {
        "hidden_act": "silu" if gated else ACTIVATIONS[spec.activation],
        "use_gated_mlp": gated,
        "query_bias": spec.qkv_bias,
        "key_bias": spec.qkv_bias and spec.k_bias,
        "value_bias": spec.qkv_bias,
        "proj_bias": spec.bias,
        "mlp_bias": spec.bias,
        "num_register_tokens": spec.num_registers,
    }


def _aimv2(spec: ViTSpec) -> dict[str, Any]:
    biases = {"qkv_bias": spec.qkv_bias, "mlp_bias": spec.bias}
    return biases | {"rms_norm_eps": spec.norm_eps, "hidden_act": "silu", "use_head": False}


PLAIN: dict[str, Any] = {"norm": "layer", "rope": None, "block": "pre_norm", "final_norm": True}
CLS: dict[str, Any] = PLAIN | {"pool": "cls", "num_cls": 1, "norm_after_pool": False}
TURNED: dict[str, Any] = {"norm": "layer", "block": "pre_norm", "positions": "none", "pool": "cls"}
SCALED: dict[str, Any] = {"layer_scale": True, "norm_pre": False}
UNSCALED: dict[str, Any] = {"layer_scale": False, "mlp": "mlp"}
KINDS: dict[str, Kind] = {
    "hf_clip": Kind(
        "clip_vision_model",
        "CLIPVisionModelWithProjection",
        _clip,
        CLS | UNSCALED | {"norm_pre": True, "patch_bias": False},
    ),
    "hf_siglip": Kind("siglip_vision_model", "SiglipVisionModel", _siglip, PLAIN | {"pool": "map"}),
    "hf_dinov2": Kind(
        "dinov2",
        "Dinov2Model",
        _dinov2,
        CLS | SCALED | {"num_registers": 0},
        "Dinov2ForImageClassification",
        own={"use_mask_token": False},
    ),
    "hf_dinov2_with_registers": Kind(
        "dinov2_with_registers",
        "Dinov2WithRegistersModel",
        _dinov2,
        CLS | SCALED,
        "Dinov2WithRegistersForImageClassification",
        mask_token=(1,),
    ),
    "hf_dinov3": Kind("dinov3_vit", "DINOv3ViTModel", _dinov3, TURNED | SCALED, mask_token=(1, 1)),
    "hf_vit": Kind("vit", "ViTModel", _vit, CLS | UNSCALED, "ViTForImageClassification"),
    "hf_aimv2": Kind(
        "aimv2_vision_model", "Aimv2VisionModel", _aimv2, {"norm": "rms", "mlp": "swiglu"}
    ),
}


def folder(
    model: ViT,
    dialect: str,
    preprocessing: PreprocessConfig,
    *,
    outputs: int,
    classes: Sequence[str],
) -> Folder:
    """What lies beside `model.safetensors` of one of transformers' dialects.

    outputs: the width of the classifier, 0 without one; classes: their names. Raises CheckpointError where transformers
    has no class for such a model, or none with a classifier.
    """
    spec, kind = model.spec, KINDS[dialect]
    for name, value in kind.has.items():
        if getattr(spec, name) != value:
            raise refused(LIBRARY, spec, f"{name} {getattr(spec, name)!r} in {kind.model}")
    if outputs and not kind.classifier:
        raise CheckpointError(
            f"{LIBRARY} has no {kind.model} with a classifier like this one; leave it out with --no-classifier, or "
            f"write for timm"
        )
    # sizes under the names that all of them share, then those of the class
    config = {
        "architectures": [kind.classifier if outputs else kind.model],
        "model_type": kind.model_type,
        "dtype": "float32",
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.num_heads,
        "intermediate_size": spec.mlp_dim,
        "patch_size": spec.patch_size,
        "image_size": side(spec.image_size),
        "layer_norm_eps": spec.norm_eps,
        "num_channels": 3,
        **kind.fields(spec),
        **kind.own,
        **_labels(outputs, classes),
    }
    texts = {"config.json": config, "preprocessor_config.json": processor(preprocessing)}
    zeros = {}
    if kind.mask_token:
        shape = (*kind.mask_token, spec.width)
        zeros = {"embeddings.mask_token": ("embeddings.cls_token", shape)}
    return Folder("model.safetensors", texts, zeros)


def side(size: tuple[int, int]) -> int | list[int]:
    """A size as configs have it: one side of a square."""
    return size[0] if size[0] == size[1] else list(size)


def _labels(outputs: int, classes: Sequence[str]) -> dict[str, Any]:
    """Names of the outputs; transformers' own where there are none."""
    if not outputs:
        return {}
    names = list(classes) or [f"LABEL_{number}" for number in range(outputs)]
    return {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }


def processor(config: PreprocessConfig) -> dict[str, Any]:
    """The evaluation transform, by one of transformers' image processors."""
    height, width = config.image_size
    values = {
        "image_processor_type": PROCESSORS[config.resize_mode],
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "do_convert_rgb": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
        "resample": RESAMPLING[config.interpolation],
    }
    if config.resize_mode == "squash":
        return values | {"size": {"height": height, "width": width}}
    # the shorter side of a picture is scaled to the size before the crop, as in fmjax/data/resizing.py
    return values | {
        "size": {"shortest_edge": int(max(height, width) / config.crop_pct)},
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
    }
