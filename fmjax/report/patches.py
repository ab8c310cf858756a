"""DINOv2's figure: patches coloured by what they are like, over several images at once (arXiv:2304.07193 fig. 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

FEWEST = 8  # patches of a foreground, below which it is none
CLIPPED = 2.0  # per cent of the patches at either end of a channel, which stretch no colours


@dataclass(frozen=True)
class PatchMaps:
    """Colours of the patches of each image, and which of them are the foreground. explained: the share of the variance
    of the foreground that the three colours show."""

    colours: UInt8[np.ndarray, "N h w 3"]
    foreground: Bool[np.ndarray, "N h w"]
    explained: float


def patch_maps(patches: Float[np.ndarray, "N h w D"]) -> PatchMaps:
    """The first component tells foreground from background; three components of the foreground are its colours.

    The basis is that of all images, so that the same colour means the same thing in each; signs are fixed, so that the
    same features give the same colours.
    """
    shape = patches.shape[:3]
    rows = patches.reshape(-1, patches.shape[-1]).astype(np.float64)
    first = _components(rows, 1)[0].reshape(shape)
    foreground = _oriented(first) > 0
    # nothing in particular stands out, as in a texture: then all of it is shown
    if foreground.sum() < FEWEST:
        foreground = np.ones(shape, bool)
    chosen = foreground.reshape(-1)
    count = min(3, patches.shape[-1], int(chosen.sum()))
    found, explained = _components(rows[chosen], count)
    colours = np.zeros((len(rows), 3), np.uint8)
    colours[chosen, :count] = _as_bytes(found)
    return PatchMaps(colours.reshape(*shape, 3), foreground, explained)


def _components(rows: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Projections [N count] on the first principal components, and the share of the variance that they have."""
    from sklearn.decomposition import PCA

    # the full decomposition draws no random numbers, and its signs are scikit-learn's svd_flip
    basis: Any = PCA(count, svd_solver="full").fit(rows)
    with np.errstate(invalid="ignore"):
        explained = np.nan_to_num(basis.explained_variance_ratio_)
    return basis.transform(rows), float(explained.sum())


def _oriented(first: Float[np.ndarray, "N h w"]) -> Float[np.ndarray, "N h w"]:
    """The component with the side up that lies in the middle of the images: photographers put things there."""
    inner = np.zeros(first.shape[1:], bool)
    height, width = first.shape[1:]
    inner[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    edge = first[:, ~inner].mean() if (~inner).any() else 0.0
    return first if first[:, inner].mean() >= edge else -first


def _as_bytes(values: Float[np.ndarray, "M C"]) -> UInt8[np.ndarray, "M C"]:
    low, high = np.percentile(values, [CLIPPED, 100 - CLIPPED], axis=0)
    shares = (values - low) / np.maximum(high - low, 1e-12)
    # not to black, which is the background's
    return np.round(40 + 215 * np.clip(shares, 0, 1)).astype(np.uint8)


def heat(weights: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Attention as colours, from its least to its greatest value."""
    from matplotlib import colormaps

    low, high = float(weights.min()), float(weights.max())
    shares = (weights - low) / max(high - low, 1e-12)
    return (colormaps["magma"](shares)[..., :3] * 255).round().astype(np.uint8)
