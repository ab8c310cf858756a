"""What moves an image moves its mask: no pixel gets the class of another."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from PIL import Image

from fmjax.data.masks import IGNORED
from fmjax.data.resizing import evaluated, nearest, resize, windowed
from fmjax.data.transforms import (
    Views,
    fit,
    fit_inside,
    mirror,
    random_resized_crop,
    scale_jitter_crop,
)
from fmjax.specs import PreprocessConfig

NEUTRAL = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
COLOURS = np.eye(3, dtype=np.uint8) * 255  # class 0 is red, 1 green, 2 blue


def example(height: int = 90, width: int = 120) -> dict:
    """Blobs of three colours, and a mask that says which; no symmetry that a wrong turn could hide behind."""
    rng = np.random.default_rng(5)
    smooth = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    mask = np.asarray(smooth).argmax(-1).astype(np.uint16)
    return {"image": Image.fromarray(COLOURS[mask]), "mask": mask, "name": "x"}


def agreement(seen: dict, ignore: int = IGNORED) -> float:
    """The share of pixels, away from borders of classes, whose colour is that of the mask's class."""
    mask = seen["mask"].astype(int)
    inside = np.ones(mask.shape, bool)
    for axis in (0, 1):
        for shift in (-2, -1, 1, 2):
            inside &= np.roll(mask, shift, axis) == mask
    inside &= mask != ignore
    assert inside.sum() > 200
    return float((seen["image"].argmax(-1) == mask)[inside].mean())


WAYS = {
    "fit": lambda config, rng: partial(fit, config=config),
    "crop": lambda config, rng: partial(random_resized_crop, config=config, rng=rng, scale=0.2),
    "inside": lambda config, rng: partial(fit_inside, config=config),
    "jitter": lambda config, rng: partial(scale_jitter_crop, config=config, rng=rng),
    "views": lambda config, rng: lambda e: Views(config, 0.3, 0.5)(e, rng),
}


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "bilinear_no_antialias"])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("way", WAYS)
def test_image_and_mask_move_together(way, mode, interpolation):
    config = PreprocessConfig(
        **NEUTRAL, image_size=(56, 70), interpolation=interpolation, resize_mode=mode, crop_pct=0.9
    )
    rng = np.random.default_rng(0)
    for size in ((90, 120), (150, 61), (40, 40)):
        for _ in range(5):
            seen = WAYS[way](config, rng)(example(*size))
            assert seen["image"].shape == (56, 70, 3)
            assert (seen["image"].dtype, seen["mask"].dtype) == (np.uint8, np.uint16)
            assert seen["mask"].shape == (56, 70)
            assert seen["name"] == "x"
            assert agreement(seen) > 0.99


def test_the_measure_sees_a_mask_that_stays_behind():
    config = PreprocessConfig(**NEUTRAL, image_size=(60, 60))
    seen = fit(example(), config)
    assert agreement({**seen, "mask": seen["mask"][:, ::-1]}) < 0.8
    assert agreement({**seen, "mask": np.roll(seen["mask"], 6, 0)}) < 0.97


def test_a_mirror_turns_both_or_none():
    given = {**example(), "image": np.asarray(example()["image"])}
    turned = mirror(given, np.random.default_rng(0), probability=1.0)
    assert np.array_equal(turned["image"][:, ::-1], given["image"])
    assert np.array_equal(turned["mask"][:, ::-1], given["mask"])
    assert mirror(given, np.random.default_rng(0), probability=0.0) is given


def test_a_small_example_is_filled_with_the_mean_colour_and_the_ignored_value():
    config = PreprocessConfig(mean=(0.2, 0.4, 0.6), std=(0.5, 0.5, 0.5), image_size=(64, 64))
    seen = scale_jitter_crop(
        example(), config, np.random.default_rng(0), jitter=(0.5, 0.5), ignore=7
    )
    assert (seen["mask"][32:] == 7).all()
    assert (seen["mask"][:32, :42] != 7).all()
    assert seen["image"][40, 5].tolist() == [51, 102, 153]


@pytest.mark.parametrize(
    ("size", "filled"), [((90, 120), (48, 64)), ((120, 90), (64, 48)), ((2, 500), (1, 64))]
)
def test_all_of_an_example_is_seen_in_its_own_shape(size, filled):
    config = PreprocessConfig(**NEUTRAL, image_size=(64, 64))
    given = example(*size)
    seen = fit_inside(given, config, ignore=7)
    inside = np.zeros((64, 64), bool)
    inside[: filled[0], : filled[1]] = True
    assert np.array_equal(seen["mask"] != 7, inside)
    assert (seen["image"][~inside] == 128).all()
    corners = [given["mask"][row, column] for row in (0, -1) for column in (0, -1)]
    assert [
        seen["mask"][row, column] for row in (0, filled[0] - 1) for column in (0, filled[1] - 1)
    ] == corners


def test_an_example_of_the_size_asked_for_is_left_as_it_is():
    config = PreprocessConfig(**NEUTRAL, image_size=(90, 120))
    seen = fit_inside(example(), config)
    assert np.array_equal(seen["image"], np.asarray(example()["image"]))
    assert np.array_equal(seen["mask"], example()["mask"])


def test_the_random_scale_reaches_from_half_to_twice():
    config = PreprocessConfig(**NEUTRAL, image_size=(64, 64))
    rng = np.random.default_rng(0)
    filled = [
        (scale_jitter_crop(example(90, 90), config, rng)["mask"] == IGNORED).mean()
        for _ in range(100)
    ]
    # a quarter is left of what is half as wide and high
    assert max(filled) == pytest.approx(0.75, abs=0.05)
    # two thirds of the factors are above 1
    assert 0.5 < np.mean([part == 0 for part in filled]) < 0.8


def test_a_value_is_never_a_mixture_and_the_mask_of_the_right_size_is_left_as_it_is():
    mask = np.random.default_rng(0).choice(np.asarray([0, 3, 255, 40_000], np.uint16), (31, 17))
    assert np.array_equal(nearest(mask, (17, 31), window=(0, 0, 17, 31)), mask)
    assert set(np.unique(nearest(mask, (50, 9), window=(3, 1, 40, 8)))) <= {0, 3, 255, 40_000}
    twice = nearest(mask, (34, 62), window=(0, 0, 34, 62))
    assert np.array_equal(twice, mask.repeat(2, 0).repeat(2, 1))


def test_a_window_of_the_mask_is_that_part_of_the_whole():
    mask = np.random.default_rng(0).integers(0, 9, (31, 17)).astype(np.uint16)
    whole = nearest(mask, (40, 70), window=(0, 0, 40, 70))
    assert np.array_equal(nearest(mask, (40, 70), window=(4, 9, 30, 66)), whole[9:66, 4:30])


def test_nearest_is_pillows():
    mask = np.random.default_rng(0).integers(0, 200, (31, 17)).astype(np.uint8)
    for size in ((40, 70), (9, 12), (17, 62)):
        pillow = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
        assert np.array_equal(nearest(mask, size, window=(0, 0, *size)), np.asarray(pillow))


def test_evaluation_is_the_weights_own_whatever_training_does():
    config = PreprocessConfig(**NEUTRAL, image_size=(32, 48), crop_pct=0.875)
    given = example()
    seen = Views(config, crop_scale=0.1, flip=1.0)(given, None)
    assert np.array_equal(seen["image"], resize(given["image"], config))
    target, window = evaluated((120, 90), config)
    assert np.array_equal(
        seen["image"], windowed(given["image"], target, window=window, interpolation="bicubic")
    )


def test_an_example_without_a_mask_has_none_afterwards():
    config = PreprocessConfig(**NEUTRAL, image_size=(32, 32))
    seen = Views(config, 0.5, 0.5)(
        {"image": example()["image"], "label": 3}, np.random.default_rng(0)
    )
    assert set(seen) == {"image", "label"}
