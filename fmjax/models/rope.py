"""Rotary position embedding in two axes (arXiv:2104.09864): every variant is data in a specs.Rope."""

from __future__ import annotations

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jaxtyping import Array, Float

from fmjax.specs import Rope, ViTSpec


def rope_table(spec: ViTSpec, grid: tuple[int, int]) -> Float[Array, "2 L K"] | None:
    """Sine and cosine for every token of an image with that grid of patches; None for a model without rope.

    eva_clip rope.py (VisionRotaryEmbeddingFast), dinov3 rope_position_encoding.py, perception_models rope.py; the
    angles are computed in float64.
    """
    if spec.rope is None:
        return None
    angles = patch_angles(spec.rope, grid, spec.head_dim)  # (h w) K
    # class tokens and registers have no place: with angle 0 they are not turned
    end = spec.num_registers if spec.register_position == "end" else 0
    start = spec.num_cls + spec.num_registers - end
    angles = np.pad(angles, ((start, end), (0, 0)))
    return jnp.asarray(np.stack([np.sin(angles), np.cos(angles)]), jnp.float32)


def patch_angles(rope: Rope, grid: tuple[int, int], head_dim: int) -> np.ndarray:
    """The float64 angles [h w, K] by which the channels of each patch turn."""
    # a pair of channels has one angle, and each axis turns half of the pairs
    count = head_dim // 4
    # rounded as they were in training: some files of DINOv3 hold the periods in bfloat16
    rounded = (rope.base ** (np.arange(count) / count)).astype(np.float32)
    if rope.period_dtype == "bfloat16":
        rounded = rounded.astype(ml_dtypes.bfloat16)
    rows, columns = np.meshgrid(*coordinates(rope, grid), indexing="ij")
    axes = (rows, columns) if rope.first_axis == "rows" else (columns, rows)
    angles = np.concatenate(
        [axis.reshape(-1, 1) / rounded.astype(np.float64) for axis in axes], -1
    )  # (h w) K/2
    # the two channels of a pair lie side by side (eva_clip) or half a head apart (DINOv3)
    return np.repeat(angles, 2, -1) if rope.pairs == "neighbours" else np.tile(angles, 2)


def coordinates(rope: Rope, grid: tuple[int, int]) -> list[np.ndarray]:
    """The coordinate of every row and of every column."""
    # -1 to 1 from edge to edge whatever the size, taken at the centres of patches, times the full circle
    if rope.coordinates == "centred":
        centres = [(np.arange(n) + 0.5) / n for n in grid]
        return [2 * np.pi * (2 * centre - 1) for centre in centres]
    # a larger image has finer steps over the same range, that of the grid in pretraining
    reference = rope.reference_grid or grid
    return [(np.arange(n) + rope.offset) / n * r for n, r in zip(grid, reference, strict=True)]


def rotate(
    x: Float[Array, "B N L K"],
    table: Float[Array, "2 L K"],
    pairs: str,
) -> Float[Array, "B N L K"]:
    """Turns each pair of channels by its token's angle, in float32."""
    sin, cos = table  # L K
    x32 = x.astype(jnp.float32)
    # (a, b) -> (-b, a), a quarter turn: with cos and sin of the angle it makes any turn
    if pairs == "neighbours":
        split = x32.reshape(*x.shape[:-1], -1, 2)
        first, second = split[..., 0], split[..., 1]
        turned = jnp.stack([-second, first], -1).reshape(x.shape)
    else:
        low, high = jnp.split(x32, 2, -1)
        turned = jnp.concatenate([-high, low], -1)
    return (x32 * cos + turned * sin).astype(x.dtype)
