"""What a dense task puts on top of the backbone: numbers for every patch, brought to every pixel."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from fmjax.models.heads import linear_head
from fmjax.models.linear import Linear
from fmjax.models.vit import ViT
from fmjax.specs import ViTSpec

Layers = int | Sequence[int]  # as of `ViT.intermediates`: the last so many, or indices


class BatchNorm(nnx.Module):
    """Channels brought to one mean and variance (arXiv:1502.03167), as torch.nn.BatchNorm2d does it.

    Whose statistics those are is an argument: in training those of the batch, all devices together, else the running
    averages `mean` and `var`.
    """

    def __init__(self, width: int, *, eps: float = 1e-5):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.mean = nnx.Param(jnp.zeros(width))
        self.var = nnx.Param(jnp.ones(width))
        self.eps = eps

    def __call__(self, x: Float[Array, "*B I"], mean: Array, var: Array) -> Float[Array, "*B I"]:
        centred = x.astype(jnp.float32) - mean
        scaled = centred * jax.lax.rsqrt(var + self.eps)
        return scaled * self.scale + self.bias


def statistics(x: Float[Array, "B h w I"], weight: Array) -> tuple[Array, Array, Array]:
    """Mean and variance [I] over a batch, and the variance that a running average takes: that of a sample.

    weight: [B], 0 for examples that do not count.
    """
    # an example that could not be read has weight 0, and its patches are in no mean
    grid = x.shape[1] * x.shape[2]
    per_place = weight[:, None, None, None] / grid
    count = jnp.maximum(weight.sum(), 1.0)
    mean = (x * per_place).sum((0, 1, 2)) / count
    var = (jnp.square(x - mean) * per_place).sum((0, 1, 2)) / count
    # torch normalises by the variance of the batch and averages that of a sample, which is n / (n - 1) of it
    places = count * grid
    return mean, var, var * places / jnp.maximum(places - 1, 1)


def dense_head(spec: ViTSpec, layers: Layers, outputs: int, *, rngs: nnx.Rngs) -> Linear:
    """A linear layer over what `patch_features` gives, computed in float32. It starts at zero."""
    count = layers if isinstance(layers, int) else len(layers)
    return linear_head(count * spec.width, outputs, rngs=rngs)


def patch_features(
    backbone: ViT, images: Float[Array, "B H W C"], layers: Layers, *, key: Array | None = None
) -> Float[Array, "B h w I"]:
    """The patches after some layers, each after the final norm, side by side (arXiv:2304.07193 sec. 7.4: "lin." is the
    last layer, "+ms" the last four).

    A key switches drop path on. Raises UsageError for layers that the backbone has not.
    """
    levels = backbone.intermediates(images, layers, norm=True, key=key)
    return jnp.concatenate([level.patches for level in levels], -1)


def to_pixels(grid: Float[Array, "B h w K"], height: int, width: int) -> Float[Array, "B H W K"]:
    """A value for every pixel, bilinear between the centres of patches: torch's interpolate(align_corners=False)."""
    shape = (grid.shape[0], height, width, grid.shape[-1])
    return jax.image.resize(grid, shape, "bilinear")
