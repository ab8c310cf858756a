"""`--data.decoder fast`: about the pixels of the exact way, the same refusals, and nothing of evaluation."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmjax.config.data import DataConfig
from fmjax.data import fast
from fmjax.data.batches import eval_batches, train_batches
from fmjax.data.fast import crop_resized, reduction
from fmjax.data.images import Unreadable, read
from fmjax.data.resizing import scaled
from fmjax.data.sources.folder import image_folder
from fmjax.data.transforms import Views
from fmjax.errors import UsageError
from fmjax.specs import PreprocessConfig
from tests.support.real_images import photographs

pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'fmjax[fast]'")

PHOTOGRAPHS = photographs()
HALF = (0.5, 0.5, 0.5)
SIZE = (224, 224)
# mean and largest difference in levels of one crop; over all of them here the mean is 0.9 and these are 2.7 and 54
# (Pillow's own bicubic and bilinear, both right, differ by 0.8, 2.0 and 33)
MEAN, LARGEST = 3, 64


def crops(image: Image.Image) -> list[fast.Box]:
    """All of a picture, a large part, and parts that are enlarged."""
    width, height = image.size
    parts = [(1.0, 1.0), (0.8, 0.6), (0.5, 0.7), (0.2, 0.3)]
    return [(5, 3, 5 + int((width - 5) * x), 3 + int((height - 3) * y)) for x, y in parts]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "bilinear_no_antialias"])
@pytest.mark.parametrize("times", [1, 3])
def test_crops_are_nearly_those_of_the_exact_way(interpolation, times):
    for pixels in PHOTOGRAPHS.values():
        image = Image.fromarray(pixels)
        image = image.resize((image.width * times, image.height * times), Image.Resampling.LANCZOS)
        for box in crops(image):
            found = crop_resized(image, box, SIZE, interpolation)
            exact = scaled(image, box, SIZE, interpolation)
            off = np.abs(found.astype(int) - exact)
            assert off.mean() < MEAN, (image.size, box)
            assert off.max() < LARGEST, (image.size, box)


def test_a_grey_picture_has_three_channels_alike():
    image = Image.fromarray(PHOTOGRAPHS["chelsea"]).convert("L")
    found = crop_resized(image, (0, 0, 300, 300), SIZE, "bicubic")
    assert found.shape == (*SIZE, 3)
    assert (found == found[..., :1]).all()


@pytest.mark.parametrize(
    ("size", "factor"),
    [((500, 375), 1), ((1600, 1200), 4), ((4000, 3000), 8), ((4000, 300), 1), ((900, 900), 2)],
)
def test_no_crop_is_decoded_smaller_than_the_network_wants_it(size, factor):
    assert reduction(size, SIZE, scale=0.6) == factor


def jpeg(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def odd() -> dict[str, bytes]:
    """Kinds of JPEGs, large enough to be decoded at a part of their size, and damaged ones."""
    image = Image.fromarray(PHOTOGRAPHS["coffee"]).resize((1200, 900))
    turned = Image.Exif()
    turned[0x0112] = 6
    whole = jpeg(image)
    return {
        "usual": whole,
        "progressive": jpeg(image, progressive=True),
        "grey": jpeg(image.convert("L")),
        "CMYK": jpeg(image.convert("CMYK")),
        "turned": jpeg(image, exif=turned),
        "truncated": whole[: len(whole) * 2 // 3],
        "cut in its header": whole[:200],
        "no JPEG": b"\xff\xd8\xff" + bytes(500),
        "empty": b"",
    }


@pytest.mark.parametrize("kind", odd())
def test_an_odd_jpeg_is_read_or_refused_as_in_the_exact_way(kind):
    content = odd()[kind]
    exact, found = (outcome(content, factor) for factor in (1, 2))
    if isinstance(exact, str):
        assert found == exact
        return
    assert found.mode == exact.mode
    assert found.size == (exact.width // 2, exact.height // 2)
    # upright, and of the same colours
    off = np.abs(np.asarray(found, int) - np.asarray(exact.reduce(2), int))
    assert off.mean() < 3


def outcome(content: bytes, factor: int):
    """The picture decoded that many times smaller, or why there is none."""
    try:
        return read(content, reduction=lambda size: factor)
    except Unreadable as refused:
        return refused.reason


def folder(root: Path) -> Path:
    for number, pixels in enumerate(PHOTOGRAPHS.values()):
        path = root / ("cat", "dog")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg(Image.fromarray(pixels).resize((1000, 800)), quality=90))
    return root


def test_training_is_nearly_the_same_and_evaluation_exactly(tmp_path):
    examples = image_folder(folder(tmp_path)).train
    look = PreprocessConfig(image_size=(64, 64), mean=HALF, std=HALF)
    found = {}
    for decoder in ("exact", "fast"):
        view, config = Views(look, 0.5, 0.5, decoder=decoder), DataConfig(decoder=decoder)
        train = next(train_batches(examples, view, config, batch_size=6, seed=0))
        # whoever reads it
        alone = replace(config, threads=1)
        again = next(train_batches(examples, view, alone, batch_size=6, seed=0))
        assert np.array_equal(train["image"], again["image"])
        (whole,) = eval_batches(examples, view, config, batch_size=6)
        found[decoder] = train, whole
    train, whole = zip(*(found[decoder] for decoder in ("exact", "fast")), strict=True)
    assert np.array_equal(whole[0]["image"], whole[1]["image"])
    # the same examples, mirrored alike, at the same places to a pixel of the network
    assert np.array_equal(train[0]["index"], train[1]["index"])
    off = np.abs(train[0]["image"].astype(int) - train[1]["image"])
    assert 0 < off.mean() < 4


def test_without_opencv_the_fix_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    fast.opencv.cache_clear()
    with pytest.raises(UsageError, match=r"pip install 'fmjax\[fast\]'.*--data\.decoder exact"):
        fast.opencv()


def test_masks_are_refused():
    with pytest.raises(UsageError, match=r"--data\.decoder is 'fast'; it must be 'exact'"):
        DataConfig(decoder="fast").check_mask()
