"""From a picture to what the network sees, against the originals' own transforms."""

from __future__ import annotations

import contextlib
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import fmjax
from fmjax.errors import DataError, UsageError
from fmjax.preprocessing import decode, normalise, preprocess, preprocess_config, resize
from tests.support import torch_reference
from tests.support.real_images import photographs

PHOTOGRAPHS = photographs()
assert torch_reference  # declares what torchvision needs before it is imported


def theirs_open_clip(config, mode):
    from open_clip.transform import image_transform

    size = config.image_size[0]
    return image_transform(size, is_train=False, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode)


@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
@pytest.mark.parametrize(
    "name", ["ViT-B-16.openai", "ViT-H-14.dfn5b", "EVA02-L-14-336.merged2b_s6b_b61k"]
)
def test_open_clip_within_one_grey_level(name, photograph):
    config, image = preprocess_config(name), Image.fromarray(PHOTOGRAPHS[photograph])
    expected = theirs_open_clip(config, config.resize_mode)(image).permute(1, 2, 0).numpy() * 255
    assert np.abs(resize(decode(image), config).astype(float) - expected).max() <= 1.001


@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
def test_timm_within_one_grey_level(photograph):
    from timm.data import create_transform

    config, image = (
        preprocess_config("dinov2_vits14.lvd142m"),
        Image.fromarray(PHOTOGRAPHS[photograph]),
    )
    transform = create_transform(
        224, interpolation="bicubic", crop_pct=0.875, mean=(0, 0, 0), std=(1, 1, 1)
    )
    expected = transform(image).permute(1, 2, 0).numpy() * 255
    assert np.abs(resize(decode(image), config).astype(float) - expected).max() <= 1.001


def test_normalise_is_the_definition():
    config = preprocess_config("ViT-B-16.openai")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    expected = (pixels / 255 - config.mean) / config.std
    assert np.abs(np.asarray(normalise(jnp.asarray(pixels), config)) - expected).max() < 1e-6


def test_paths_bytes_arrays_and_pil_images_give_the_same(tmp_path):
    config, array = preprocess_config("ViT-B-16.openai"), PHOTOGRAPHS["chelsea"]
    image = Image.fromarray(array)
    image.save(tmp_path / "cat.png")
    forms = [tmp_path / "cat.png", (tmp_path / "cat.png").read_bytes(), image, array]
    found = np.asarray(preprocess(forms, config))
    assert found.shape == (4, 224, 224, 3)
    assert np.array_equal(found, np.broadcast_to(found[0], found.shape))
    assert preprocess(array, config).shape == (1, 224, 224, 3)


def test_sixteen_bits_rotation_and_transparency_follow_the_rules():
    deep = Image.fromarray(np.full((4, 4), 65535 // 2, np.uint16))
    assert np.asarray(decode(deep))[0, 0].tolist() == [127, 127, 127]
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert np.asarray(decode(clear)).min() == 255
    buffer, tag = io.BytesIO(), Image.Exif()
    tag[0x0112] = 6  # stored lying on its side
    Image.new("RGB", (8, 4)).save(buffer, "JPEG", exif=tag)
    assert decode(buffer.getvalue()).size == (4, 8)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n broken"])
def test_an_unreadable_image_is_named(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.png is not a readable image"):
        decode(path)


def test_a_model_remembers_which_weights_it_was_asked_for():
    shapes = jax.eval_shape(lambda: fmjax.create("ViT-L-14.laion2b_s32b_b82k"))
    assert preprocess_config(shapes) == preprocess_config("ViT-L-14.laion2b_s32b_b82k")
    assert preprocess_config(shapes).mean == (0.5, 0.5, 0.5)
    shapes = jax.eval_shape(lambda: fmjax.create("ViT-H-14"))
    with pytest.raises(UsageError, match="differ in their preprocessing"):
        preprocess_config(shapes)


def test_a_damaged_exif_block_is_an_unreadable_image_and_not_a_crash():
    buffer, tag = io.BytesIO(), Image.Exif()
    tag[0x0112] = 6
    Image.new("RGB", (8, 4)).save(buffer, "JPEG", exif=tag)
    whole = buffer.getvalue()
    start = whole.index(b"Exif")
    for i in range(start, start + 40):
        with contextlib.suppress(DataError):
            decode(whole[:i] + b"\xff" + whole[i + 1 :])


def test_a_size_that_does_not_fit_names_the_nearest():
    with pytest.raises(
        UsageError, match=r"multiples of its patch of 14, got 225 x 224; nearest: 224 or 238 x 224"
    ):
        preprocess_config("dinov2_vits14.lvd142m", (225, 224))
    with pytest.raises(UsageError, match="differ in their preprocessing"):
        preprocess_config("ViT-L-14")
    assert fmjax.preprocess_config("dinov2_vits14", 518).image_size == (518, 518)
