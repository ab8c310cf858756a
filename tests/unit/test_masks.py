"""Images with masks: the layout, the classes, and every mistake by name."""

from __future__ import annotations

import io
import itertools
import os
import re
import shutil
import zlib
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from fmjax.config.data import DataConfig
from fmjax.config.schemes import SCHEMES
from fmjax.data import audit
from fmjax.data.batches import BadImages, eval_batches, train_batches
from fmjax.data.classes import read_classes
from fmjax.data.example import check_fields
from fmjax.data.images import Unreadable
from fmjax.data.masks import IGNORED, WrongMask, read
from fmjax.data.sources import open_source
from fmjax.data.split import (
    compare,
    divide,
    held_out,
    joined,
    part_of,
    read_split,
    relabelled,
    write_split,
)
from fmjax.data.transforms import Views, fit
from fmjax.errors import DataError, UsageError, exit_code
from fmjax.preprocessing import PreprocessConfig
from tests.security.pictures import chunk, png

SMALL = PreprocessConfig(image_size=(16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
VIEW = Views(SMALL, 0.5, 0.5)
SIZE = (20, 24)


def values(highest: int, dtype=np.uint8) -> np.ndarray:
    """Classes 0 to highest, and a row of ignored pixels."""
    mask = np.random.default_rng(0).integers(0, highest + 1, SIZE).astype(dtype)
    mask[0], mask[1, 0], mask[-1] = 0, highest, 255
    return mask


def marked(highest: int) -> np.ndarray:
    """The same, as a view is given it."""
    mask = values(highest, np.uint16)
    return np.where(mask == 255, np.uint16(IGNORED), mask)


def add(part, name: str, mask: np.ndarray, image: str = "jpg") -> None:
    for kind in ("images", "masks"):
        (part / kind).mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(list((part / "images").iterdir()))).integers(
        0, 256, (*mask.shape, 3), np.uint8
    )
    Image.fromarray(pixels).save(part / "images" / f"{name}.{image}")
    Image.fromarray(mask).save(part / "masks" / f"{name}.png")


@pytest.fixture
def scenes(tmp_path):
    """Ten images with masks of three classes."""
    root = tmp_path / "scenes"
    for i in range(10):
        add(root, f"scene {i}", values(2))
    (root / "classes.txt").write_text("sky\nroad\ncar\n")
    return root


def config(root, **changed) -> DataConfig:
    return DataConfig(source=f"masks:{root}", **changed)


def opened(root, **changed):
    return open_source(config(root, **changed))


def sentence(root, **changed) -> str:
    """What is said where the first pass over all examples stops."""
    with pytest.raises(DataError) as error:
        list(
            eval_batches(opened(root, **changed).train, VIEW, config(root, **changed), batch_size=4)
        )
    assert str(error.value).isprintable()
    return str(error.value)


def test_every_image_has_its_mask_and_the_classes_their_names(scenes):
    splits = opened(scenes)
    train = splits.train
    assert (len(train), train.classes, splits.val, splits.notes, splits.left_out) == (
        10,
        ("sky", "road", "car"),
        None,
        (),
        (),
    )
    (batch,) = eval_batches(train, VIEW, config(scenes), batch_size=10)
    assert set(batch) == {"image", "mask", "weight", "index", "reason"}
    assert (batch["mask"].shape, batch["mask"].dtype) == ((10, 16, 16), np.uint16)
    assert set(np.unique(batch["mask"])) == {0, 1, 2, IGNORED}
    whole = PreprocessConfig(image_size=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3)
    (batch,) = eval_batches(train, Views(whole), config(scenes), batch_size=10)
    assert all(np.array_equal(mask, marked(2)) for mask in batch["mask"])


def test_training_is_the_same_for_a_seed_whatever_the_threads(scenes):
    one, four = (
        [next(it) for _ in range(5)]
        for threads in (1, 4)
        for it in [
            train_batches(
                opened(scenes).train, VIEW, config(scenes, threads=threads), batch_size=4, seed=1
            )
        ]
    )
    for first, second in zip(one, four, strict=True):
        assert all(np.array_equal(first[key], second[key]) for key in first)
    assert not np.array_equal(one[0]["mask"][0], one[0]["mask"][1])


def test_parts_have_the_names_that_those_of_folders_have(scenes):
    for part, numbers in (("Training", range(6)), ("valid", range(6, 9)), ("test", range(9, 10))):
        for number in numbers:
            for kind, suffix in (("images", "jpg"), ("masks", "png")):
                (scenes / part / kind).mkdir(parents=True, exist_ok=True)
                (scenes / kind / f"scene {number}.{suffix}").rename(
                    scenes / part / kind / f"{number}.{suffix}"
                )
    (scenes / "images").rmdir()
    (scenes / "masks").rmdir()
    splits = opened(scenes)
    assert splits.val is not None
    assert (len(splits.train), len(splits.val)) == (6, 3)
    assert splits.val.classes == ("sky", "road", "car")
    assert splits.notes == (
        f"test/ is left out; to score a run on it, name it: masks:{scenes / 'test'}",
    )
    assert splits.left_out == ()
    assert len(opened(scenes / "test").train) == 1
    shutil.copy(scenes / "Training" / "images" / "0.jpg", scenes / "valid" / "images" / "8.jpg")
    line = audit.lines(opened(scenes), splits.train, splits.val)[-1]
    assert line.startswith(
        "1 of 3 val images are in train too, byte for byte (valid/images/8.jpg is "
    )


def test_a_part_is_drawn_once_and_found_again_by_names_and_sizes(scenes, tmp_path):
    data = config(scenes)
    images = divide(opened(scenes), data, None)
    assert (len(images.train), len(images.val)) == (8, 2)
    assert not set(images.split.train.names) & set(images.split.val.names)
    (tmp_path / "run").mkdir()
    write_split(tmp_path / "run", images.split)
    split = read_split(tmp_path / "run")
    assert split is not None
    again = divide(opened(scenes), data, split)
    assert [again.val.names(i) for i in range(2)] == [images.val.names(i) for i in range(2)]
    assert [path.stem for path in again.val.masks] == [path.stem for path in again.val.files]
    read_back = again.val.read(1)
    assert read_back["mask"] == scenes / "masks" / f"{read_back['image'].stem}.png"
    everything = relabelled(joined(opened(scenes)), ("sky", "road", "car"))
    assert len(held_out(everything, data, split)[0]) == 2


def test_a_mask_that_changed_is_told_by_its_image(scenes):
    data = config(scenes)
    split = divide(opened(scenes), data, None).split
    add(scenes, "scene 3", np.zeros(SIZE, np.uint8))
    changes = compare(split, part_of(opened(scenes).train, data.source))
    assert changes.changed == ["images/scene 3.jpg"]
    with pytest.raises(
        DataError, match="is not what the run was trained on: 1 of another size or class"
    ):
        divide(opened(scenes), data, split)


def test_values_of_a_run_must_mean_its_classes(scenes):
    everything = joined(opened(scenes))
    with pytest.raises(
        DataError, match=r"the masks have 3 classes \('sky', 'road', 'car'\) and the run 2 "
    ):
        relabelled(everything, ("sky", "road"))
    with pytest.raises(
        DataError, match=r"classes\.txt names 3 classes \(sky, road, car\) and the model knows 3 "
    ):
        open_source(config(scenes), ("road", "sky", "car"))
    assert open_source(config(scenes), ("sky", "road", "car")).train.classes == (
        "sky",
        "road",
        "car",
    )
    (scenes / "classes.txt").unlink()
    assert open_source(config(scenes), ("a", "b", "c", "d")).train.classes == ("a", "b", "c", "d")


def test_without_names_the_classes_are_the_numbers_up_to_the_largest_value_of_all_masks(scenes):
    (scenes / "classes.txt").unlink()
    add(scenes, "last", values(6))
    splits = opened(scenes)
    assert splits.train.classes == tuple("0123456")
    assert splits.notes == (
        f"{scenes} has no classes.txt, so its classes are the numbers up to the largest value in its masks, 0 to 6; "
        f"the file has a name a line, that of value 0 first",
    )
    assert "note" not in "".join(opened(scenes, ignore=6).notes)
    assert len(opened(scenes, ignore=6).train.classes) == 256  # 255 is a class then


def test_an_ignored_value_with_a_name_is_said(scenes):
    (scenes / "masks" / "scene 0.png").unlink()
    add(scenes, "scene 0", np.where(values(2) == 255, 1, values(2)).astype(np.uint8))
    assert opened(scenes, ignore=0).notes == (
        "the value 0 is ignored, so no pixel is of class sky",
    )
    with pytest.raises(UsageError, match=r"--data\.ignore is 65536; it must be 0 to 65535"):
        config(scenes, ignore=65_536)


KINDS = {
    "grey of 8 bits": (lambda m: Image.fromarray(m), {}),
    "palette of 8 bits": (lambda m: paletted(m), {}),
    "palette of 4 bits": (lambda m: paletted(m), {"bits": 4}),
    "palette of 2 bits": (lambda m: paletted(m), {"bits": 2}),
    "transparent palette": (lambda m: paletted(m), {"transparency": 1}),
    "grey of 16 bits": (lambda m: Image.fromarray(m.astype(np.uint16)), {}),
}


def paletted(mask: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask, "L").copy()
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200, 77, 77, 77])
    return image


def content(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_the_value_is_the_class_in_every_kind_of_file(kind):
    make, options = KINDS[kind]
    mask = np.random.default_rng(0).integers(0, 4, SIZE).astype(np.uint8)
    found = read(content(make(mask), **options), name="x")
    assert found.values.dtype == np.uint16
    assert np.array_equal(found.values, mask)


@pytest.mark.parametrize(("bits", "most"), [(1, 1), (2, 3), (4, 15), (8, 255), (16, 65_535)])
def test_grey_of_few_bits_is_not_spread(bits, most):
    """Written by hand, as Pillow writes no grey of 2 and 4 bits: one row, a pixel a byte or less."""
    row = np.arange(8) * most // 7
    packed = np.unpackbits(row.astype(">u2").view(np.uint8).reshape(8, 2), axis=1)[:, 16 - bits :]
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + np.packbits(packed).tobytes()))
    found = read(png(8, 1, bits=bits, content=pixels), name="x")
    assert found.values.tolist() == [row.tolist()]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_are_no_classes(scenes, mode):
    Image.new(mode, SIZE[::-1]).save(scenes / "masks" / "scene 1.png")
    text = sentence(scenes)
    assert "masks/scene 1.png has pixels of the kind " + mode in text
    assert text.endswith(
        "a mask has one channel, whose value is the class; save it as a grey or palette PNG"
    )


def test_another_size_is_named_with_both(scenes):
    Image.new("L", (20, 20)).save(scenes / "masks" / "scene 1.png")
    assert (
        "masks/scene 1.png has 20 x 20 pixels, and its image 24 x 20; save the mask in the size"
        in sentence(scenes)
    )


def test_a_mask_lies_over_the_upright_image(scenes):
    picture = Image.open(scenes / "images" / "scene 1.jpg")
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(scenes / "images" / "scene 1.jpg", exif=exif)
    assert (
        "24 x 20 pixels, and its image by its EXIF orientation, which is applied, 20 x 24; "
        in sentence(scenes)
    )
    Image.fromarray(np.zeros(SIZE[::-1], np.uint8)).save(scenes / "masks" / "scene 1.png")
    assert len(list(eval_batches(opened(scenes).train, VIEW, config(scenes), batch_size=5))) == 2
    Image.fromarray(values(2)).save(scenes / "masks" / "scene 1.png", exif=exif)  # both are turned
    (batch,) = eval_batches(
        opened(scenes).train, lambda e, _: fit(e, SMALL), config(scenes), batch_size=10
    )
    assert np.array_equal(
        batch["mask"][1], fit({**_upright(picture), "mask": np.rot90(marked(2), -1)}, SMALL)["mask"]
    )


def _upright(picture: Image.Image) -> dict:
    return {"image": Image.new("RGB", picture.size[::-1])}


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_value_without_a_class_stops_the_run_by_name(scenes, mode):
    wrong = values(2)
    wrong[5, 5] = 7
    Image.fromarray(wrong).save(scenes / "masks" / "scene 1.png")
    wanted = re.escape(
        "masks/scene 1.png has the value 7, and the 3 classes are 0 to 2; add it to classes.txt or map"
    )
    make = {"train": partial(train_batches, seed=0), "eval": eval_batches}[mode]
    batches = make(opened(scenes).train, VIEW, config(scenes), batch_size=4)
    with pytest.raises(WrongMask, match=wanted) as error:
        list(itertools.islice(batches, 10))
    assert exit_code(error.value) == 3  # what the command line makes of it


def test_a_class_may_be_ignored_and_the_number_of_the_mark_is_no_class(scenes):
    (scenes / "classes.txt").unlink()
    whole = config(scenes, ignore=0)
    (batch,) = eval_batches(opened(scenes, ignore=0).train, VIEW, whole, batch_size=10)
    assert set(np.unique(batch["mask"])) == {1, 2, 255, IGNORED}


def test_the_number_of_ignored_pixels_is_no_class(scenes):
    (scenes / "classes.txt").unlink()
    add(scenes, "highest", np.full(SIZE, 65_535, np.uint16))
    with pytest.raises(
        DataError, match=r"value 65535, and a class is below 65,535; map .*--data\.ignore 65535"
    ):
        opened(scenes)
    assert len(opened(scenes, ignore=65_535).train.classes) == 256


def test_a_value_of_255_is_a_class_where_another_is_ignored(scenes):
    assert "has the value 255, and the 3 classes are 0 to 2" in sentence(scenes, ignore=1)


def test_images_without_masks_are_named(scenes):
    for number in range(5):
        (scenes / "masks" / f"scene {number}.png").unlink()
    with pytest.raises(DataError) as error:
        opened(scenes)
    assert str(error.value) == (
        f"there is no mask for 5 images of {scenes}/images: scene 0.jpg, scene 1.jpg, scene 2.jpg and 2 more; "
        f"put a PNG of the same name into masks/, or take the image out"
    )


def test_masks_in_jpeg_are_refused(scenes):
    Image.fromarray(values(2)).save(scenes / "masks" / "scene 1.jpg")
    assert [(row.reason, row.count) for row in opened(scenes).left_out] == [
        ("masks that are no PNG", 1)
    ]
    (scenes / "masks" / "scene 1.png").unlink()
    with pytest.raises(
        DataError, match=r"has masks in JPEG \(scene 1\.jpg\), which changes values; save them as"
    ):
        opened(scenes)
    (scenes / "masks" / "scene 1.jpg").rename(scenes / "masks" / "scene 1.png")
    assert "masks/scene 1.png is no PNG, or its header is damaged; save masks as PNG" in sentence(
        scenes
    )


def test_what_is_no_pair_is_left_out_and_said(scenes):
    (scenes / "images" / "scene 9.jpg").unlink()
    (scenes / "more").mkdir()
    (scenes / "readme.txt").touch()
    splits = opened(scenes)
    rows = {row.reason: (row.count, row.example) for row in splits.left_out}
    assert rows == {
        "masks without an image": (1, "masks/scene 9.png"),
        "folders beside images/": (1, "more"),
        "with another suffix": (1, "readme.txt"),
    }
    assert audit.lines(splits, splits.train, None)[0].startswith("left out: ")


def test_folders_below_images_have_their_masks_in_folders_of_the_same_name(tmp_path):
    for city in ("a", "b"):
        add(tmp_path, "x", values(1))
        for kind, suffix in (("images", "jpg"), ("masks", "png")):
            (tmp_path / kind / city).mkdir()
            (tmp_path / kind / f"x.{suffix}").rename(tmp_path / kind / city / f"x.{suffix}")
    train = opened(tmp_path).train
    assert (
        [path.parent.name for path in train.masks]
        == [path.parent.name for path in train.files]
        == ["a", "b"]
    )


def test_mistakes_of_the_layout_say_what_to_do(scenes, tmp_path):
    with pytest.raises(
        DataError, match=r"no folder .*/nothing; pass masks:DIR with DIR/images and DIR/masks"
    ):
        opened(tmp_path / "nothing")
    Image.new("RGB", SIZE[::-1]).save(scenes / "images" / "scene 1.png")
    with pytest.raises(
        DataError, match=r"has scene 1\.jpg and scene 1\.png, whose mask would be one file"
    ):
        opened(scenes)
    shutil.rmtree(scenes / "masks")
    with pytest.raises(DataError, match=r"scenes has no masks/; pass masks:DIR"):
        opened(scenes)
    (scenes / "masks").mkdir()
    (scenes / "images").rename(scenes / "train")
    (scenes / "images").mkdir()
    with pytest.raises(DataError, match="images has no images; add some"):
        opened(scenes)
    (scenes / "train").rename(scenes / "images" / "train")
    with pytest.raises(
        DataError, match="images has train/ in it; put the parts above: train/images, train/masks"
    ):
        opened(scenes)


NAMES = {
    "": "is empty; write a class name a line, that of value 0 first",
    "\n\n": "is empty; write a class name a line",
    "sky\n\ncar\n": "has no name in line 2; each value needs one, from 0 on",
    "sky\nroad\nSky \n": "has the name 'Sky' in lines 1 and 3; rename one",
    "sky\n": "has 1 names; segmentation needs two to 65,535",
    "x\n" * 3_000_000: "cannot be read: it has more than 4,194,304 bytes",
    b"\xff\xfe\x00": "cannot be read: 'utf-8' codec can't decode",
}


@pytest.mark.parametrize("text", NAMES, ids=range(len(NAMES)))
def test_names_that_cannot_be_told_are_refused(scenes, text):
    (scenes / "classes.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=re.escape(f"classes.txt {NAMES[text]}")):
        opened(scenes)


def test_names_are_read_as_other_systems_write_them(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffsky\r\n grün \r\n".encode())
    assert read_classes(path) == ("sky", "grün")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="cannot be read: it is a pipe, socket or device"):
        read_classes(path)


@pytest.mark.parametrize("named", [True, False])
def test_a_part_whose_pixels_are_all_ignored_is_refused(scenes, named):
    for path in (scenes / "masks").iterdir():
        Image.fromarray(np.full(SIZE, 255, np.uint8)).save(path)
    if not named:
        (scenes / "classes.txt").unlink()
    with pytest.raises(
        DataError,
        match=r"no pixel in the 10 masks of .*/masks is of a class: .* value 255 only; save",
    ):
        opened(scenes)


def test_a_mask_of_black_and_white_is_no_mask_of_two_classes(scenes):
    (scenes / "classes.txt").unlink()
    for path in (scenes / "masks").iterdir():
        Image.fromarray(np.where(values(1) == 1, 255, 0).astype(np.uint8)).save(path)
    with pytest.raises(
        DataError, match="have the value 0 and the ignored 255 only; segmentation needs two classes"
    ):
        opened(scenes)


def test_a_damaged_mask_is_an_unreadable_example_without_a_pixel_of_a_class(scenes):
    path = scenes / "masks" / "scene 1.png"
    path.write_bytes(path.read_bytes()[:80])
    (scenes / "masks" / "scene 2.png").write_bytes(b"")
    (scenes / "images" / "scene 3.jpg").write_bytes(b"x")
    train = opened(scenes).train
    batches = list(eval_batches(train, VIEW, config(scenes), batch_size=12))
    told = BadImages(train, 3).add(batches[0])
    assert [line.split(": ")[1] for line in told[:2]] == [
        "its mask scene 1.png",
        "its mask scene 2.png",
    ]
    assert told[1].endswith("scene 2.jpg: its mask scene 2.png: the file is empty")
    assert "scene 3.jpg: it is no JPEG" in told[2]
    empty = [1, 2, 3, 10, 11]  # the last two are padding
    assert [i for i in range(12) if batches[0]["weight"][i] == 0] == empty
    assert (batches[0]["mask"][empty] == IGNORED).all()
    assert not batches[0]["image"][empty].any()


def test_masks_lie_within_the_bounds_of_pictures(scenes):
    (scenes / "masks" / "scene 1.png").write_bytes(png(9_000, 9_000))
    with pytest.raises(
        Unreadable, match="it has 9000 x 9000 pixels, more than the 50,000,000 that a PNG may have"
    ):
        read(scenes / "masks" / "scene 1.png", name="x")
    with pytest.raises(
        Unreadable, match="it has 24 x 20 pixels, more than the 100 that a PNG may have"
    ):
        read(scenes / "masks" / "scene 2.png", name="x", max_pixels=100)
    (scenes / "masks" / "scene 1.png").unlink()
    os.mkfifo(scenes / "masks" / "scene 1.png")
    with pytest.raises(Unreadable, match="it is a pipe, socket or device"):
        read(scenes / "masks" / "scene 1.png", name="x")
    with pytest.raises(DataError, match=r"there is no mask for 1 image of .*: scene 1\.jpg"):
        opened(scenes)


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4)), np.zeros((4, 4, 1), int), np.full((4, 4), -1), np.zeros((0, 4), int)],
)
def test_arrays_that_are_no_masks_are_refused(array):
    with pytest.raises(
        WrongMask,
        match=r"the mask of x, an array of .* is no mask; pass integers \[height, width\]",
    ):
        read(array, name="x")
    assert read(np.full((2, 3), 65_535, np.int64), name="x").values.tolist() == [[65_535] * 3] * 2


def test_a_classifier_says_that_masks_are_no_labels(scenes):
    train = opened(scenes).train
    assert train.field_names == ("image", "mask")
    with pytest.raises(
        DataError, match=r"masks:x has image, mask and no label, which is needed here"
    ):
        check_fields(train, ("image", "label"), source="masks:x")
    check_fields(replace(train, labelled=True), ("image", "label", "mask"), source="masks:x")


def test_a_wrong_source_is_told_all_that_there_are():
    for wrong in ("nothing", "digits:x", "masks", "masks:", "folder:", ""):
        with pytest.raises(UsageError) as error:
            DataConfig(source=wrong)
        *most, last = [f'"{name}:{row.place}"'.replace(':"', '"') for name, row in SCHEMES.items()]
        told = f"{', '.join(most)} or {last}"
        assert str(error.value) == f"--data.source is {wrong!r}; it must be {told}"
