"""Records: what goes in comes out, and what was not written so is refused in a sentence."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import xxhash
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image

from fmjax.data.example import Examples
from fmjax.data.images import Unreadable
from fmjax.data.packed import Contents, read_contents, read_index, write_contents
from fmjax.data.records import decode, encode, write_part
from fmjax.data.strings import Strings
from fmjax.errors import DataError
from tests.security.pictures import noise

NAMES = ["cat/1.jpg", "", "caf\u00e9/\u4e2d.png", "not text \udce9", "x" * 5_000]


def test_strings_are_a_sequence_whatever_is_in_them():
    strings = Strings.of(iter(NAMES))
    assert list(strings) == NAMES == [strings[i] for i in range(len(NAMES))]
    assert strings[-1] == NAMES[-1]
    assert list(strings[::2]) == NAMES[::2]
    assert list(strings.take(np.asarray([3, 0, 3]))) == [NAMES[3], NAMES[0], NAMES[3]]
    assert list(strings[:0]) == []
    assert list(Strings.of(f"{i:05}" for i in range(9_000)))[4_095:4_098] == [
        "04095",
        "04096",
        "04097",
    ]
    with pytest.raises(IndexError):
        strings[5]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"label": np.int32(7)}, {"label": 7}),
        ({"labels": np.float32([0, 1, 0, 1])}, {"labels": [1, 3]}),
        ({"mask": b"a mask"}, {"mask": b"a mask"}),
    ],
)
def test_a_record_gives_back_what_was_put_in(name, facts, expected):
    record = encode({"image": noise(4, 4, "PNG"), **facts}, name=name)
    assert decode(record) == (name, {"image": noise(4, 4, "PNG"), **expected})


def test_pictures_of_files_keep_their_bytes_and_arrays_their_values(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(noise(9, 9, "JPEG"))
    assert decode(encode({"image": path}, name="a"))[1]["image"] == noise(9, 9, "JPEG")
    array = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    content = decode(encode({"image": array}, name="a"))[1]["image"]
    (tmp_path / "b.png").write_bytes(content)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), array)
    with pytest.raises(
        Unreadable, match=r"gone\.jpg is not a readable image: it cannot be opened: No such file"
    ):
        encode({"image": tmp_path / "gone.jpg"}, name="a")


def _head(**facts) -> bytes:
    text = json.dumps({"format": 1, "name": "a", "sizes": {"image": 1}} | facts).encode()
    return len(text).to_bytes(4, "little") + text + b"x"


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (b"", "it is no record"),
        (b"\xff\xff\xff\x7fabc", "it is no record"),
        (b"\x02\0\0\0{]", "its head is damaged"),
        (b"\x02\0\0\0[]", "its head is damaged"),
        (_head(sizes={"image": "1"}), "its head is damaged"),
        (_head(sizes=[1]), "its head is damaged"),
        (_head(format=2), "its format is 2, and this version reads 1"),
        (_head(sizes={"image": 2}), "not as long as its head says"),
        (_head(sizes={"image": -1, "mask": 2}), "not as long as its head says"),
        (_head() + b"y", "not as long as its head says"),
    ],
)
def test_what_is_no_record_is_refused(record, said):
    with pytest.raises(DataError, match=said):
        decode(record)


def _examples(count: int, **fields) -> Examples:
    labels = np.arange(count, dtype=np.int32) % 3
    return Examples(
        {"image": lambda i: bytes([i]) * 1_000, **fields},
        labels,
        ("a", "b", "c"),
        lambda i: f"{i}.png",
        labelled=not fields,
    )


def test_a_part_is_files_of_about_one_size_and_an_index(tmp_path):
    examples = _examples(10)
    part = write_part(tmp_path, "train", examples, shard_bytes=4_500)
    assert [shard.records for shard in part.shards] == [4, 4, 2]
    assert [shard.size for shard in part.shards] == [
        (tmp_path / shard.file).stat().st_size for shard in part.shards
    ]
    records = ArrayRecordReader(str(tmp_path / part.shards[1].file)).read_all()
    assert [decode(record)[0] for record in records] == [f"{i}.png" for i in range(4, 8)]
    index = read_index(tmp_path / part.index, part=part, classes=3)
    assert list(index.names) == [f"{i}.png" for i in range(10)]
    assert index.sizes.tolist() == [1_000] * 10
    assert index.labels.tolist() == examples.labels.tolist()


def test_examples_that_are_left_out_are_in_neither_records_nor_index(tmp_path):
    examples = _examples(6)
    kept = ((i, encode(examples.read(i), name=examples.names(i))) for i in (5, 0, 3))
    part = write_part(tmp_path, "val", examples, records=kept)
    index = read_index(tmp_path / part.index, part=part, classes=3)
    assert (list(index.names), index.labels.tolist()) == (["5.png", "0.png", "3.png"], [2, 0, 0])


def test_several_labels_are_kept_by_number(tmp_path):
    rows = np.float32([[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    part = write_part(tmp_path, "train", _examples(3, labels=lambda i: rows[i]))
    index = read_index(tmp_path / part.index, part=part, classes=3)
    assert index.ends is not None
    assert (index.labels.tolist(), index.ends.tolist()) == ([0, 2, 1], [2, 2, 3])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": np.int32([0, 1, 3])}, "it has the label 3, and there are 3 classes"),
        ({"labels": np.int64([0, 1, 2])}, "its arrays are of other kinds"),
        ({"labels": np.int32([0])}, "it has 1 examples, and the records are 3"),
        ({"name_ends": np.int64([5, 4, 15])}, "does not fit together"),
        ({"sizes": np.int64([5])}, "it has 1 sizes, and the records are 3"),
        ({"names": np.asarray([None])}, "Object arrays cannot be loaded"),
        (None, "is damaged: "),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path, change, said):
    part = write_part(tmp_path, "train", _examples(3))
    path = tmp_path / part.index
    with np.load(path) as arrays:
        kept = dict(arrays)
    if change is None:
        path.write_bytes(path.read_bytes()[:300])
    else:
        np.savez(path, **kept | change)
    # whoever wrote it has written its digest, too
    part = replace(part, digest=xxhash.xxh3_128_hexdigest(path.read_bytes()))
    with pytest.raises(DataError, match=said) as caught:
        read_index(path, part=part, classes=3)
    assert str(caught.value).endswith("pack the set again with `fmjax data pack`")


def test_an_index_of_other_labels_is_refused(tmp_path):
    part = write_part(tmp_path, "train", _examples(3))
    path = tmp_path / part.index
    with np.load(path) as arrays:
        kept = dict(arrays)
    np.savez(path, **kept | {"labels": kept["labels"][::-1].copy()})
    with pytest.raises(DataError, match=r"it is not the one that dataset\.json was written with"):
        read_index(path, part=part, classes=3)


CONTENTS = Contents(classes=("a", "b"), fields=("image", "label"), parts=())


def test_what_a_folder_has_is_read_back(tmp_path):
    part = write_part(tmp_path, "train", _examples(3))
    contents = replace(CONTENTS, parts=(part,))
    write_contents(tmp_path, contents)
    assert read_contents(tmp_path) == contents


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no .*dataset.json; pass arrayrecord:DIR"),
        ("", "is damaged: Expecting value"),
        ("[1]", "has the format 'None', and this version of fmjax reads 1"),
        ('{"format": 2}', "has the format '2', and this version of fmjax reads 1"),
        ('{"format": 1}', "Contents lacks the field 'classes'"),
        ('{"format": 1, "classes": ["a"], "fields": ["image"], "parts": []}', "its parts are none"),
        ("[" * 100_000, "is damaged"),
        (
            '{"format":1,"classes":[],"fields":["image"],"parts":[{"name":"train","index":"../x","digest":"","shards":[]}]}',
            "it names '../x', which is no file in the folder",
        ),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, text, said):
    if text is not None:
        (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=said):
        read_contents(tmp_path)
