"""PyTorch reference models with every tensor randomised, and what they say of an image."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_LIBRARIES = []  # a schema lives as long as its library object


def declare_torchvision_operators() -> None:
    """torchvision's compiled half does not load beside a CPU torch; its Python half only needs these two schemas."""
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(schema)
            _LIBRARIES.append(library)


# beside a torch with CUDA it does load, and declares them itself
if not torch.cuda.is_available():
    declare_torchvision_operators()


def randomise(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Gives every parameter values that make a swapped key, a missing transpose or a wrong epsilon visible.

    Matrices have a standard deviation of 0.7 / sqrt(inputs), norm and layer scales lie in 0.5 to 1.5, other vectors and
    tables have 0.3: with these the reference's own float32 is 1e-6 from its float64.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(_random_like(name, value, generator))
    return model.eval()


def _random_like(name: str, value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    norm = ("norm" in name or "ln" in name) and name.endswith("weight")
    is_scale = norm or name.endswith(("gamma", "lambda1", "grandma"))
    if is_scale:
        return torch.rand(value.shape, generator=generator) + 0.5
    noise = torch.randn(value.shape, generator=generator)
    matrix = value.ndim >= 2 and not any(word in name for word in ("token", "pos", "embedding"))
    if matrix or name.endswith(("patch_embedding.weight", "projection.weight")):
        inputs = (
            value.shape[0] if name.endswith("visual.proj") or name == "proj" else value[0].numel()
        )
        return noise * 0.7 / np.sqrt(inputs)
    return noise * 0.3


@dataclass(frozen=True)
class Reference:
    """A reference's tensors, and its answers: all tokens, the pooled output, and gradients of a weighted sum of
    both."""

    tensors: dict[str, np.ndarray]
    tokens: np.ndarray  # B L D
    pooled: np.ndarray  # B E
    image_gradient: np.ndarray  # B C H W
    gradients: dict[str, np.ndarray]


def numpy_tensors(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {k: v.detach().contiguous().numpy() for k, v in state.items()}


def run(
    tokens_and_pooled, model, images: np.ndarray, weights: tuple[np.ndarray, np.ndarray]
) -> Reference:
    """`tokens_and_pooled(images)` on NCHW images; the scalar that is differentiated is sum(tokens w1) + sum(pooled
    w2)."""
    x = torch.from_numpy(images).requires_grad_()
    tokens, pooled = tokens_and_pooled(x)
    loss = (tokens * torch.from_numpy(weights[0])).sum() + (
        pooled * torch.from_numpy(weights[1])
    ).sum()
    model.zero_grad()
    loss.backward()
    grads = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return Reference(
        numpy_tensors(model.state_dict()),
        tokens.detach().numpy(),
        pooled.detach().numpy(),
        x.grad.numpy(),
        numpy_tensors(grads),
    )
