"""Position tables against torch.nn.functional.interpolate, in float64."""

from __future__ import annotations

from typing import get_args

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.ndimage import zoom

from fmjax.models.resample import resample_grid, resample_table, resize_matrices, resize_matrix
from fmjax.specs import Resample, nearest_sizes

SIZES = [
    ((37, 37), (16, 16)),
    ((37, 37), (24, 46)),
    ((16, 16), (24, 9)),
    ((14, 14), (10, 18)),
    ((7, 7), (15, 3)),
]
TORCH = {
    "bicubic": {"mode": "bicubic", "antialias": False, "align_corners": False},
    "bicubic_antialias": {"mode": "bicubic", "antialias": True, "align_corners": False},
    "bilinear": {"mode": "bilinear", "antialias": False, "align_corners": False},
    "bilinear_antialias": {"mode": "bilinear", "antialias": True, "align_corners": False},
    "bilinear_corners": {"mode": "bilinear", "antialias": False, "align_corners": True},
}


def table(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((*size, 5))


def interpolated(grid: np.ndarray, **options) -> np.ndarray:
    out = torch.nn.functional.interpolate(torch.from_numpy(grid).permute(2, 0, 1)[None], **options)
    return out[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize("policy", TORCH)
def test_equals_torch_by_size(policy, old, new):
    expected = interpolated(table(old), size=new, **TORCH[policy])
    found = np.einsum(
        "Hh,Ww,hwd->HWd",
        resize_matrix(old[0], new[0], policy),
        resize_matrix(old[1], new[1], policy),
        table(old),
    )
    assert np.abs(found - expected).max() < 1e-10


@pytest.mark.parametrize(("old", "new"), SIZES[:2])
def test_offset_equals_torch_by_scale_factor(old, new):
    factors = tuple((n + 0.1) / o for n, o in zip(new, old, strict=True))
    expected = interpolated(table(old), scale_factor=factors, mode="bicubic", antialias=False)
    matrices = [resize_matrix(o, n, "bicubic_offset") for o, n in zip(old, new, strict=True)]
    assert np.abs(np.einsum("Hh,Ww,hwd->HWd", *matrices, table(old)) - expected).max() < 1e-10


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize(
    ("old", "new"), [((16, 16), (12, 7)), ((16, 16), (5, 16)), ((16, 16), (20, 24))]
)
def test_window_resizes_to_a_square_and_takes_its_upper_left_part(corners, old, new):
    side = max(new)
    square = interpolated(table(old), size=(side, side), mode="bilinear", align_corners=corners)
    policy = "bilinear_corners_window" if corners else "bilinear_window"
    matrices = resize_matrices(old, new, policy)
    found = np.einsum("Hh,Ww,hwd->HWd", *matrices, table(old))
    assert np.abs(found - square[: new[0], : new[1]]).max() < 1e-10


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_corners_equal_the_zoom_of_scipy(old, new):
    expected = zoom(table(old), (new[0] / old[0], new[1] / old[1], 1), order=1)
    matrices = [resize_matrix(o, n, "bilinear_corners") for o, n in zip(old, new, strict=True)]
    assert np.abs(np.einsum("Hh,Ww,hwd->HWd", *matrices, table(old)) - expected).max() < 1e-10


@pytest.mark.parametrize("policy", get_args(Resample))
def test_native_size_is_the_identity(policy):
    grid = jnp.asarray(table((7, 9)), jnp.float32)
    assert resample_grid(grid, (7, 9), policy) is grid
    flat = np.concatenate([np.zeros((1, 5), np.float32), np.asarray(grid).reshape(-1, 5)])
    assert resample_table(flat, (7, 9), (7, 9), policy) is flat


def test_host_and_traced_resampling_agree():
    grid = table((14, 14)).astype(np.float32)
    flat = np.concatenate([np.ones((1, 5), np.float32), grid.reshape(-1, 5)])
    stored = resample_table(flat, (14, 14), (10, 18), "bicubic")
    traced = np.asarray(resample_grid(jnp.asarray(grid), (10, 18), "bicubic"))
    assert np.array_equal(stored[0], flat[0])
    assert np.abs(stored[1:].reshape(10, 18, 5) - traced).max() < 1e-5


def test_nearest_sizes():
    assert nearest_sizes(225, 14) == (224, 238)
    assert nearest_sizes(224, 14) == (224,)
    assert nearest_sizes(3, 14) == (14,)
