"""Sources, splits, and batches that do not depend on how they are made."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fmjax.config import DataConfig
from fmjax.data.pipeline import BadImages, crop_box, eval_batches, train_batches
from fmjax.data.sources import digits, image_folder, open_source, stratified, tensorflow_dataset
from fmjax.errors import DataError
from fmjax.preprocessing import PreprocessConfig

SMALL = PreprocessConfig(image_size=(16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(tmp_path / split / name / f"{i}.png")
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
    with pytest.raises(DataError, match=r"has classes that .* have not: horse"):
        image_folder(folder)
    (folder / "train" / "horse").mkdir()
    with pytest.raises(DataError, match="classes without images: horse"):
        image_folder(folder)
    with pytest.raises(DataError, match="no class folders"):
        image_folder(folder / "train" / "cat")
    with pytest.raises(DataError, match="no folder"):
        image_folder(folder / "nothing")


def test_one_class_or_one_image_is_not_enough(folder):
    for path in (folder / "train" / "dog").iterdir():
        path.unlink()
    (folder / "train" / "dog").rmdir()
    with pytest.raises(DataError, match="has one class, cat"):
        image_folder(folder / "train")
    source = digits()
    with pytest.raises(DataError, match="two images of every class"):
        stratified(source.subset(np.flatnonzero(source.labels)), 0.2, 0)


def batches(folder, threads: int, count: int):
    config = DataConfig(source=f"folder:{folder}", threads=threads)
    iterator = train_batches(image_folder(folder).train, config, SMALL, batch_size=5, seed=3)
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


def test_position_continues_where_it_was(folder):
    config = DataConfig(source=f"folder:{folder}")
    source = image_folder(folder).train
    expected = batches(folder, 4, 6)
    iterator = train_batches(source, config, SMALL, batch_size=5, seed=3)
    for _ in range(3):
        next(iterator)
    fresh = train_batches(source, config, SMALL, batch_size=5, seed=3)
    fresh.set_state(iterator.get_state())
    assert all(same(next(fresh), batch) for batch in expected[3:])


def test_every_image_is_evaluated_once_and_the_rest_is_padding(folder):
    rows = list(eval_batches(image_folder(folder).train, DataConfig(), SMALL, batch_size=5))
    index = np.concatenate([batch["index"] for batch in rows])
    assert index.tolist() == [*range(12), -1, -1, -1]
    assert np.concatenate([batch["weight"] for batch in rows]).tolist() == [1.0] * 12 + [0.0] * 3


def test_unreadable_images_are_named_counted_and_have_no_weight(folder):
    (folder / "train" / "cat" / "0.png").write_bytes(b"<html>")
    source = image_folder(folder).train
    bad = BadImages(source, 1)
    rows = list(eval_batches(source, DataConfig(), SMALL, batch_size=12))
    assert rows[0]["weight"].tolist() == [0.0] + [1.0] * 11
    assert [name.endswith("cat/0.png") for name in bad.add(rows[0])] == [True]
    assert bad.add(rows[0]) == []
    with pytest.raises(DataError, match=r"more than --data\.max-bad 0"):
        BadImages(source, 0).add(rows[0])


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
    batch = next(iter(eval_batches(splits.val, DataConfig(), SMALL, batch_size=20)))
    assert batch["weight"].all()
    assert sorted(batch["label"]) == sorted(digits().labels[60:80])  # TFDS shuffles what it writes
    with pytest.raises(DataError, match="tfds:no_such_set cannot be prepared"):
        tensorflow_dataset("no_such_set", str(tmp_path))
