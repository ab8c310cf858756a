"""open_clip_config.json of a model, so that `open_clip.create_model("local-dir:FOLDER")` builds and fills it (open_clip
factory.py, model.py). It has two towers: the text tower comes out of the original file, and its sizes with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmjax.deploy.folder import Folder, refused
from fmjax.deploy.transformers_folder import side
from fmjax.errors import CheckpointError
from fmjax.models.vit import ViT
from fmjax.specs import PreprocessConfig, ViTSpec
from weights_conversion import LazyTensor
from weights_conversion.readers import open_checkpoint

LIBRARY = "open_clip"
HEAD_WIDTH = 64  # of every text tower of OpenAI's form
BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.ln_1\.weight")
TEXT = ("token_embedding.weight", "positional_embedding", "text_projection", "logit_scale")
FIXED: dict[str, Any] = {
    "norm": "layer",
    "norm_eps": 1e-5,
    "mlp": "mlp",
    "norm_pre": True,
    "patch_bias": False,
    "pool": "cls",
    "layer_scale": False,
}
INTERPOLATIONS = {"bilinear_no_antialias": "bilinear"}  # which it has not


def folder(model: ViT, preprocessing: PreprocessConfig, base: str | Path | None) -> Folder:
    """What lies beside `open_clip_model.safetensors`. base: the original file.

    Raises CheckpointError where open_clip's own transformer is no such model, or the file has no text tower of OpenAI's
    form: others have settings that their tensors do not show.
    """
    spec = model.spec
    for name, value in FIXED.items():
        if getattr(spec, name) != value:
            raise refused(LIBRARY, spec, f"{name} {getattr(spec, name)!r}")
    # what is written beside the image tower must be there, or it would load with random words
    if not base:
        raise CheckpointError(
            f"{LIBRARY} loads an image and a text tower together; pass the original file with --base"
        )
    # its transform takes the size from the model
    seen = preprocessing.interpolation
    config = {
        "model_cfg": {
            "embed_dim": spec.embed_dim,
            "quick_gelu": spec.activation == "quick_gelu",
            "vision_cfg": _vision(spec),
            "text_cfg": _text(open_checkpoint(base).tensors, base),
        },
        "preprocess_cfg": {
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "interpolation": INTERPOLATIONS.get(seen, seen),
            "resize_mode": preprocessing.resize_mode,
        },
    }
    return Folder("open_clip_model.safetensors", {"open_clip_config.json": config})


def _vision(spec: ViTSpec) -> dict[str, Any]:
    return {
        "image_size": side(spec.image_size),
        "layers": spec.depth,
        "width": spec.width,
        "head_width": spec.head_dim,
        "mlp_ratio": spec.mlp_dim / spec.width,
        "patch_size": spec.patch_size,
    }


def _text(tensors: Mapping[str, LazyTensor], base: str | Path) -> dict[str, Any]:
    """The sizes of a text tower, by the shapes of its tensors."""
    lacking = [key for key in TEXT if key not in tensors]
    blocks = [int(found[1]) for found in map(BLOCK.fullmatch, tensors) if found]
    if lacking or not blocks or "logit_bias" in tensors:
        raise CheckpointError(
            f"{base} has no text tower of OpenAI's form, whose tensors say all of it; write the tensors alone, to a "
            f"file that ends in .safetensors"
        )
    # every block is of one width, and every head of OpenAI's has 64 channels
    vocabulary, width = tensors["token_embedding.weight"].shape
    return {
        "context_length": tensors["positional_embedding"].shape[0],
        "vocab_size": vocabulary,
        "width": width,
        "heads": width // HEAD_WIDTH,
        "layers": max(blocks) + 1,
    }
