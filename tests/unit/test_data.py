"""Sources, splits, and batches that do not depend on how they are made."""

from __future__ import annotations

import os
import re
import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image

from fmjax.config.data import DataConfig
from fmjax.data import audit
from fmjax.data.batches import BadImages, eval_batches, train_batches
from fmjax.data.example import Examples, stratified
from fmjax.data.images import AVIF
from fmjax.data.sources import open_source
from fmjax.data.sources.digits import digits
from fmjax.data.sources.folder import image_folder
from fmjax.data.sources.tfds import tensorflow_dataset
from fmjax.data.transforms import Views, crop_box
from fmjax.errors import DataError, UsageError, escaped
from fmjax.preprocessing import PreprocessConfig
from tests.security.pictures import noise, png, saved

SMALL = PreprocessConfig(image_size=(16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
VIEW = Views(SMALL, DataConfig().crop_scale, DataConfig().flip)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(
                    tmp_path / split / name / f"{i}.png"
                )
    (tmp_path / "train" / ".DS_Store").touch()
    (tmp_path / "train" / "__MACOSX").mkdir()
    return tmp_path


def test_split_is_stratified_disjoint_and_repeatable():
    source = digits()
    train, val = stratified(source, 0.2, 0)
    assert len(train) + len(val) == len(source) == 1797
    names = {val.names(i) for i in range(len(val))}
    assert not names & {train.names(i) for i in range(len(train))}
    assert np.abs(np.bincount(val.labels) / np.bincount(source.labels) - 0.2).max() < 0.01
    assert np.array_equal(val.labels, stratified(source, 0.2, 0)[1].labels)


def test_folder_with_and_without_val(folder):
    splits = image_folder(folder)
    assert splits.val is not None
    assert (len(splits.train), len(splits.val), splits.train.classes) == (12, 6, ("cat", "dog"))
    alone = image_folder(folder / "train")
    assert alone.val is None
    assert len(open_source(DataConfig(source=f"folder:{folder}")).train) == 12


def test_folder_mistakes_say_what_to_do(folder):
    (folder / "val" / "horse").mkdir()
    with pytest.raises(DataError, match=r"has classes that .* has not: horse"):
        image_folder(folder)
    (folder / "train" / "horse").mkdir()
    with pytest.raises(DataError, match="classes without images: horse"):
        image_folder(folder)
    with pytest.raises(DataError, match="no class folders"):
        image_folder(folder / "train" / "cat")
    with pytest.raises(DataError, match="no folder"):
        image_folder(folder / "nothing")


def test_a_list_of_classes_may_name_some_that_have_no_images(folder, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("dog\nwolf\ncat\n")
    splits = open_source(DataConfig(source=f"folder:{folder / 'train'}", classes=str(names)))
    train, val = splits.both(0.2, 0)
    assert train.classes == val.classes == ("dog", "wolf", "cat")
    assert np.bincount(train.labels, minlength=3).tolist() == [5, 0, 5]


def test_one_class_or_one_image_is_not_enough(folder):
    for path in (folder / "train" / "dog").iterdir():
        path.unlink()
    (folder / "train" / "dog").rmdir()
    with pytest.raises(DataError, match="has one class, cat"):
        image_folder(folder / "train")
    source = digits()
    with pytest.raises(DataError, match="two images of every class"):
        # one zero, and all others
        stratified(source.subset(np.append(0, np.flatnonzero(source.labels))), 0.2, 0)


def batches(folder, threads: int, count: int):
    config = DataConfig(source=f"folder:{folder}", threads=threads)
    iterator = train_batches(image_folder(folder).train, VIEW, config, batch_size=5, seed=3)
    return [next(iterator) for _ in range(count)]


def same(one, other) -> bool:
    return all(np.array_equal(one[key], other[key]) for key in one)


def test_batches_do_not_depend_on_threads_and_differ_between_epochs(folder):
    one, four = batches(folder, 1, 7), batches(folder, 4, 7)
    assert all(same(a, b) for a, b in zip(one, four, strict=True))
    first = np.concatenate([b["index"] for b in one])[:12]
    second = np.concatenate([b["index"] for b in one])[12:24]
    assert sorted(first) == sorted(second) == list(range(12))
    assert not np.array_equal(first, second)
    assert one[0]["image"].shape == (5, 16, 16, 3)
    assert one[0]["image"].dtype == np.uint8


def test_a_run_of_so_many_steps_reads_nothing_behind_them(folder):
    config, read = DataConfig(threads=4), []

    def view(example, rng):
        read.append(1)
        return VIEW(example, rng)

    some = train_batches(image_folder(folder).train, view, config, batch_size=5, seed=3, steps=2)
    assert all(same(*pair) for pair in zip(some, batches(folder, 1, 2), strict=True))
    # and the one whose shapes they all have
    assert len(read) == 11


def test_position_continues_where_it_was(folder):
    config = DataConfig(source=f"folder:{folder}")
    source = image_folder(folder).train
    expected = batches(folder, 4, 6)
    iterator = train_batches(source, VIEW, config, batch_size=5, seed=3)
    for _ in range(3):
        next(iterator)
    fresh = train_batches(source, VIEW, config, batch_size=5, seed=3)
    fresh.set_state(iterator.get_state())
    assert all(same(next(fresh), batch) for batch in expected[3:])


def test_every_image_is_evaluated_once_and_the_rest_is_padding(folder):
    rows = list(eval_batches(image_folder(folder).train, VIEW, DataConfig(), batch_size=5))
    index = np.concatenate([batch["index"] for batch in rows])
    assert index.tolist() == [*range(12), -1, -1, -1]
    assert np.concatenate([batch["weight"] for batch in rows]).tolist() == [1.0] * 12 + [0.0] * 3


def test_unreadable_images_are_named_counted_and_have_no_weight(folder):
    (folder / "train" / "cat" / "0.png").write_bytes(b"<html>")
    source = image_folder(folder).train
    bad = BadImages(source, 1)
    rows = list(eval_batches(source, VIEW, DataConfig(), batch_size=12))
    assert rows[0]["weight"].tolist() == [0.0] + [1.0] * 11
    (told,) = bad.add(rows[0])
    assert re.search(r"cat/0\.png: it is no JPEG, PNG, WebP, .* or its header is damaged$", told)
    assert bad.add(rows[0]) == []
    with pytest.raises(DataError, match=r"more than --data\.max-bad 0"):
        BadImages(source, 0).add(rows[0])


BAD = {
    "empty.png": (b"", "the file is empty"),
    "half.jpg": (noise(64, 64, "JPEG")[:2_000], "image file is truncated"),
    "large.png": (
        png(9_000, 9_000),
        "it has 9000 x 9000 pixels, more than the 50,000,000 that a PNG may have",
    ),
    "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n{} loop\n", "it is no JPEG, PNG"),
    "esc\x1b[2J.png": (b"x", "it is no JPEG, PNG"),
}


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_each_unreadable_image_is_named_with_its_reason_in_training_and_evaluation(folder, mode):
    for name, (content, _) in BAD.items():
        (folder / "train" / "cat" / name).write_bytes(content)
    (folder / "train" / "dog" / "gone.png").write_bytes(b"x")
    source, config = image_folder(folder).train, DataConfig()
    (folder / "train" / "dog" / "gone.png").unlink()
    os.mkfifo(folder / "train" / "dog" / "gone.png")  # what was a file when it was listed
    make = {"train": partial(train_batches, seed=0), "eval": eval_batches}[mode]
    batch = next(iter(make(source, VIEW, config, batch_size=len(source))))
    told = BadImages(source, 10).add(batch)
    assert len(told) == len(BAD) + 1 == int((batch["weight"] == 0).sum())
    for name, reason in [
        *((name, row[1]) for name, row in BAD.items()),
        ("gone.png", "a pipe, socket or device"),
    ]:
        assert [line for line in told if f"{escaped(name)}: " in line and reason in line], (
            name,
            told,
        )
    assert all(line.isprintable() for line in told)


def test_the_cap_on_pixels_is_a_flag(folder):
    source = image_folder(folder).train
    (batch,) = eval_batches(source, VIEW, DataConfig(max_pixels=479), batch_size=12)
    assert batch["weight"].sum() == 0
    assert set(batch["reason"].tolist()) == {
        "it has 24 x 20 pixels, more than the 479 that a PNG may have; make it smaller, or raise --data.max-pixels"
    }
    with pytest.raises(UsageError, match=r"--data\.max-pixels is 0; it must be 1 to 89478485"):
        DataConfig(max_pixels=0)


@pytest.mark.parametrize(
    "error", [ValueError("height and width must be > 0"), OverflowError(), MemoryError()]
)
def test_an_error_of_the_transform_is_a_bad_image(folder, error):
    def view(example, rng):
        if example["image"].size == (24, 20):  # that of the folder's images
            raise error
        return VIEW(example, rng)

    source = image_folder(folder).train
    (batch,) = eval_batches(source, view, DataConfig(), batch_size=12)
    assert "it cannot be resized: " in BadImages(source, 12).add(batch)[0]
    assert not batch["image"].any()
    assert batch["label"].tolist() == source.labels.tolist()


def test_what_was_unreadable_is_saved_with_a_run(folder):
    (folder / "train" / "cat" / "0.png").write_bytes(b"x")
    (folder / "train" / "dog" / "2.png").write_bytes(b"x")
    source = image_folder(folder).train
    (batch,) = eval_batches(source, VIEW, DataConfig(), batch_size=12)
    bad, resumed = BadImages(source, 2), BadImages(source, 2)
    assert len(bad.add(batch)) == 2
    assert bad.get_state() == [0, 8]
    resumed.set_state(bad.get_state())
    assert resumed.add(batch) == []
    fewer = BadImages(source, 1)
    fewer.set_state([3])
    with pytest.raises(DataError, match=r"3 unreadable images, more than --data\.max-bad 1"):
        fewer.add(batch)


def test_a_batch_has_the_fields_that_the_view_gives(folder):
    def view(example, rng):
        return {
            "pair": np.stack([np.asarray(example["image"].resize((4, 4)))] * 2),
            "seen": np.int64(rng is not None),
        }

    (folder / "train" / "cat" / "0.png").write_bytes(b"x")
    source = image_folder(folder).train
    (batch,) = eval_batches(source, view, DataConfig(), batch_size=13)
    assert set(batch) == {"pair", "seen", "weight", "index", "reason"}
    assert batch["pair"].shape == (13, 2, 4, 4, 3)
    assert [i for i in range(13) if not batch["pair"][i].any()] == [0, 12]
    assert (
        next(train_batches(source, view, DataConfig(), batch_size=12, seed=0))["seen"].sum() == 11
    )


@pytest.mark.parametrize("name", ["val", "valid", "validation", "VAL", "Valid", "ValiDation"])
def test_the_validation_part_has_many_spellings(folder, name):
    (folder / "val").rename(folder / name)
    (folder / "train").rename(folder / "Train")
    splits = image_folder(folder)
    assert splits.val is not None
    assert (len(splits.train), len(splits.val)) == (12, 6)


def test_a_test_part_is_left_out_and_can_be_named(folder):
    (folder / "val").rename(folder / "Test")
    splits = image_folder(folder)
    assert splits.val is None
    assert splits.notes == (
        f"Test/ is left out; to score a run on it, name it: folder:{folder / 'Test'}",
    )
    assert len(image_folder(folder / "Test").train) == 6


def test_all_that_is_left_out_is_one_line_with_reasons(folder):
    (folder / "train" / "cat" / "x.heic").touch()
    (folder / "train" / "dog" / "none").touch()
    Image.new("RGB", (4, 4)).save(folder / "alone.png")
    splits = image_folder(folder)
    rows = {row.reason: (row.count, row.example) for row in splits.left_out}
    assert rows == {
        "outside the class folders": (1, "alone.png"),
        "hidden or of the system": (2, "train/.DS_Store"),
        "with another suffix": (1, "train/cat/x.heic"),
        "without a suffix": (1, "train/dog/none"),
    }
    (line,) = audit.lines(splits, splits.train, splits.val)
    assert line.startswith("left out: 1 outside the class folders (alone.png), ")


def test_avif_is_an_image_where_pillow_reads_it_and_is_counted_where_not(folder):
    content = saved(Image.new("RGB", (16, 16), (255, 0, 0)), "AVIF") if AVIF else b"x"
    (folder / "train" / "cat" / "x.avif").write_bytes(content)
    splits = image_folder(folder)
    assert len(splits.train) == 12 + AVIF
    assert [row.example for row in splits.left_out if row.reason == "with another suffix"] == [
        "train/cat/x.avif"
    ] * (not AVIF)
    assert (
        next(iter(eval_batches(splits.train, VIEW, DataConfig(), batch_size=13)))["weight"].sum()
        == 12 + AVIF
    )


def test_duplicates_of_train_in_val_are_named_for_a_split_of_ones_own_too(folder):
    shutil.rmtree(folder / "val")
    for number in range(4):
        shutil.copy(
            folder / "train" / "cat" / "0.png", folder / "train" / "cat" / f"copy{number}.png"
        )
    splits = image_folder(folder)
    train, val = splits.both(0.5, 0)
    twins = {path.read_bytes() for path in train.files} & {path.read_bytes() for path in val.files}
    assert len(twins) == 1
    count = sum(path.read_bytes() in twins for path in val.files)
    line = audit.lines(splits, train, val)[-1]
    assert line.startswith(f"{count} of {len(val)} val images are in train too, byte for byte (")


def test_only_files_whose_size_is_on_both_sides_are_read(folder, monkeypatch):
    opened = []
    monkeypatch.setattr(
        audit, "_digest", lambda path, count: opened.append(path) or path.read_bytes()[:count]
    )
    one, other = folder / "train" / "cat" / "0.png", folder / "val" / "dog" / "1.png"
    for number, path in enumerate([*folder.glob("train/*/*.png"), *folder.glob("val/*/*.png")]):
        path.write_bytes(b"x" * (number + 1))
    one.write_bytes(b"y" * 100)
    other.write_bytes(b"z" * 100)
    assert audit.shared(list(folder.glob("train/*/*.png")), list(folder.glob("val/*/*.png"))) == (
        [],
        True,
    )
    assert sorted(opened) == [one, other]


def test_work_on_duplicates_is_bounded_and_says_so(folder, monkeypatch):
    train, val = folder / "train" / "cat", folder / "val" / "cat"
    for number in range(3):
        shutil.copy(train / f"{number}.png", val / f"{number}.png")
    splits = image_folder(folder)
    assert "3 of 6 val images" in audit.shared_line(splits.train, splits.val)
    monkeypatch.setattr(audit, "MOST_BYTES", 3 * (train / "0.png").stat().st_size)
    assert re.match(r"at least [12] of 6 val images", audit.shared_line(splits.train, splits.val))


def test_a_run_of_fewer_classes_fits_a_model_of_more(folder):
    splits = image_folder(folder / "val", ("bird", "cat", "dog"))
    assert splits.train.classes == ("bird", "cat", "dog")
    assert set(splits.train.labels.tolist()) == {1, 2}
    with pytest.raises(DataError, match="has classes that the training set has not: dog"):
        image_folder(folder / "val", ("bird", "cat"))


def test_crops_lie_inside_and_keep_their_share_of_the_area():
    rng = np.random.default_rng(0)
    for _ in range(200):
        left, top, right, bottom = crop_box((60, 40), 0.3, rng)
        assert 0 <= left < right <= 60
        assert 0 <= top < bottom <= 40
        assert (right - left) * (bottom - top) >= 0.25 * 2400


@pytest.mark.filterwarnings("ignore")
def test_tensorflow_dataset_is_prepared_and_read_as_array_record(tmp_path):
    from tests.support.tfds_digits import SmallDigits

    builder = SmallDigits(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare(file_format="array_record")
    assert list(tmp_path.rglob("*.array_record*"))
    splits = tensorflow_dataset("small_digits", str(tmp_path))
    assert splits.val is not None
    assert (len(splits.train), len(splits.val)) == (60, 20)
    batch = next(iter(eval_batches(splits.val, VIEW, DataConfig(), batch_size=20)))
    assert batch["weight"].all()
    assert sorted(batch["label"]) == sorted(digits().labels[60:80])  # TFDS shuffles what it writes
    with pytest.raises(DataError, match="tfds:no_such_set cannot be prepared"):
        tensorflow_dataset("no_such_set", str(tmp_path))


def test_both_parts_of_a_split_keep_an_image_of_every_class():
    labels = np.repeat(np.arange(3, dtype=np.int32), 4)
    source = Examples({"image": lambda i: labels[i]}, labels, ("a", "b", "c"), str)
    for fraction in (0.01, 0.5, 0.95):
        for part in stratified(source, fraction, 0):
            assert set(part.labels) == {0, 1, 2}
