"""Resampling of position tables and patch kernels: the only place where an image size may change a parameter.

Every policy is a pair of small matrices, computed in float64 numpy, so the result is the same on every jax version.
torch's own rules: aten UpSample.h (cubic, A = -0.75, border clamped; with antialias A = -0.5, the kernel as wide as
the step where that is more than 1, weights renormalised).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fmjax.specs import Resample

Kernel = Callable[[np.ndarray], np.ndarray]
RESIZE = "Hh,Ww,hwd->HWd"  # rows by one matrix, columns by the other


def resample_grid(
    table: Float[Array, "h w D"],
    size: tuple[int, int],
    policy: Resample,
) -> Float[Array, "H W D"]:
    """A table of h x w positions for H x W ones, in float32; at its own size it is returned untouched."""
    if table.shape[:2] == tuple(size):
        return table
    matrices = resize_matrices(table.shape[:2], size, policy)
    down, across = (jnp.asarray(matrix, jnp.float32) for matrix in matrices)
    resized = jnp.einsum(RESIZE, down, across, table.astype(jnp.float32), precision="highest")
    return resized.astype(table.dtype)


def resample_table(
    table: np.ndarray,
    grid: tuple[int, int],
    size: tuple[int, int],
    policy: Resample,
    *,
    prefix: int = 1,
) -> np.ndarray:
    """A stored table [prefix + h w, D] as one for `size` rows and columns; float64 inside, on the host. The prefix,
    the class token's position, stays as it is."""
    if tuple(grid) == tuple(size):
        return table
    positions = table[prefix:].astype(np.float64).reshape(*grid, -1)
    resized = np.einsum(RESIZE, *resize_matrices(grid, size, policy), positions, optimize=True)
    resized = resized.reshape(size[0] * size[1], -1)
    return np.concatenate([table[:prefix], resized.astype(table.dtype)])


def resize_matrices(
    grid: tuple[int, ...],
    size: tuple[int, ...],
    policy: Resample,
) -> tuple[np.ndarray, np.ndarray]:
    """One matrix for rows and one for columns."""
    plain: Any = policy.removesuffix("_window")
    # a window is resized to a square of the longer side, of which its upper left part is taken: that keeps the aspect
    # of positions (RADIO vit_patch_generator.py)
    full = (max(size), max(size)) if plain != policy else size
    sides = zip(grid, full, strict=True)
    down, across = (resize_matrix(old, new, plain) for old, new in sides)
    return down[: size[0]], across[: size[1]]


@functools.lru_cache(maxsize=64)
def resize_matrix(old: int, new: int, policy: Resample) -> np.ndarray:
    """The float64 matrix [new, old] that resizes one axis as torch.nn.functional.interpolate does.

    bicubic: by size, no antialias (Hugging Face DINOv2, eva_clip). bicubic_antialias: by size, antialiased (timm,
    open_clip, DINOv2 with registers). bicubic_offset: by the scale factor (new + 0.1) / old, no antialias (DINOv2's
    hub code, TAO).
    bilinear: by size, no antialias (PE). bilinear_antialias: by size, antialiased (TIPS, in torch and in JAX).
    bilinear_corners: align_corners=True (scipy's zoom of order 1, big_vision).
    """
    if old == new and policy != "bicubic_offset":
        return np.eye(new)
    if policy in ANTIALIASED:
        return _antialiased(old, new, *ANTIALIASED[policy])
    centres = _centres(old, new, policy)
    if policy.startswith("bilinear"):
        return _taps(np.clip(centres, 0, old - 1), old, (0, 1), _linear)
    return _taps(centres, old, (-1, 0, 1, 2), functools.partial(_cubic, a=-0.75))


def _centres(old: int, new: int, policy: Resample) -> np.ndarray:
    """Where the new cells lie on the old axis, whose own cells lie at 0, 1, 2, ..."""
    if policy == "bilinear_corners":  # the first and the last cells of both axes coincide
        return np.arange(new) * ((old - 1) / max(new - 1, 1))
    step = old / (new + 0.1) if policy == "bicubic_offset" else old / new
    return (np.arange(new) + 0.5) * step - 0.5  # cells are areas, and their centres half a cell in


def _taps(centres: np.ndarray, old: int, offsets: tuple[int, ...], kernel: Kernel) -> np.ndarray:
    """A row for every centre: the kernel's weights of the old cells at these offsets from the one before it."""
    matrix = np.zeros((len(centres), old))
    rows = np.arange(len(centres))
    base = np.floor(centres).astype(int)
    for offset in offsets:
        # beyond the border lies its last cell again, which so collects several weights
        columns = np.clip(base + offset, 0, old - 1)
        np.add.at(matrix, (rows, columns), kernel(centres - base - offset))
    return matrix


def _antialiased(old: int, new: int, kernel: Kernel, radius: int) -> np.ndarray:
    # the kernel reaches `radius` steps of the coarser of both grids: shrinking averages over all that it leaves out
    scale = old / new
    width = max(scale, 1.0)
    matrix = np.zeros((new, old))
    for i in range(new):
        centre = scale * (i + 0.5)
        low = max(int(centre - radius * width + 0.5), 0)
        high = min(int(centre + radius * width + 0.5), old)
        weights = kernel((np.arange(low, high) - centre + 0.5) / width)
        matrix[i, low:high] = weights / weights.sum()  # at the border fewer cells share the whole
    return matrix


def _linear(x: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - np.abs(x))


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    # Keys' convolution, in torch's order of operations
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


# the antialiased policies: the kernel, and how many steps it reaches
ANTIALIASED: dict[str, tuple[Kernel, int]] = {
    "bicubic_antialias": (functools.partial(_cubic, a=-0.5), 2),
    "bilinear_antialias": (_linear, 1),
}
