"""Random changes of training images: the operations of timm and torchvision, drawn by a generator, off by default."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fmjax.config import AugmentConfig, DataConfig
from fmjax.data.augment import augmented, erased, erased_box, jittered, mean_colour, rotated
from fmjax.data.rand_augment import OPERATIONS, Draw, rand_augment
from fmjax.data.transforms import Views, mirror, quarter_turned, random_resized_crop, upside_down
from fmjax.errors import UsageError
from fmjax.specs import PreprocessConfig
from tests.support import torch_reference

assert torch_reference  # declares what torchvision needs before it is imported

IMAGES = PreprocessConfig(
    image_size=(48, 48), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
ON = {
    "vertical_flip": 1.0,
    "quarter_turn": 1.0,
    "rotation": 20.0,
    "color_jitter": (0.4, 0.4, 0.4, 0.1),
    "rand_ops": 2,
    "erase": 1.0,
}


def picture(height: int = 48, width: int = 48) -> np.ndarray:
    """Smooth colours without a symmetry."""
    rng = np.random.default_rng(3)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def example() -> dict:
    return {"image": Image.fromarray(picture(60, 80)), "label": np.int32(3)}


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("crop", [0.4, 1.0])
def test_what_is_off_draws_nothing_and_changes_nothing(crop):
    ours, theirs = generator(), generator()
    for _ in range(5):
        seen = Views(IMAGES, crop, 0.5, DataConfig())(example(), ours)
        if crop < 1:
            plain = random_resized_crop(example(), IMAGES, theirs, scale=crop)
        else:
            plain = Views(IMAGES)(example(), None)
        plain = mirror(plain, theirs, probability=0.5)
        assert np.array_equal(seen["image"], plain["image"])
    # the next example is drawn alike too
    assert ours.bit_generator.state == theirs.bit_generator.state


@pytest.mark.parametrize("name", ON)
def test_each_change_does_something_keeps_the_shape_and_repeats_itself(name):
    views = Views(IMAGES, 0.4, 0.5, AugmentConfig(**{name: ON[name]}))
    plain = Views(IMAGES, 0.4, 0.5)
    differ = 0
    for seed in range(6):
        seen = views(example(), generator(seed))
        assert (seen["image"].dtype, seen["image"].shape) == (np.uint8, (48, 48, 3))
        assert seen["label"] == 3
        assert np.array_equal(seen["image"], views(example(), generator(seed))["image"])
        differ += not np.array_equal(seen["image"], plain(example(), generator(seed))["image"])
    assert differ >= 3
    # evaluation never
    assert np.array_equal(views(example(), None)["image"], plain(example(), None)["image"])


TIMM = {
    "auto contrast": "AutoContrast",
    "equalize": "Equalize",
    "invert": "Invert",
    "rotate": "Rotate",
    "posterize": "PosterizeIncreasing",
    "solarize": "SolarizeIncreasing",
    "solarize add": "SolarizeAdd",
    "color": "ColorIncreasing",
    "contrast": "ContrastIncreasing",
    "brightness": "BrightnessIncreasing",
    "sharpness": "SharpnessIncreasing",
    "shear x": "ShearX",
    "shear y": "ShearY",
    "translate x": "TranslateXRel",
    "translate y": "TranslateYRel",
}


def test_the_space_is_timms():
    from timm.data import auto_augment

    assert list(TIMM.values()) == auto_augment._RAND_INCREASING_TRANSFORMS
    assert list(TIMM) == list(OPERATIONS)


class Fixed(Draw):
    """Draws one sign and one interpolation."""

    sign = 1.0

    def signed(self, value: float) -> float:
        return self.sign * value

    def interpolation(self) -> Image.Resampling:
        return Image.Resampling.BICUBIC


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_timms_bit_by_bit(monkeypatch, name, sign):
    from timm.data import auto_augment

    monkeypatch.setattr(auto_augment, "_randomly_negate", lambda value: sign * value)
    monkeypatch.setattr(Fixed, "sign", sign)
    image, fill = Image.fromarray(picture()), (124, 116, 104)
    hparams = {"img_mean": fill, "interpolation": Image.Resampling.BICUBIC}
    for level in (0.0, 3.3, 9.9):
        theirs = auto_augment.AugmentOp(TIMM[name], 1.0, level, hparams)(image)
        ours = OPERATIONS[name](image, level / 10, Fixed(generator(), fill))
        assert np.array_equal(np.asarray(ours), np.asarray(theirs)), level
    # the highest level is one of any operation, where timm's posterize asks Pillow for no bits
    assert OPERATIONS[name](image, 1.0, Fixed(generator(), fill)).size == image.size


def test_operations_are_drawn_evenly_applied_every_other_time_and_as_strong_as_asked(monkeypatch):
    met: list[tuple[str, float]] = []

    def noted(name: str) -> Callable:
        def operation(image, level, draw):
            met.append((name, level))
            return image

        return operation

    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, noted(name))
    config, rng = AugmentConfig(rand_ops=2, rand_magnitude=7.0, rand_std=1.0), generator()
    for _ in range(6_000):
        rand_augment(Image.new("RGB", (2, 2)), config, rng, fill=(0, 0, 0))
    assert len(met) == pytest.approx(6_000, rel=0.03)
    counts = [sum(name == other for other, _ in met) for name in OPERATIONS]
    assert min(counts) > 0.8 * 400
    levels = np.asarray([level for _, level in met])
    assert levels.mean() == pytest.approx(0.7, abs=0.01)
    assert levels.std() == pytest.approx(0.1, abs=0.01)
    assert levels.max() <= 1


@pytest.mark.parametrize("number", range(4))
def test_jitter_is_torchvisions(monkeypatch, number):
    from torchvision.transforms import functional

    adjusted = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    strengths = [0.0] * 4
    strengths[number] = 0.4
    for seed in range(5):
        rng = generator(seed)
        rng.permutation(4)
        shift = rng.uniform(-1, 1, 4)[number] * 0.4
        theirs = adjusted[number](Image.fromarray(picture()), shift + (number < 3))
        ours = jittered(picture(), generator(seed), strengths=strengths)
        assert np.array_equal(ours, np.asarray(theirs))


def test_a_turn_is_pillows_and_reaches_the_angle_that_was_asked_for(monkeypatch):
    angles = []
    turn = Image.Image.rotate

    def noted(image, angle, *options, **named):
        angles.append(angle)
        return turn(image, angle, *options, **named)

    monkeypatch.setattr(Image.Image, "rotate", noted)
    rng = generator()
    for _ in range(300):
        seen = rotated(picture(), rng, degrees=30.0, fill=(1, 2, 3))
        assert seen.shape == (48, 48, 3)
    assert -30 <= min(angles) < -28
    assert 28 < max(angles) <= 30
    assert [1, 2, 3] in seen.reshape(-1, 3).tolist()


def test_erasing_is_of_timms_sizes_and_the_rest_stays():
    import torch
    from timm.data.random_erasing import RandomErasing

    torch.manual_seed(0)
    random.seed(0)
    theirs, ours = [], []
    timm, rng = RandomErasing(1.0, mode="const", device="cpu"), generator()
    for _ in range(1_500):
        theirs.append(float((timm(torch.ones(3, 40, 60)) == 0).float().mean()))
        _, _, height, width = erased_box((40, 60), rng) or (0, 0, 0, 0)
        ours.append(height * width / 2_400)
    for quantile in (0.1, 0.5, 0.9):
        found, expected = (np.quantile(areas, quantile) for areas in (ours, theirs))
        assert found == pytest.approx(expected, abs=0.02)
    assert 0.015 < min(ours) < max(ours) < 0.35


@pytest.mark.parametrize("fill", ["pixel", "const"])
def test_what_is_erased_is_noise_of_the_weights_statistics_or_their_mean(fill):
    given = np.zeros((200, 200, 3), np.uint8)
    config, rng = AugmentConfig(erase=0.5, erase_fill=fill), generator()
    seen = [erased(given, config, rng, images=IMAGES) for _ in range(200)]
    changed = [one for one in seen if one is not given]
    assert 70 < len(changed) < 130
    assert not given.any()
    pixels = np.concatenate([one[one.any(-1)] for one in changed])
    if fill == "const":
        assert np.unique(pixels, axis=0).tolist() == [list(mean_colour(IMAGES))]
    else:
        # a byte cuts off what is below 0
        assert pixels.mean(0) / 255 == pytest.approx(IMAGES.mean, abs=0.02)
        assert pixels.std(0) / 255 == pytest.approx(IMAGES.std, abs=0.02)


def test_a_flip_and_a_quarter_turn_move_the_mask_with_the_image():
    given = {"image": picture(30, 40), "mask": picture(30, 40)[..., 0].astype(np.uint16)}
    square = {"image": picture(), "mask": picture()[..., 0].astype(np.uint16)}
    for turned in (
        upside_down(given, generator(), probability=1.0),
        *(quarter_turned(square, generator(seed), probability=1.0) for seed in range(8)),
        quarter_turned(given, generator(), probability=1.0),
    ):
        assert np.array_equal(turned["image"][..., 0], turned["mask"])
    # not a square: half a turn, in its own shape
    assert np.array_equal(turned["image"], given["image"][::-1, ::-1])
    assert upside_down(given, generator(), probability=0.0) is given
    turns = {
        quarter_turned(square, generator(seed), probability=1.0)["image"].tobytes()
        for seed in range(30)
    }
    assert turns == {np.rot90(square["image"], k).tobytes() for k in (1, 2, 3)}


def test_the_order_is_turn_colours_operations_and_erasing_last():
    config = AugmentConfig(
        rotation=30.0, color_jitter=(0.5, 0.5, 0.5, 0.2), rand_ops=3, erase=1.0, erase_fill="const"
    )
    seen = augmented(picture(), config, generator(1), images=IMAGES)
    # colours would have changed what is erased
    assert (seen == mean_colour(IMAGES)).all(-1).mean() > 0.015
    unerased = augmented(picture(), replace(config, erase=0.0), generator(1), images=IMAGES)
    same = (seen == unerased).all(-1)
    assert 0.6 < same.mean() < 1


@pytest.mark.parametrize(
    ("options", "flag", "expected"),
    [
        ({"vertical_flip": 1.5}, "--data.vertical-flip is 1.5", "a probability"),
        ({"quarter_turn": -1.0}, "--data.quarter-turn", "a probability"),
        ({"rotation": 200.0}, "--data.rotation", "0 to 180 degrees"),
        ({"color_jitter": (0.4, 0.4, 0.4, 0.6)}, "--data.color-jitter", "a hue of 0 to 0.5"),
        ({"color_jitter": (1.4, 0.4, 0.4, 0.0)}, "--data.color-jitter", "three factors of 0 to 1"),
        ({"rand_ops": -1}, "--data.rand-ops", "0 to 10"),
        ({"rand_magnitude": 11.0}, "--data.rand-magnitude", "0 to 10"),
        ({"rand_std": float("inf")}, "--data.rand-std", "finite"),
        ({"erase": 2.0}, "--data.erase", "a probability"),
    ],
)
def test_a_strength_out_of_range_is_one_sentence(options, flag, expected):
    with pytest.raises(UsageError) as caught:
        DataConfig(**options)
    assert flag in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", ["rotation", "rand_ops", "erase"])
def test_what_a_mask_could_not_follow_is_refused(name):
    with pytest.raises(UsageError, match=r"it must be 0 where examples have a mask"):
        DataConfig(**{name: ON[name]}).check_mask()
    DataConfig(color_jitter=(0.4, 0.4, 0.4, 0.1), vertical_flip=0.5, quarter_turn=0.5).check_mask()
