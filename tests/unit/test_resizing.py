"""Both resamplings against independent formulas, and pictures of shapes that would take gigabytes whole."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from PIL import Image

from fmjax.data.resizing import RESAMPLING, resize, sampled, scaled, windowed
from fmjax.data.transforms import random_resized_crop
from fmjax.specs import PreprocessConfig
from tests.support.real_images import photographs

PHOTOGRAPHS = photographs()
NEUTRAL = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
SIGLIP = PreprocessConfig(
    **NEUTRAL, image_size=(224, 224), interpolation="bilinear_no_antialias", resize_mode="squash"
)


def tensorflow_bilinear(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Point by point, as TensorFlow's kernel says it: float32, half-pixel centres, decimals cut off."""
    one, half = np.float32(1), np.float32(0.5)
    source = pixels.astype(np.float32)

    def place(index: int, length: int, out: int) -> tuple[int, int, np.float32]:
        point = (np.float32(index) + half) * (np.float32(length) / np.float32(out)) - half
        low = np.floor(point)
        return max(int(low), 0), min(int(np.ceil(point)), length - 1), point - low

    out = np.empty((height, width, pixels.shape[2]), np.uint8)
    for row in range(height):
        top, bottom, down = place(row, pixels.shape[0], height)
        for column in range(width):
            left, right, across = place(column, pixels.shape[1], width)
            above = source[top, left] + (source[top, right] - source[top, left]) * across
            below = source[bottom, left] + (source[bottom, right] - source[bottom, left]) * across
            out[row, column] = (one * above + (below - above) * down).astype(np.uint8)
    return out


@pytest.mark.parametrize("size", [(12, 9), (40, 40), (7, 31), (1, 1), (64, 3)])
def test_bilinear_without_antialias_is_tensorflows_bit_for_bit(size):
    pixels = np.random.default_rng(0).integers(0, 256, (25, 33, 3), np.uint8)
    found = sampled(Image.fromarray(pixels), size[::-1], window=(0, 0, *size[::-1]))
    assert np.array_equal(found, tensorflow_bilinear(pixels, *size))


@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
def test_bilinear_without_antialias_agrees_with_jax(photograph):
    """jax weighs in another order: its rounding may carry a value over a whole number, which the cast then cuts."""
    pixels = PHOTOGRAPHS[photograph]
    theirs = jax.image.resize(pixels.astype(np.float32), (224, 224, 3), "bilinear", antialias=False)
    found = resize(Image.fromarray(pixels), SIGLIP)
    assert np.abs(np.asarray(theirs) - 0.5 - found).max() < 0.501
    assert (np.floor(np.asarray(theirs) + 1e-4) == found).mean() > 0.99


def test_an_image_of_the_right_size_is_left_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    assert np.array_equal(resize(Image.fromarray(pixels), SIGLIP), pixels)


def test_training_resizes_crops_as_evaluation_does():
    image = Image.fromarray(PHOTOGRAPHS["astronaut"])
    found = random_resized_crop({"image": image}, SIGLIP, np.random.default_rng(0), scale=0.5)[
        "image"
    ]
    assert found.shape == (224, 224, 3)
    box = (100, 50, 400, 350)
    cropped = np.asarray(image.crop(box))
    expected = tensorflow_bilinear(cropped, 20, 24)
    assert np.array_equal(scaled(image, box, (24, 20), "bilinear_no_antialias"), expected)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "bilinear_no_antialias"])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_a_grey_picture_may_become_rgb_before_or_after(interpolation, mode):
    config = PreprocessConfig(
        **NEUTRAL, image_size=(48, 64), interpolation=interpolation, resize_mode=mode
    )
    grey = Image.fromarray(PHOTOGRAPHS["chelsea"]).convert("L")
    assert np.array_equal(resize(grey, config), resize(grey.convert("RGB"), config))


@pytest.mark.parametrize("size", [(1, 4_000), (1, 65_000), (65_535, 1), (3, 60_000)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "bilinear_no_antialias"])
def test_thin_pictures_are_cropped_while_they_are_scaled(size, interpolation):
    """Their middle is what the whole would show there; scaled whole, one of 1 x 65,000 takes 13 GB."""
    config = PreprocessConfig(**NEUTRAL, image_size=(224, 224), interpolation=interpolation)
    ramp = np.linspace(0, 255, size[0] * size[1]).astype(np.uint8).reshape(size[::-1])
    found = resize(Image.fromarray(ramp), config)
    assert found.shape == (224, 224, 3)
    assert np.abs(found.astype(int) - 127).max() <= 1


@pytest.mark.parametrize("size", [(30, 3_000), (3_000, 30)])
def test_the_crop_of_a_thin_picture_is_where_the_whole_has_it(size):
    smooth = np.random.default_rng(0).integers(0, 256, (4, 4), np.uint8)
    image = Image.fromarray(smooth).resize(size, Image.Resampling.BICUBIC)
    config = PreprocessConfig(**NEUTRAL, image_size=(64, 64), crop_pct=0.875)
    scale = int(64 / 0.875) / min(size)
    target = (int(size[0] * scale), int(size[1] * scale))
    left, top = round((target[0] - 64) / 2), round((target[1] - 64) / 2)
    whole = image.resize(target, Image.Resampling.BICUBIC).crop((left, top, left + 64, top + 64))
    assert target[0] * target[1] > 32 * 64 * 64
    # Pillow rounds after columns and after rows, and may take them in another order
    assert np.abs(resize(image, config)[..., 0].astype(int) - np.asarray(whole)).max() <= 2


def test_a_window_has_the_bits_of_the_whole_picture_scaled_and_cropped():
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(pixels) for pixels in PHOTOGRAPHS.values()]
    for number in range(60):
        size = [int(side) for side in rng.integers(4, 400, 2)]
        image = photographs[number % len(photographs)].resize(size)
        image = image.convert("L") if number % 5 == 0 else image
        target = [int(side) for side in rng.integers(1, 300, 2)]
        left, top = (int(rng.integers(0, side)) for side in target)
        right, bottom = left + 1 + (target[0] - left) // 2, top + 1 + (target[1] - top) // 2
        if target[0] * target[1] > 32 * (right - left) * (bottom - top):
            continue
        window = (left, top, right, bottom)
        for name, method in RESAMPLING.items():
            found = windowed(image, tuple(target), window=window, interpolation=name)
            whole = image.resize(target, method).crop(window).convert("RGB")
            assert np.array_equal(found, np.asarray(whole)), (size, target, window, name)


def test_a_thin_picture_has_the_bits_of_the_whole_too():
    image = Image.fromarray(PHOTOGRAPHS["chelsea"]).resize((3, 390))
    found = windowed(image, (20, 350), window=(2, 5, 18, 340), interpolation="bicubic")
    whole = image.resize((20, 350), Image.Resampling.BICUBIC).crop((2, 5, 18, 340))
    assert np.array_equal(found, np.asarray(whole))
