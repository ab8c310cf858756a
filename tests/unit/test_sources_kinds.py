"""Every kind of source gives the same examples of the same set, and refuses what it cannot read in a sentence."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import cloudpickle
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fmjax.config.data import DataConfig
from fmjax.data import audit, tars
from fmjax.data.batches import BadImages, eval_batches, train_batches
from fmjax.data.example import Examples
from fmjax.data.images import Broken, Unreadable, read
from fmjax.data.sources import open_source
from fmjax.data.split import compare, divide, part_of
from fmjax.errors import DataError
from tests.security.pictures import noise
from tests.support import sets

KINDS = ("folder", "csv", "arrayrecord", "wds", "parquet", "hf")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FMJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def place(tmp_path):
    """What makes the set of a kind, and gives its source."""

    def make(kind: str) -> str:
        root = tmp_path / kind
        folder = lambda: sets.folder(tmp_path / "plain")  # noqa: E731
        path = {
            "folder": lambda: sets.folder(root),
            "csv": lambda: sets.table(root),
            "arrayrecord": lambda: sets.packed(root, folder()),
            "wds": lambda: sets.tars(root),
            "parquet": lambda: sets.parquets(root),
            "hf": lambda: sets.saved_to_disk(root),
        }[kind]()
        return f"{kind}:{path}"

    return make


def opened(source: str, **options):
    return open_source(DataConfig(source=source, **options))


def size(example, _):
    return {"size": np.int32(example["image"].height), "label": example["label"]}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_set(place, kind):
    source = place(kind)
    splits = opened(source)
    assert splits.train.classes == sets.CLASSES
    assert splits.val is not None
    for name, part in (("train", splits.train), ("val", splits.val)):
        expected = [(content, label) for _, content, label in sets.images(name)]
        # a folder lies class by class, the others as they were written
        order = sorted if kind in ("folder", "arrayrecord") else list
        assert order(sets.contents(part)) == order(expected)
    assert audit.lines(splits, splits.train, splits.val)[:-1] in ([], list(splits.notes))
    # each example once, whatever the threads; a shuffle that is the same for a seed, and goes on where it was
    (batch,) = eval_batches(splits.train, size, DataConfig(threads=3), batch_size=9)
    assert sorted(batch["size"].tolist()) == list(range(10, 19))
    options = {"batch_size": 4, "seed": 1}
    one, other = (
        train_batches(splits.train, size, DataConfig(threads=n), **options) for n in (1, 3)
    )
    first = [next(one)["index"].tolist() for _ in range(4)]
    assert [next(other)["index"].tolist() for _ in range(2)] == first[:2]
    again = train_batches(splits.train, size, DataConfig(), **options)
    again.set_state(other.get_state())
    assert [next(again)["index"].tolist() for _ in range(2)] == first[2:]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_one_part_is_asked_for_by_name(place, kind):
    source = place(kind)
    splits = open_source(DataConfig(source=f"{source}#val"), sets.CLASSES)
    assert splits.val is None
    assert sorted(sets.contents(splits.train)) == sorted((c, n) for _, c, n in sets.images("val"))
    with pytest.raises(DataError, match="has no test part; it has train"):
        opened(f"{source}#test")


@pytest.mark.parametrize("kind", ["arrayrecord", "wds", "parquet", "hf"])
def test_a_set_is_recorded_by_names_that_move_with_it(place, kind, tmp_path):
    source = place(kind)
    recorded = divide(opened(source), DataConfig(source=source), None).split
    assert not [name for name in recorded.train.names if name.startswith("/")]
    moved = tmp_path / "moved"
    (tmp_path / kind).rename(moved)
    again = opened(f"{kind}:{moved}")
    assert not compare(recorded, part_of(again.train, f"{kind}:{moved}"), training=False).changed
    assert part_of(again.train, "").names == recorded.train.names


@pytest.mark.parametrize("kind", ["arrayrecord", "wds", "parquet", "hf"])
def test_a_part_without_images_to_give_is_refused_and_others_are_unlabelled(place, kind):
    source = place(kind)
    with pytest.raises(DataError, match=r"no (file|folder|records)|there is no"):
        opened(f"{kind}:{source.partition(':')[2]}/nothing/here")


# -- packed sets


def test_a_packed_set_gives_the_batches_of_its_folder_bit_by_bit(place, tmp_path):
    packed = place("arrayrecord")
    both = [opened(source).train for source in (f"folder:{tmp_path / 'plain'}", packed)]

    def view(example, rng):
        return {
            "image": np.asarray(example["image"].resize((8, 8))),
            "draw": rng.random(),
            "label": example["label"],
        }

    one, other = (train_batches(part, view, DataConfig(), batch_size=6, seed=0) for part in both)
    for _ in range(4):
        ours, theirs = next(one), next(other)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert both[1].names(0) == "train/cat/000.png"


def test_masks_and_several_labels_are_packed_too(tmp_path):
    rows = np.float32([[1, 0, 1], [0, 0, 0]])
    fields = {"image": lambda i: noise(8, 8 + i, "PNG"), "labels": lambda i: rows[i]}
    several = Examples(fields, np.zeros(2, np.int32), ("a", "b", "c"), str, labelled=False)
    found = opened(f"arrayrecord:{sets.pack(tmp_path / 'x', sets.Splits(several, None))}").train
    assert [found.read(i)["labels"].tolist() for i in range(2)] == rows.tolist()
    assert (found.classes, found.field_names) == (("a", "b", "c"), ("image", "labels"))
    masks = Examples(
        {"image": fields["image"], "mask": lambda i: b"mask"},
        np.zeros(2, np.int32),
        ("a", "b"),
        str,
        labelled=False,
    )
    found = opened(f"arrayrecord:{sets.pack(tmp_path / 'y', sets.Splits(masks, None))}").train
    assert found.read(1) == {"image": noise(8, 9, "PNG"), "mask": b"mask"}


def _shards(root: str) -> list[Path]:
    return sorted(Path(root.partition(":")[2]).glob("train-*.array_record"))


def test_a_packed_file_that_is_short_gone_or_another_is_refused(place):
    source = place("arrayrecord")
    first, second, *_ = _shards(source)
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        DataError,
        match=r"train-00000.array_record has [\d,]+ bytes, and [\d,]+ were written; copy it",
    ):
        opened(source)
    first.unlink()
    with pytest.raises(DataError, match=r"train-00000.array_record has 0 bytes"):
        opened(source)
    # two files that were swapped: of one size, with other images
    shutil.copy(second, first)
    second.write_bytes(whole)
    part = opened(source).train
    with pytest.raises(Unreadable, match=r"its record is of .*png"):
        read(part.read(0)["image"])


def test_a_damaged_record_is_an_unreadable_image_that_is_named(place):
    source = place("arrayrecord")
    (first, *_) = _shards(source)
    content = bytearray(first.read_bytes())
    at = content.index(b"IHDR")
    content[at : at + 4] = b"XXXX"
    first.write_bytes(content)
    part = opened(source).train
    (batch,) = eval_batches(part, size, DataConfig(), batch_size=len(part))
    assert 0 < (batch["weight"] == 0).sum() < len(part)
    assert re.search("its record is damaged: .*hash mismatch", BadImages(part, 9).add(batch)[0])


# -- tar files


def test_a_tar_is_read_once_and_again_only_where_it_has_changed(place, monkeypatch, tmp_path):
    source = place("wds")
    built = []
    monkeypatch.setattr(
        tars,
        "_built",
        lambda path, key, build=tars._built: built.append(path.name) or build(path, key),
    )
    opened(source)
    opened(source)
    assert sorted(built) == ["train-000.tar", "train-001.tar", "val-000.tar"]
    sets.tar(tmp_path / "wds" / "val-000.tar", [("x.png", noise(8, 8, "PNG")), ("x.cls", b"dog")])
    val = opened(source).val
    assert val is not None
    assert sets.contents(val) == [(noise(8, 8, "PNG"), "dog")]
    # what is kept may be damaged or gone
    for path in (tmp_path / "cache" / "wds").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert len(opened(source).train) == 9
    assert len(built) == 7


PNG = noise(8, 8, "PNG")


@pytest.mark.parametrize(
    ("labels", "options", "expected"),
    [
        ({"cls": (b"3", b"11\n")}, {}, (("3", "11"), [0, 1])),
        ({"json": (b'{"label": "b"}', b'{"label": "a"}')}, {}, (("a", "b"), [1, 0])),
        (
            {"json": (b'{"x": 1, "label": 2}', b'{"x": 0}')},
            {"label_column": "x"},
            (("0", "1"), [1, 0]),
        ),
        (
            {"cls": (b"0", b"0"), "json": (b'{"x": 5}', b'{"x": 4}')},
            {"label_column": "x"},
            (("4", "5"), [1, 0]),
        ),
    ],
)
def test_labels_of_a_tar_are_texts_numbers_or_in_json(tmp_path, labels, options, expected):
    members = [("0.png", PNG), ("0.seg.png", PNG), ("0.txt", b"a caption")]
    members += [(f"0.{kind}", content[0]) for kind, content in labels.items()]
    members += [("1.png", PNG), *((f"1.{kind}", content[1]) for kind, content in labels.items())]
    part = opened(f"wds:{sets.tar(tmp_path / 'x.tar', members)}", **options).train
    assert (part.classes, part.labels.tolist()) == expected
    assert [part.names(i) for i in range(2)] == ["x.tar/0", "x.tar/1"]


def test_what_a_tar_has_twice_or_cannot_say_is_left_out_and_counted(tmp_path):
    members = [("0.png", PNG), ("0.cls", b"a"), ("0.png", PNG), ("0.cls", b"b")]
    members += [("1.png", PNG), ("1.json", b'{"labels": [0.5, "a"]}')]
    members += [
        (f"{i}.{kind}", x)
        for i in (2, 3)
        for kind, x in (("png", PNG), ("cls", b"ab"[i - 2 : i - 1]))
    ]
    splits = opened(f"wds:{sets.tar(tmp_path / 'x.tar', members)}")
    assert sets.contents(splits.train) == [(PNG, "a"), (PNG, "b")]
    assert {row.reason: row.count for row in splits.left_out} == {
        "samples that are there twice": 1,
        "samples without a label": 1,
    }


def test_several_labels_of_a_tar_are_a_list(tmp_path):
    rows = (b'{"labels": ["b", "a"]}', b'{"labels": []}')
    members = [row for i in range(2) for row in ((f"{i}.png", PNG), (f"{i}.json", rows[i]))]
    part = opened(f"wds:{sets.tar(tmp_path / 'x.tar', members)}").train
    assert [part.read(i)["labels"].tolist() for i in range(2)] == [[1, 1], [0, 0]]
    mixed = [*members, ("2.png", PNG), ("2.cls", b"a")]
    with pytest.raises(DataError, match="samples with one label and samples with a list"):
        opened(f"wds:{sets.tar(tmp_path / 'y.tar', mixed)}")


def test_numbers_are_places_in_a_list_of_classes(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\neel\n")
    members = [row for i in (2, 0) for row in ((f"{i}.png", PNG), (f"{i}.cls", str(i).encode()))]
    part = opened(
        f"wds:{sets.tar(tmp_path / 'x.tar', members)}", classes=str(tmp_path / "names.txt")
    ).train
    assert (part.classes, part.labels.tolist()) == (sets.CLASSES, [2, 0])
    # of classes that are numbers, each is a name
    part = open_source(DataConfig(source=f"wds:{tmp_path / 'x.tar'}"), ("2", "1", "0")).train
    assert part.labels.tolist() == [0, 2]
    with pytest.raises(DataError, match="has classes that the training set has not: 0"):
        open_source(DataConfig(source=f"wds:{tmp_path / 'x.tar'}"), ("1", "2", "10"))


def test_odd_members_of_a_tar_are_read_around_and_counted(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as file:

        def add(name: str, content: bytes = b"", **facts) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in facts.items():
                setattr(info, key, value)
            file.addfile(info, io.BytesIO(content))

        for key, label in (("../../etc/a", b"cat"), ("/abs/b", b"dog"), ("c" * 300, b"cat")):
            add(f"{key}.png", PNG)
            add(f"{key}.cls", label)
        add("d.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add("e.png", type=tarfile.LNKTYPE, linkname="../../etc/a.png")
        add("f.png", type=tarfile.FIFOTYPE)
        add("folder", type=tarfile.DIRTYPE)
        add("g.png", PNG)
        add("h.txt", b"text")
        add("i.png", PNG)
        add("i.jpg", PNG)
        add("i.cls", b"cat")
    before = set(tmp_path.rglob("*"))
    splits = opened(f"wds:{path}")
    assert set(tmp_path.rglob("*")) - before == {
        p for p in tmp_path.rglob("*") if "cache" in p.parts
    }
    assert [splits.train.names(i) for i in range(3)] == [
        "x.tar/../../etc/a",
        "x.tar//abs/b",
        f"x.tar/{'c' * 300}",
    ]
    assert sets.contents(splits.train) == [(PNG, "cat"), (PNG, "dog"), (PNG, "cat")]
    assert {row.reason: row.count for row in splits.left_out} == {
        "links": 3,
        "samples without a label": 1,
        "samples without an image": 1,
        "samples of several images": 1,
    }


def _cut(count: int):
    return lambda content: content[:count]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_cut(0), "is no whole tar file: empty file"),
        (_cut(700), "is no whole tar file"),
        (_cut(512 * 2), "is no whole tar file: it ends at byte 1,024 without a mark"),
        (_cut(512 * 3 + 100), "is no whole tar file"),
        (
            lambda c: c[:1024] + b"\xff" * 512 + c[1536:],
            "is no whole tar file: damaged at byte 1,024 of",
        ),
        (lambda c: b"\xff" * 512 + c[512:], "is no whole tar file"),
        (lambda c: c + c, "goes on behind its end mark, as two tar files that were joined do"),
        (
            lambda c: b"\x1f\x8b" + c,
            "is compressed, so that no image can be read alone; unpack it with gunzip",
        ),
    ],
)
def test_a_tar_that_is_not_whole_is_refused(tmp_path, change, said):
    path = sets.tar(
        tmp_path / "x.tar", [("0.png", PNG), ("0.cls", b"a"), ("1.png", PNG), ("1.cls", b"b")]
    )
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=said) as caught:
        opened(f"wds:{path}")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("0.png", PNG)], "has no images"),
        ([("0.png", PNG), ("0.json", b"{")], "0.json is no JSON"),
        ([("0.png", PNG), ("0.cls", b"\xff")], "0.cls is not UTF-8"),
        (
            [("0.png", PNG), ("0.cls", b"a"), ("0.x", b""), ("1.png", PNG), ("1.cls", b"a")],
            "has one class, a",
        ),
        (
            [
                ("0.png", PNG),
                ("0.cls", b"a"),
                ("1.png", PNG),
                ("1.cls", b"b"),
                ("0.png", PNG),
                ("0.cls", b"b"),
            ],
            "1 samples are there twice",
        ),
    ],
)
def test_a_tar_of_something_else_is_refused(tmp_path, members, said):
    with pytest.raises(DataError, match=said):
        opened(f"wds:{sets.tar(tmp_path / 'x.tar', members)}")


def test_a_tar_that_becomes_short_later_gives_unreadable_images(place, tmp_path):
    part = opened(place("wds")).train
    with (tmp_path / "wds" / "train-001.tar").open("r+b") as file:
        file.truncate(1_000)
    assert part.read(8)["image"] == Broken(
        "it cannot be read: train-001.tar is shorter than it was"
    )
    assert part.read(0)["image"] == sets.images("train")[0][1]


# -- tables with pictures in them


def _parquet(path: Path, **columns) -> str:
    pq.write_table(pa.table(columns), path)
    return f"parquet:{path}"


PICTURES = [{"bytes": PNG, "path": "a.png"}] * 3


@pytest.mark.parametrize(
    ("columns", "options", "classes", "labels"),
    [
        ({"image": PICTURES, "label": ["b", "a", "b"]}, {}, ("a", "b"), [1, 0, 1]),
        ({"img": [PNG] * 3, "fine_label": [10, 9, 10]}, {}, ("9", "10"), [1, 0, 1]),
        (
            {"x": PICTURES, "y": ["b", "a", "b"], "label": [0, 0, 0]},
            {"image_column": "x", "label_column": "y"},
            ("a", "b"),
            [1, 0, 1],
        ),
    ],
)
def test_columns_of_a_parquet_are_found_or_named(tmp_path, columns, options, classes, labels):
    part = opened(_parquet(tmp_path / "x.parquet", **columns), **options).train
    assert (part.classes, part.labels.tolist()) == (classes, labels)
    assert part.read(2)["image"] == PNG
    assert part.names(2) == "x.parquet:2"


def test_several_labels_of_a_parquet_may_be_one_text(tmp_path):
    source = _parquet(tmp_path / "x.parquet", image=PICTURES, labels=["b; a", "", "a"])
    part = opened(source, label_separator=";").train
    assert [part.read(i)["labels"].tolist() for i in range(3)] == [[1, 1], [0, 0], [1, 0]]


def test_files_that_number_their_classes_otherwise_are_refused(place):
    root = Path(place("parquet").partition(":")[2])
    path = root / "train-00001-of-00002.parquet"
    table = pq.read_table(path)
    other = json.loads(table.schema.metadata[b"huggingface"])
    other["info"]["features"]["label"]["names"].reverse()
    renamed = table.replace_schema_metadata({b"huggingface": json.dumps(other)})
    pq.write_table(renamed, path)
    with pytest.raises(DataError, match=r"00001-of-00002.* has other names for its labels than"):
        opened(f"parquet:{root}")


@pytest.mark.parametrize("kind", ["parquet", "hf"])
def test_worker_processes_map_the_files_for_themselves(place, kind):
    part = opened(place(kind)).train
    again = cloudpickle.loads(cloudpickle.dumps(part.fields["image"]))
    assert [again(i) for i in range(len(part))] == [row[1] for row in sets.images("train")]
    # a path and a column, whatever the pictures weigh
    assert len(cloudpickle.dumps(part.fields["image"])) < sum(
        len(row[1]) for row in sets.images("train")
    )


@pytest.mark.parametrize("kind", KINDS)
def test_other_pictures_under_the_same_names_are_seen(place, kind):
    part = opened(place(kind)).train
    found = part_of(part, f"{kind}:x")
    expected = [len(row[1]) for row in sets.images("train")]
    assert sorted(found.sizes.tolist()) == sorted(expected)


def test_other_labels_of_the_same_several_are_seen(tmp_path):
    marks = []
    for number, labels in enumerate(([["b", "a"], [], ["a"]], [["b"], ["a"], ["a"]])):
        source = _parquet(tmp_path / f"{number}.parquet", image=PICTURES, labels=labels)
        marks.append(part_of(opened(source).train, source).labels.tolist())
    assert marks[0][2] == marks[1][2]
    assert marks[0][:2] != marks[1][:2]


def test_several_labels_of_a_parquet_are_a_list(tmp_path):
    source = _parquet(tmp_path / "x.parquet", image=PICTURES, labels=[["b", "a"], [], ["a"]])
    part = opened(source).train
    assert [part.read(i)["labels"].tolist() for i in range(3)] == [[1, 1], [0, 0], [1, 0]]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"image": ["a.png"] * 3, "label": [0, 1, 0]},
            "the column 'image' of .* has string, not the bytes of pictures",
        ),
        ({"image": [[[0, 1]]] * 3, "label": [0, 1, 0]}, "has list<.*not the bytes of pictures"),
        (
            {"image": pa.array([{"bytes": None, "path": "x"}] * 3, sets.HF), "label": [0, 1, 0]},
            "has no bytes in any row",
        ),
        (
            {"image": PICTURES, "label": [0.5, 1, 2]},
            "the column 'label' of .* has double; a label is a whole number",
        ),
        (
            {"image": PICTURES, "label": [0, None, 1]},
            "has rows without a label in the column 'label'",
        ),
        ({"image": PICTURES, "label": [0, -1, 1]}, "has rows without a label"),
        ({"image": PICTURES, "x": [0, 1, 1]}, "has no column of labels: it has image, x"),
        ({"x": PICTURES, "label": [0, 1, 1]}, "has no column of images: it has x, label"),
        ({"image": PICTURES, "label": ["a", "a", "a"]}, "has one class, a"),
    ],
)
def test_a_parquet_of_something_else_is_refused(tmp_path, columns, said):
    with pytest.raises(DataError, match=said):
        opened(_parquet(tmp_path / "x.parquet", **columns))


def test_a_row_without_bytes_is_an_unreadable_image(tmp_path):
    image = [*PICTURES[:2], {"bytes": None, "path": "x"}]
    part = opened(_parquet(tmp_path / "x.parquet", image=image, label=[0, 1, 0])).train
    (batch,) = eval_batches(part, size, DataConfig(), batch_size=3)
    assert BadImages(part, 9).add(batch) == ["x.parquet:2: its row has no bytes"]


@pytest.mark.parametrize("change", [lambda c: c[:200], lambda c: b"PAR1" + c[4:-30], lambda c: b""])
def test_a_parquet_that_is_cut_short_is_refused(place, tmp_path, change):
    source = place("parquet")
    path = tmp_path / "parquet" / "train-00000-of-00002.parquet"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(
        DataError,
        match=r"train-00000-of-00002.parquet cannot be read: .*; copy or download it again",
    ):
        opened(source)
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_a_parquet_is_copied_once_and_said(place, tmp_path):
    source = place("parquet")
    (note,) = opened(source).notes
    assert note.startswith(f"3 Parquet files were copied to {tmp_path}/cache/arrow, ")
    assert opened(source).notes == ()
    assert len(list((tmp_path / "cache" / "arrow").iterdir())) == 3


def test_a_cache_that_cannot_be_written_is_told(place, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FMJAX_CACHE", str(tmp_path / "file" / "x"))
    with pytest.raises(DataError, match=r"cannot be copied to .*Not a directory.* set FMJAX_CACHE"):
        opened(place("parquet"))
    # an index is only kept where it can be
    assert len(opened(place("wds")).train) == 9


def test_files_of_other_columns_or_without_a_part_are_refused(place, tmp_path):
    source = place("parquet")
    _parquet(tmp_path / "parquet" / "train-x.parquet", image=PICTURES, label=["a", "b", "c"])
    with pytest.raises(
        DataError, match=r"train-x.parquet has other columns, or kinds of them, than train-00000"
    ):
        opened(source)
    (tmp_path / "parquet" / "train-x.parquet").rename(tmp_path / "parquet" / "more.parquet")
    with pytest.raises(DataError, match=r"has files whose name tells their part and more.parquet"):
        opened(source)
    with pytest.raises(DataError, match=r"has no \*.tar files"):
        opened(f"wds:{tmp_path / 'parquet'}")


def test_a_saved_dataset_may_be_one_part_and_must_be_whole(place, tmp_path):
    source = place("hf")
    assert len(opened(f"{source}/validation").train) == 4
    arrow = tmp_path / "hf" / "train" / "data-00000-of-00001.arrow"
    arrow.write_bytes(arrow.read_bytes()[:600])
    with pytest.raises(
        DataError, match=r"data-00000-of-00001.arrow cannot be read: .*; copy or download it again"
    ):
        opened(source)
    (tmp_path / "hf" / "train" / "state.json").write_text("{")
    with pytest.raises(DataError, match=r"state.json is damaged: .*; save the dataset again"):
        opened(source)
    (tmp_path / "hf" / "dataset_dict.json").write_text(json.dumps({"splits": ["a", "train"]}))
    with pytest.raises(
        DataError, match="has the parts a, train; they must be train, validation or test"
    ):
        opened(source)


def test_a_pipe_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.tar")
    for scheme in ("wds", "parquet"):
        with pytest.raises(DataError, match="it is a pipe, socket or device"):
            opened(f"{scheme}:{tmp_path / 'x.tar'}")
