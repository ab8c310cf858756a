"""PyTorch's networks: the same vision tower as timm, open_clip and transformers write it.

What of it they call its output is a classifier with `classes`, and the published projection without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

# before these: torchvision, which they import, does not load beside a torch without CUDA
from tests.support.torch_reference import numpy_tensors

from benchmarks.gpu.cases import Model, spec_of  # isort: skip
import open_clip  # isort: skip
import timm  # isort: skip
import transformers  # isort: skip


class Tower(nn.Module):
    """Images [B C H W] -> outputs [B N] of a network that gives more than a tensor, or lacks the last layer."""

    def __init__(self, inner: nn.Module, output: str, head: nn.Module | None = None) -> None:
        super().__init__()
        self.inner, self.output = inner, output
        self.head = nn.Identity() if head is None else head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(getattr(self.inner(images), self.output))


def created(model: Model, library: str, classes: int | None) -> nn.Module:
    """A network with random weights, in float32. classes: how many a linear classifier in the place of the projection
    has; None: as it is published."""
    torch.manual_seed(0)
    return LIBRARIES[library](model, classes)


def _timm(model: Model, classes: int | None) -> nn.Module:
    more = {} if classes is None else {"num_classes": classes}
    return timm.create_model(model.timm, pretrained=False, **model.arguments, **more)


def _open_clip(model: Model, classes: int | None) -> nn.Module:
    # open_clip has the EVA towers of timm, and DINOv2 not at all
    spec = spec_of(model)
    if not spec.norm_pre or spec.rope or spec.activation != "gelu":
        raise ValueError(f"{model.ours} is no tower that open_clip computes itself")
    return open_clip.transformer.VisionTransformer(
        image_size=model.size,
        patch_size=spec.patch_size,
        width=spec.width,
        layers=spec.depth,
        heads=spec.num_heads,
        mlp_ratio=spec.mlp_dim / spec.width,
        output_dim=classes or spec.embed_dim,
    )


def _transformers(model: Model, classes: int | None) -> nn.Module:
    spec = spec_of(model)
    shape = {
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.num_heads,
        "image_size": model.size,
        "patch_size": spec.patch_size,
        "attn_implementation": "sdpa",
    }
    if spec.norm_pre and spec.activation == "gelu":
        width = {"intermediate_size": spec.mlp_dim, "projection_dim": classes or spec.embed_dim}
        config = transformers.CLIPVisionConfig(**shape, **width, hidden_act="gelu")
        return Tower(transformers.CLIPVisionModelWithProjection(config), "image_embeds")
    if spec.layer_scale and not spec.rope:
        gated = {"mlp_ratio": 4, "use_swiglu_ffn": spec.mlp == "swiglu"}
        tower = transformers.Dinov2Model(transformers.Dinov2Config(**shape, **gated))
        head = nn.Linear(spec.width, classes) if classes else None
        return Tower(tower, "pooler_output", head)
    raise ValueError(f"{model.ours} is no tower that transformers has")


LIBRARIES: Mapping[str, Callable[[Model, int | None], nn.Module]] = {
    "timm": _timm,
    "open_clip": _open_clip,
    "transformers": _transformers,
}


def named(tensors: Mapping[str, Any], library: str) -> dict[str, Any]:
    """Tensors by the names that files of the library's towers have."""
    found = {key: x.float().cpu() for key, x in tensors.items()}
    if library == "open_clip":
        found = {f"visual.{key}": x for key, x in found.items()}
    if library == "transformers":
        found = {key.removeprefix("inner."): x for key, x in found.items()}
    return numpy_tensors(found)
