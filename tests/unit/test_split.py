"""The images that a run trains on and those that it is scored on: recorded, found again, missed when they change."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace

import numpy as np
import pytest

from fmjax.config.data import DataConfig
from fmjax.data.example import stratified
from fmjax.data.sources import open_source
from fmjax.data.sources.digits import digits
from fmjax.data.sources.folder import image_folder
from fmjax.data.split import (
    SPLIT,
    Part,
    Split,
    divide,
    held_out,
    is_recorded,
    joined,
    read_split,
    relabelled,
    trained_on,
    write_split,
)
from fmjax.errors import CheckpointError, DataError


def make(folder, classes: int, images: int) -> DataConfig:
    """Files that are listed and measured, and never opened: each has a size of its own."""
    for label in range(classes):
        (folder / f"class {label:03}").mkdir(parents=True)
        for i in range(images):
            (folder / f"class {label:03}" / f"{i}.png").write_bytes(bytes(label * images + i))
    return DataConfig(source=f"folder:{folder}")


def recorded(data: DataConfig, run) -> Split:
    """The record of a new run, after its way through the file."""
    run.mkdir(exist_ok=True)
    write_split(run, divide(open_source(data), data, None).split)
    found = read_split(run)
    assert found is not None
    return found


def names(data: DataConfig, source) -> list[str]:
    folder = data.source.removeprefix("folder:") + os.sep
    return [source.names(i).removeprefix(folder) for i in range(len(source))]


@pytest.fixture
def photos(tmp_path):
    return make(tmp_path / "photos", 4, 10)


def test_one_removed_image_moves_no_trained_image_among_the_held_out(tmp_path):
    data = make(tmp_path / "photos", 100, 50)
    split = recorded(data, tmp_path / "run")
    trained = set(split.train.names)
    assert len(split.val) == 1000
    (tmp_path / "photos" / split.train.names[0]).unlink()
    left = image_folder(tmp_path / "photos")
    drawn_anew = names(data, stratified(left.train, data.val_fraction, data.split_seed)[1])
    assert len(trained & set(drawn_anew)) > 700  # what made a score of it that no one had held out
    source, changes = held_out(joined(left), data, split)
    assert names(data, source) == split.val.names
    assert not trained & set(names(data, source))
    assert changes.removed == [split.train.names[0]]


def test_a_resumed_run_has_the_same_images_in_the_same_order(photos, tmp_path):
    first = divide(open_source(photos), photos, None)
    again = divide(open_source(photos), photos, recorded(photos, tmp_path / "run"))
    assert names(photos, first.train) == names(photos, again.train) == again.split.train.names
    assert names(photos, first.val) == names(photos, again.val) == again.split.val.names
    assert np.array_equal(first.train.labels, again.train.labels)
    assert first.split.digest == again.split.digest


def test_a_resume_without_images_of_the_run_is_refused_with_what_differs(photos, tmp_path):
    split = recorded(photos, tmp_path / "run")
    root = tmp_path / "photos"
    (root / split.train.names[0]).unlink()
    (root / split.val.names[0]).write_bytes(b"another picture" * 100)
    (root / "class 000" / "new\n.png").touch()
    with pytest.raises(DataError) as caught:
        divide(open_source(photos), photos, split)
    text = str(caught.value)
    assert r"1 added ('class 000/new\n.png')" in text
    assert f"1 removed ({split.train.names[0]!r})" in text
    assert f"1 of another size or class ({split.val.names[0]!r})" in text
    assert "restore the files, or pass --fresh" in text


def test_new_images_are_named_and_left_out_of_the_run(photos, tmp_path):
    split = recorded(photos, tmp_path / "run")
    for i in range(5):
        (tmp_path / "photos" / "class 001" / f"00{i}.png").touch()
    images = divide(open_source(photos), photos, split)
    assert images.changes is not None
    assert str(images.changes).startswith("5 added ('class 001/000.png', ")
    assert str(images.changes).endswith(", ...)")
    assert names(photos, images.train) == split.train.names


def test_a_held_out_image_that_is_gone_refuses_the_score(photos, tmp_path):
    split = recorded(photos, tmp_path / "run")
    (tmp_path / "photos" / split.val.names[3]).unlink()
    with pytest.raises(DataError, match=r"lacks some of the run's 8 held-out images: 1 removed"):
        held_out(joined(open_source(photos)), photos, split)


def test_folders_for_validation_are_recorded_and_an_image_that_changed_sides_stays(tmp_path):
    for part in ("train", "val"):
        make(tmp_path / "photos" / part, 2, 4)
    data = DataConfig(source=f"folder:{tmp_path / 'photos'}")
    split = recorded(data, tmp_path / "run")
    assert {name.split("/")[0] for name in split.train.names} == {"train"}
    assert {name.split("/")[0] for name in split.val.names} == {"val"}
    moved = tmp_path / "photos" / split.val.names[0]
    moved.rename(tmp_path / "photos" / "train" / "class 000" / "moved.png")
    with pytest.raises(DataError, match=r"1 added .* 1 removed"):
        divide(open_source(data), data, split)


def test_a_run_without_val_keeps_its_split_where_a_val_folder_appears(tmp_path):
    make(tmp_path / "photos" / "train", 2, 10)
    data = DataConfig(source=f"folder:{tmp_path / 'photos'}")
    split = recorded(data, tmp_path / "run")
    make(tmp_path / "photos" / "val", 2, 3)
    images = divide(open_source(data), data, split)
    assert images.changes is not None
    assert len(images.changes.added) == 6
    assert names(data, images.val) == split.val.names


def test_moved_data_are_the_run_s_own_and_other_images_are_not(photos, tmp_path):
    split = recorded(photos, tmp_path / "run")
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    moved = DataConfig(source=f"folder:{tmp_path / 'elsewhere'}")
    assert is_recorded(joined(open_source(moved)), moved, split)
    (tmp_path / "elsewhere" / split.train.names[5]).unlink()
    assert not is_recorded(joined(open_source(moved)), moved, split)
    seen = trained_on(joined(open_source(moved)), moved.source, split)
    assert sorted(seen) == sorted({*split.train.names} - {split.train.names[5]})


def test_classes_in_another_order_keep_their_names(photos, tmp_path):
    split = recorded(photos, tmp_path / "run")
    everything = joined(open_source(photos))
    turned = relabelled(everything, tuple(reversed(everything.classes)))
    assert [turned.classes[i] for i in turned.labels] == [
        everything.classes[i] for i in everything.labels
    ]
    with pytest.raises(DataError, match="of another size or class"):
        held_out(turned, photos, split)
    source, changes = held_out(relabelled(turned, split.classes), photos, split)
    assert str(changes) == ""
    assert np.array_equal(source.labels, split.val.labels)


def test_sources_without_files_are_recorded_by_name(tmp_path):
    data = DataConfig()
    split = recorded(data, tmp_path / "run")
    assert len(split.train) + len(split.val) == 1797
    assert names(data, divide(open_source(data), data, split).val) == split.val.names
    fewer = joined(open_source(data)).subset(np.arange(1700))
    with pytest.raises(DataError, match="lacks some of the run's 359 held-out images"):
        held_out(fewer, data, split)


def test_odd_names_and_dead_links_come_back(tmp_path):
    data = make(tmp_path / "photos", 2, 3)
    odd = ['"quoted".png', "line\nbreak.png", "\u00e9\u4e2d.png", "#\u2028.png"]
    for name in odd:
        (tmp_path / "photos" / "class 000" / name).touch()
    os.rename(
        tmp_path / "photos/class 000/0.png", os.fsencode(tmp_path) + b"/photos/class 000/\xff.png"
    )
    (tmp_path / "photos" / "class 001" / "dead.png").symlink_to("nowhere")
    images = divide(open_source(data), data, recorded(data, tmp_path / "run"))
    assert images.changes is not None
    assert str(images.changes) == ""
    assert {f"class 000/{name}" for name in odd} < {
        *images.split.train.names,
        *images.split.val.names,
    }


def test_a_run_without_a_record_has_none(tmp_path):
    assert read_split(tmp_path) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text[:-20],
        lambda text: text.replace("class 001", "class 002", 1),
        lambda text: text.replace('"train"', '"val"', 3),
        lambda text: "".join(text.splitlines(keepends=True)[:-1]),
        lambda text: text + text,
        lambda text: text + '["val", "x", 0, 1]\n',
        lambda text: "[" * 100_000 + text,
        lambda text: "\0" * 100 + text[100:],
        lambda text: "3\n" + text,
        lambda text: text.replace('"format": 1', '"format": 2'),
    ],
)
def test_a_damaged_record_is_one_sentence_with_the_way_out(photos, tmp_path, damage):
    recorded(photos, tmp_path / "run")
    path = tmp_path / "run" / SPLIT
    path.write_text(damage(path.read_text()))
    with pytest.raises(CheckpointError, match="put back a copy of it, or delete it") as caught:
        read_split(tmp_path / "run")
    assert str(path) in str(caught.value)


def test_the_record_is_written_whole_or_not_at_all(photos, tmp_path):
    split = recorded(photos, tmp_path / "run")
    before = (tmp_path / "run" / SPLIT).read_bytes()
    # fails at its last row
    broken = replace(split, val=replace(split.val, sizes=split.val.sizes[:-1]))
    with pytest.raises(ValueError, match="shorter"):
        write_split(tmp_path / "run", broken)
    assert (tmp_path / "run" / SPLIT).read_bytes() == before
    assert [path.name for path in (tmp_path / "run").iterdir()] == [SPLIT]


def test_100_000_names_are_written_and_read_in_seconds(tmp_path):
    everything = Part(
        [f"class {i % 1000}/image {i:07}.jpeg" for i in range(100_000)],
        (np.arange(100_000) % 1000).astype(np.int32),
        np.arange(100_000),
    )
    few = Part(everything.names[:3], everything.labels[:3], everything.sizes[:3])
    split, start = Split(tuple(map(str, range(1000))), everything, few), time.process_time()
    write_split(tmp_path, split)
    found = read_split(tmp_path)
    assert time.process_time() - start < 5  # 0.6 where it was measured
    assert found is not None
    assert found.digest == split.digest
    assert json.loads((tmp_path / SPLIT).read_text().splitlines()[0])["train"] == 100_000


def test_digits_and_their_record_agree_on_the_labels(tmp_path):
    split = recorded(DataConfig(), tmp_path / "run")
    source = digits()
    where = {source.names(i): i for i in range(len(source))}
    assert [source.labels[where[name]] for name in split.val.names] == split.val.labels.tolist()
