"""Tables of images: what is told from them, and every mistake by its line."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest

from fmjax.config.data import DataConfig
from fmjax.data import audit
from fmjax.data.batches import eval_batches
from fmjax.data.sources import open_source
from fmjax.data.split import compare, divide, part_of, relabelled
from fmjax.errors import DataError
from tests.security.pictures import noise

ONE = "path,label\na.png,cat\nb.png,dog\nsub/c.png,cat\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for number, name in enumerate(("a.png", "b.png", "sub/c.png", "d.png", "e.png", "f.png")):
        (tmp_path / name).write_bytes(noise(8, 8 + number, "PNG"))
    return tmp_path


def opened(folder, text: str | bytes, part: str = "", **options):
    path = folder / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_source(DataConfig(source=f"csv:{path}{part}", **options))


def rows(examples) -> list[tuple[str, str]]:
    return [(examples.names(i), examples.classes[examples.labels[i]]) for i in range(len(examples))]


EXPECTED = [("a.png", "cat"), ("b.png", "dog"), ("sub/c.png", "cat")]


@pytest.mark.parametrize(
    "text",
    [
        ONE,
        "\ufeff" + ONE,
        ONE.replace("\n", "\r\n"),
        ONE.replace(",", ";"),
        ONE.replace(",", "\t"),
        ONE.replace("path", " File ").replace("label", "CLASS"),
        "label,x,filename\ncat,1,a.png\n\ndog,,./b.png\ncat,3,sub//c.png",
        'path,label\n"a.png","cat"\nb.png,dog \n sub/c.png,cat\n',
    ],
)
def test_a_table_is_read_however_it_was_saved(folder, text):
    splits = opened(folder, text)
    assert rows(splits.train) == EXPECTED
    assert (splits.val, splits.left_out, splits.train.classes) == (None, (), ("cat", "dog"))
    (batch,) = eval_batches(
        splits.train, lambda x, _: {"size": np.int32(x["image"].height)}, DataConfig(), batch_size=3
    )
    assert batch["size"].tolist() == [8, 9, 10]
    assert batch["weight"].all()


def test_columns_are_named_by_flags(folder):
    text = "image,label,where,what,use\nx,y,a.png,1,train\nx,y,b.png,10,train\nx,y,d.png,2,Valid\nx,y,e.png,2,train\n"
    flags = {"image_column": "where", "label_column": "what", "split_column": "use"}
    splits = opened(folder, text, **flags)
    # numbers by their size
    assert splits.train.classes == ("1", "2", "10")
    assert splits.val is not None
    assert rows(splits.val) == [("d.png", "2")]


def test_parts_are_told_by_a_column(folder):
    text = "path,label,split\na.png,x,train\nb.png,y,train\nd.png,x,val\ne.png,y,test\n"
    splits = opened(folder, text)
    assert splits.val is not None
    assert (rows(splits.train), rows(splits.val)) == (
        [("a.png", "x"), ("b.png", "y")],
        [("d.png", "x")],
    )
    assert splits.notes == (
        f"the test part of {folder}/table.csv is left out; to score a run on it, put #test behind the source",
    )
    assert rows(
        open_source(DataConfig(source=f"csv:{folder}/table.csv#test"), ("x", "y")).train
    ) == [("e.png", "y")]
    with pytest.raises(DataError, match="has no val part; it has train"):
        opened(folder, "path,label,split\na.png,x,train\nb.png,y,train\n", part="#val")


def several(examples) -> list[list[int]]:
    return [examples.read(i)["labels"].astype(int).tolist() for i in range(len(examples))]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("path,labels\na.png,x;y\nb.png,\nd.png,z; x;x\n", {}),
        (
            "path,tags\na.png,x|y\nb.png,\nd.png,z|x\n",
            {"label_column": "tags", "label_separator": "|"},
        ),
        ("path,x,y,z\na.png,1,1,0\nb.png,0,0,0\nd.png,1,,true\n", {}),
    ],
)
def test_several_labels_are_a_row_of_zeros_and_ones(folder, text, options):
    splits = opened(folder, text, **options)
    assert splits.train.classes == ("x", "y", "z")
    assert several(splits.train) == [[1, 1, 0], [0, 0, 0], [1, 0, 1]]
    assert splits.train.read(0)["labels"].dtype == np.float32
    assert splits.train.field_names == ("image", "labels")
    train, val = splits.both(0.34, 0)
    assert len(train) + len(val) == 3
    moved = relabelled(splits.train, ("z", "new", "x", "y"))
    assert several(moved) == [[0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0]]
    with pytest.raises(DataError, match="the images have 1 class \\('y'\\) that the run's 2"):
        relabelled(splits.train, ("x", "z"))


def test_a_list_fixes_the_order_of_classes(folder):
    (folder / "names.txt").write_text("dog\nbird\ncat\n")
    splits = opened(folder, ONE, classes=str(folder / "names.txt"))
    assert splits.train.classes == ("dog", "bird", "cat")
    assert rows(splits.train) == EXPECTED
    (folder / "names.txt").write_text("dog\nbird\n")
    with pytest.raises(DataError, match="has classes that the training set has not: cat"):
        opened(folder, ONE, classes=str(folder / "names.txt"))


def test_a_list_orders_a_source_that_has_names_of_its_own(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\n".join(map(str, range(11, -1, -1))))
    splits = open_source(DataConfig(source="digits", classes=str(path)))
    plain = open_source(DataConfig(source="digits")).train
    assert splits.train.labels.tolist() == (11 - plain.labels).tolist()
    path.write_text("1\n2\n")
    with pytest.raises(
        DataError, match=r"digits has 10 classes, and .*names.txt lacks 0, 3, 4, 5, 6 and 3 more"
    ):
        open_source(DataConfig(source="digits", classes=str(path)))


MISTAKES = {
    "": "table.csv has no header; write one, such as path,label",
    "path,label\n": "table.csv has no rows",
    "a.png,cat\nb.png,dog\n": "has no header: its first line has a.png, cat; write one above",
    "foo,label\nx,y\n": "has no column of images: it has foo, label; name it with --data.image-column",
    "path,x\na.png,y\n": "has no column of labels: it has path, x; name it with --data.label-column",
    "path,path,label\na,b,c\n": "has the column 'path' twice",
    "path,label\na.png,cat\nb.png\n": "line 3: 1 cells, where the header has 2; quote cells with ',' in them",
    "path,label\na.png,cat,1\n": "line 2: 3 cells, where the header has 2",
    'path,label\n"a.png,cat\n': "line 2: unexpected end of data; mend the quotes",
    "path,label\n,cat\n": "line 2: no path in the column 'path'",
    "path,label\na.png,\n": "line 2: no label in the column 'label'",
    "path,label\n/etc/passwd,cat\n": "line 2: '/etc/passwd' is not below",
    "path,label\n../../x.png,cat\n": "line 2: '../../x.png' is not below .*; pass the folder .* with --data.data-dir",
    "path,label,split\na.png,cat,dev\n": "line 2: 'dev' in the column 'split'; it must be train, val or test",
    "path,cat,dog\na.png,1,0\nb.png,2,0\n": "line 3: '2' in the column 'cat'; a column for each class has 0 or 1",
    "path,label\na.png,cat\nb.png,cat\n": "has one class, cat",
    "path,label\na.png,cat\nb.png,Cat\n": "has the classes 'Cat' and 'cat', which differ",
    "path,label\na.png,cat\nb.png,dog\n./a.png,dog\n": "a.png is in line 2 and in line 4, with the labels cat and dog",
    "path,labels\na.png,cat\na.png,cat;dog\n": "a.png is in line 2 and in line 3, with the labels",
    "path,label,split\na.png,cat,train\na.png,cat,val\n": "a.png is in line 2 and in line 3, which are train and val",
    "path,label,split\na.png,cat,train\nb.png,dog,train\nd.png,bird,val\n": "that the training set has not: bird",
    "path,label,split\na.png,cat,val\nb.png,dog,test\n": "has val, test and no train; name one .* as in #val",
    "path,label\nx.png,cat\ny.png,dog\n": r"2 of 2 images of .* are not there \(x.png, y.png\); paths start from",
    "path,label\na.png," + "x" * 200_000 + "\n": "line 2: field larger than field limit",
    "path,label\n" + "a" * 2_000_000: "line 2 is no line of a table",
    "path,label\na.png,caf\u00e9\n".encode(
        "latin-1"
    ): r"is not UTF-8 \(byte 0xe9 in or after line \d, as Windows-1252",
    ONE.encode("utf-16"): "is UTF-16, not UTF-8; save it as UTF-8",
    ONE.encode("utf-16-le"): "line 1 is no line of a table; save it as UTF-8",
    b"PK\x03\x04rest": "is a spreadsheet's own format, not UTF-8",
    "path,label\n\x1b[2J/../..,cat\n": r"line 2: '.*x1b.2J/../..' is not below",
}


@pytest.mark.parametrize("text", MISTAKES, ids=range(len(MISTAKES)))
def test_every_mistake_is_one_sentence(folder, text):
    with pytest.raises(DataError, match=MISTAKES[text]) as caught:
        opened(folder, text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"image_column": "pth"},
            r"has no column 'pth' \(--data.image-column\); did you mean path\?",
        ),
        ({"label_column": "q"}, r"has no column 'q' \(--data.label-column\); it has path, label"),
        ({"split_column": "q"}, r"has no column 'q' \(--data.split-column\)"),
    ],
)
def test_a_column_that_is_not_there_is_told(folder, options, said):
    with pytest.raises(DataError, match=said):
        opened(folder, ONE, **options)


def test_what_is_no_file_is_refused_at_once(folder):
    os.mkfifo(folder / "pipe")
    for name, said in (
        ("gone", "No such file"),
        ("sub", "it is a folder"),
        ("pipe", "it is a pipe"),
    ):
        with pytest.raises(DataError, match=f"{name} cannot be opened: {said}"):
            open_source(DataConfig(source=f"csv:{folder / name}"))


def test_images_that_are_gone_or_there_twice_are_counted_up_to_a_bound(folder):
    table = ONE + "gone.png,dog\na.png,cat\nd.png,dog\ne.png,cat\n"
    splits = opened(folder, table)
    assert [row[0] for row in rows(splits.train)] == [
        "a.png",
        "b.png",
        "sub/c.png",
        "d.png",
        "e.png",
    ]
    (line,) = audit.lines(splits, splits.train, None)
    assert line == (
        "left out: 1 rows whose image is not there (gone.png, line 5), 1 rows that are there twice (a.png, line 6)"
    )
    with pytest.raises(DataError, match=r"1 of 6 images of .* are not there .* --data.max-bad"):
        opened(folder, table, max_bad=0)
    three = ONE + "".join(f"gone{i}.png,cat\n" for i in range(3))
    with pytest.raises(
        DataError, match=r"3 of 6 images of .* are not there .* --data.max-bad-share"
    ):
        opened(folder, three)
    assert len(opened(folder, three, max_bad_share=0.5).train) == 3


def test_paths_start_from_a_folder_of_ones_own(folder):
    (folder / "tables").mkdir()
    with pytest.raises(DataError, match="are not there"):
        opened(folder / "tables", ONE)
    splits = opened(
        folder / "tables", ONE.replace("a.png", str(folder / "a.png")), data_dir=str(folder)
    )
    assert rows(splits.train) == EXPECTED
    assert splits.train.files[2] == folder / "sub" / "c.png"


def test_a_run_on_a_table_finds_its_images_again_where_the_set_has_moved(folder, tmp_path_factory):
    splits = opened(folder, ONE + "d.png,dog\ne.png,dog\n")
    config = DataConfig(source=f"csv:{folder}/table.csv")
    recorded = divide(splits, config, None).split
    moved = tmp_path_factory.mktemp("other") / "set"
    folder.rename(moved)
    again = open_source(DataConfig(source=f"csv:{moved}/table.csv"))
    changes = compare(recorded, part_of(again.train, f"csv:{moved}/table.csv"))
    assert not changes.lost
    assert changes.added == []
    (moved / "a.png").write_bytes(b"another")
    assert compare(recorded, part_of(again.train, f"csv:{moved}/table.csv")).changed == ["a.png"]
    assert not re.search("/", recorded.train.names[0])
    moved.rename(folder)
