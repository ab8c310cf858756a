"""`fmjax predict` and `model.predict`: what is said of pictures whose truth nobody knows, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from flax import nnx
from PIL import Image

import fmjax
from fmjax.cli import main
from fmjax.config import PredictConfig
from fmjax.console import SafeConsole
from fmjax.data import unlabelled
from fmjax.data.sources.digits import digits
from fmjax.data.unlabelled import lines, pictures
from fmjax.engine.backbone import preprocessing
from fmjax.engine.records import read_preprocessing
from fmjax.errors import CheckpointError, DataError, UsageError
from fmjax.models.build import abstract
from fmjax.programs import answers
from fmjax.programs.predict import main as predict
from fmjax.serial import to_json
from fmjax.store import network
from tests.support import tiny
from tests.support.misbehaving_server import Reply, closed_port, serving

STORED = Path(__file__).parents[1] / "reliability" / "stored" / "1.tar.xz"
DIGITS = digits()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Iterator[Path]:
    """A run of an older version, with no record of its preprocessing."""
    folder = tmp_path_factory.mktemp("stored") / "run"
    with tarfile.open(STORED) as archive:
        archive.extractall(folder, filter="data")
    with tiny.known():
        yield folder


@pytest.fixture
def mine(run, tmp_path) -> Path:
    """A copy of it, to be damaged."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    return copy


@pytest.fixture
def photos(tmp_path) -> Path:
    """A flat folder of pictures with one in a folder below, and one that is none."""
    folder = tmp_path / "photos"
    (folder / "train").mkdir(parents=True)
    for index in range(3):
        digit(index).save(folder / f"{index}.png")
    digit(3).save(folder / "train" / "3.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def digit(index: int) -> Image.Image:
    return Image.fromarray(DIGITS.read(index)["image"])


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def expected(model: fmjax.ViT, index: int, top: int) -> tuple[list[str], np.ndarray]:
    """By the model itself, which shares no code with what is tested but its call."""
    image = (np.asarray(digit(index), np.float32) / 255 - 0.5) / 0.5
    logits = np.asarray(model(jnp.asarray(image[None])).logits, np.float64)[0]
    shares = np.exp(logits) / np.exp(logits).sum()
    order = np.argsort(-shares)[:top]
    return [str(i) for i in order], shares[order]


def test_a_restored_model_knows_its_classes_and_its_preprocessing(run, photos):
    model = fmjax.restore(run)
    assert model.facts.classes == tuple("0123456789")
    assert fmjax.preprocess_config(model).image_size == (8, 8)
    found = model.predict(str(photos / "0.png"), top=3)
    names, shares = expected(model, 0, 3)
    assert list(found.classes) == names == [str(i) for i in found.indices]
    np.testing.assert_allclose(found.probabilities, shares, rtol=1e-4)
    # a path, a PIL image, an array, contents; one alone, or many of them, are the same picture
    array = np.asarray(digit(0))
    kinds = [photos / "0.png", digit(0), array, (photos / "0.png").read_bytes(), array[..., 0]]
    for other in fmjax.predict(model, kinds, top=3):
        assert other.indices == found.indices
        assert other.probabilities == pytest.approx(found.probabilities, rel=1e-6)
    many = fmjax.predict(model, [digit(i % 4) for i in range(70)], top=1)
    assert len(many) == 70
    assert many[4] == many[8] == many[28]
    assert many[68].classes == model.predict(digit(0), top=1).classes
    assert fmjax.predict(model, []) == []


def test_more_classes_than_there_are_are_all_of_them(run):
    found = fmjax.restore(run).predict(digit(1), top=99)
    assert sorted(found.indices) == list(range(10))
    assert sum(found.probabilities) == pytest.approx(1)
    with pytest.raises(UsageError, match=r"top=0: it must be 1 or more"):
        fmjax.restore(run).predict(digit(1), top=0)


def test_what_a_model_knows_is_no_part_of_its_arrays(run):
    model = fmjax.restore(run)
    known = jax.jit(lambda model, x: model(x).logits)(model, jnp.zeros((1, 8, 8, 3)))
    assert known.shape == (1, 10)
    assert all(hasattr(leaf, "shape") for leaf in jax.tree.leaves(model))
    again = nnx.merge(*nnx.split(model))
    assert again.facts == model.facts
    _, params = fmjax.functional(model)
    assert fmjax.with_params(model, params).facts == model.facts
    assert {model.facts: 1}[replace(model.facts)] == 1
    assert model.facts != replace(model.facts, classes=tuple("abcdefghij"))


def test_a_model_that_cannot_answer_says_why(run):
    with pytest.raises(UsageError, match=r"has no classifier, so it has no classes"):
        abstract(fmjax.get_spec("demo_vit_ti4")).predict(digit(0))
    with pytest.raises(UsageError, match=r"is not known: it is not of a run or of published"):
        abstract(fmjax.get_spec("demo_vit_ti4"), num_classes=3).predict(digit(0))
    with pytest.raises(DataError, match=r"nowhere\.jpg is not a readable image"):
        fmjax.restore(run).predict("nowhere.jpg")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_file_has_a_row_for_every_picture(run, photos, tmp_path, capsys, ending):
    out = tmp_path / f"answers.{ending}"
    counts = predict(str(run), PredictConfig(images=(str(photos),), out=str(out), top=2))
    assert (counts.pictures, counts.unreadable) == (5, 1)
    assert "unreadable picture:" in capsys.readouterr().out
    if ending == "csv":
        rows = list(csv.DictReader(io.StringIO(out.read_text())))
        rows = [
            {k: json.loads(v) if k.endswith("ies") and v else v for k, v in r.items()} for r in rows
        ]
        classes = [json.loads(row["classes"] or "null") for row in rows]
    else:
        rows = rows_of(out) if ending == "jsonl" else pq.read_table(out).to_pylist()
        classes = [row["classes"] for row in rows]
    names = [Path(row["file"]).relative_to(photos).as_posix() for row in rows]
    assert names == ["0.png", "1.png", "2.png", "broken.jpg", "train/3.png"]
    assert [bool(row["error"]) for row in rows] == [False, False, False, True, False]
    assert not classes[3]
    model = fmjax.restore(run)
    for place, index in ((0, 0), (1, 1), (2, 2), (4, 3)):
        known, shares = expected(model, index, 2)
        assert (classes[place], rows[place]["class"]) == (known, known[0])
        np.testing.assert_allclose(rows[place]["probabilities"], shares, atol=2e-6)


def test_answers_do_not_depend_on_batches_devices_or_workers(run, photos, tmp_path, capsys):
    asked = {"images": (str(photos),), "top": 3}
    for name, more in (
        ("a", {"batch_size": 32}),
        ("b", {"batch_size": 1, "threads": 1, "mesh": fmjax.config.MeshConfig(data=1, fsdp=8)}),
    ):
        predict(str(run), PredictConfig(out=str(tmp_path / f"{name}.jsonl"), **asked, **more))
    one, other = (rows_of(tmp_path / f"{name}.jsonl") for name in "ab")
    for row, same in zip(one, other, strict=True):
        assert row["classes"] == same["classes"]
        assert row["probabilities"] == pytest.approx(same["probabilities"], abs=2e-6)


def test_rows_are_printed_as_they_are_asked_for(run, photos, capsys):
    asked = ["predict", str(run), str(photos / "0.png"), str(photos / "broken.jpg"), "--top", "1"]
    assert main(asked) == 0
    said = capsys.readouterr()
    assert "unreadable: it is no" in said.out
    assert "%" in said.out
    assert "2 pictures, 1 of them unreadable by step" in said.err
    assert main([*asked, "--format", "csv"]) == 0
    table = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert table[0] == ["file", "error", "class", "probability", "classes", "probabilities"]
    assert len(table) == 3
    assert main([*asked, "--format", "jsonl"]) == 0
    assert [len(json.loads(row)) for row in capsys.readouterr().out.splitlines()] == [6, 6]


@pytest.mark.parametrize("width", [60, 40])
def test_a_printed_table_fits_a_narrow_terminal_and_loses_nothing(monkeypatch, width):
    out = io.StringIO()
    shown = SafeConsole(file=out, width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(answers, "console", shown)
    name, reason = f"{'photographs/' * 6}0123456789.jpg", "it is no JPEG, or its header is damaged"
    known = {"classes": ["golden retriever", "tench"], "probabilities": [0.9, 0.1]}
    row = {"file": name, "error": None, **known}
    with answers.printed("table") as sink:
        sink.add([row, {**row, "file": "b.jpg", "error": reason}], row)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    # each column for itself, as it is read
    edge = lines[0].index("classes")
    left = "".join(line[:edge].strip() for line in lines)
    right = " ".join(line[edge:].strip() for line in lines)
    assert left == f"file{name}b.jpg"
    told = f"classes golden retriever 90.0%, tench 10.0% unreadable: {reason}"
    assert " ".join(right.split()) == told


def test_lists_hold_paths_by_line_or_zero_byte(photos, tmp_path, monkeypatch):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{photos}/0.png\r\n\n{photos}/gone.png\n  \n{photos}/1.png")
    found = pictures([f"@{listed}"]).train
    assert [Path(found.names(i)).name for i in range(3)] == ["0.png", "gone.png", "1.png"]
    names = list(lines(io.BytesIO(b"a b.png\0c\nd.png\0"), "x"))
    assert names == ["a b.png", "c\nd.png"]
    piped = pictures(["-", str(photos / "2.png")], stdin=io.BytesIO(b"x.png\n")).train
    assert [Path(piped.names(i)).name for i in range(2)] == ["x.png", "2.png"]
    with pytest.raises(DataError, match=r"a line of over 65,536 bytes, which is no path"):
        list(lines(io.BytesIO(b"x" * 70_000), "the list"))


def test_an_image_that_vanished_since_is_a_row_with_its_reason(run, photos, tmp_path, capsys):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{photos}/0.png\n{photos}/gone.png\n")
    out = tmp_path / "x.jsonl"
    assert main(["predict", str(run), "--list", str(listed), "--out", str(out)]) == 0
    first, gone = rows_of(out)
    assert first["error"] is None
    assert gone["error"] == "it cannot be opened: No such file or directory"
    assert gone["class"] is None


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take UTF-8 names only")
def test_names_that_are_no_utf_8_come_back_as_they_were(run, tmp_path, capsys):
    folder = os.fsencode(tmp_path / "odd")
    os.mkdir(folder)
    digit(0).save(os.fsdecode(folder + b"/caf\xe9.png"))
    out = tmp_path / "x.jsonl"
    assert main(["predict", str(run), os.fsdecode(folder), "--out", str(out)]) == 0
    [row] = rows_of(out)
    assert os.fsencode(row["file"]) == folder + b"/caf\xe9.png"
    # what has to be UTF-8 has an escape in its place
    for ending in ("csv", "parquet"):
        path = out.with_suffix(f".{ending}")
        assert main(["predict", str(run), os.fsdecode(folder), "--out", str(path)]) == 0
    [stored] = pq.read_table(out.with_suffix(".parquet")).to_pylist()
    assert stored["file"].endswith("caf\\udce9.png")
    assert "caf\\udce9.png" in out.with_suffix(".csv").read_text()
    assert main(["predict", str(run), os.fsdecode(folder)]) == 0


def test_odd_class_names_survive_every_format(mine, photos, tmp_path, capsys):
    odd = ['<script>, "x"', "a\nb", "\x1b[2J", "ćé猫", "[red]", "=1+1", "'", "{}", "\u202e", "9"]
    (mine / "classes.json").write_text(json.dumps(odd))
    (mine / "split.jsonl").unlink()
    picture = str(photos / "0.png")
    best = fmjax.restore(mine).predict(picture, top=10).classes
    assert set(best) == set(odd)
    for ending in ("csv", "jsonl", "parquet"):
        out = str(tmp_path / f"x.{ending}")
        assert main(["predict", str(mine), picture, "--out", out, "--top", "10"]) == 0
    [row] = csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text()))
    assert tuple(json.loads(row["classes"])) == best
    assert tuple(rows_of(tmp_path / "x.jsonl")[0]["classes"]) == best
    assert tuple(pq.read_table(tmp_path / "x.parquet").to_pylist()[0]["classes"]) == best
    capsys.readouterr()
    assert main(["predict", str(mine), picture]) == 0
    assert "\x1b[2J" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "needs pictures behind the run"),
        (["{empty}"], 3, "has no images in it, and 1 with another suffix (as notes.txt)"),
        (["{empty}/none.jpg"], 3, "no file or folder"),
        (["@{empty}/none.txt"], 3, "cannot be read: No such file or directory"),
        (["@{empty}/empty.txt"], 3, "is empty; write a path or address a line"),
        (["-"], 3, "standard input has no paths"),
        (["-", "--list", "-"], 2, "can be read once"),
        (["ftp://host.example/x.png"], 4, "only http:// and https:// can"),
        (["{bad}"], 3, "none of 1 picture could be read"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(
    run, tmp_path, capsys, monkeypatch, arguments, code, says
):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("x")
    (empty / "empty.txt").write_text("\n")
    (empty / "empty.txt").rename(tmp_path / "empty.txt")
    (tmp_path / "bad.png").write_bytes(b"x")
    places = {"{empty}/empty.txt": f"{tmp_path}/empty.txt", "{bad}": f"{tmp_path}/bad.png"}
    given = []
    for argument in arguments:
        for name, place in {**places, "{empty}": str(empty)}.items():
            argument = argument.replace(name, place)
        given.append(argument)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert main(["predict", str(run), *given]) == code
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"top": 0}, "--top is 0; it must be 1 or more"),
        ({"threshold": 1.5}, "--threshold is 1.5; it must be a probability"),
        ({"workers": -1}, "--workers is -1"),
        ({"max_pixels": 0}, "--max-pixels is 0"),
        ({"step": -2}, "--step is -2"),
        ({"out": "x.txt"}, "--out is 'x.txt'; it must be a name that ends in .csv"),
        ({"out": "x.csv", "format": "csv"}, "--format is 'csv'; it must be left out with --out"),
    ],
)
def test_a_bad_flag_is_named(flags, says):
    with pytest.raises(UsageError, match=re.escape(says)):
        PredictConfig(**flags)


def test_a_run_without_a_checkpoint_or_with_damaged_records_is_refused(mine, photos, capsys):
    ask = ["predict", str(mine), str(photos)]
    for content, reason in (
        ("{", "is damaged: Expecting property name"),
        ("{}", "lacks the field 'image_size'"),
        (
            '{"image_size": [0, 8], "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}',
            "two sizes above 0",
        ),
        (
            '{"image_size": [8, 8], "mean": [0.0, 0.0, 0.0], "std": [1.0, 0.0, 1.0]}',
            "std is (1.0, 0.0, 1.0)",
        ),
        (
            '{"image_size": [8, 8], "mean": [0.0, 0.0, NaN], "std": [1.0, 1.0, 1.0]}',
            "mean is [0.0, 0.0, nan]",
        ),
        (
            '{"image_size": [16, 8], "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}',
            "spec.json a model for",
        ),
    ):
        (mine / "preprocessing.json").write_text(content)
        assert main(ask) == 4
        assert reason in capsys.readouterr().err
        with pytest.raises(CheckpointError, match=r"preprocessing\.json is damaged"):
            fmjax.restore(mine)
    (mine / "preprocessing.json").unlink()
    shutil.rmtree(mine / "checkpoints")
    assert main(ask) == 4
    assert "has no checkpoint yet" in capsys.readouterr().err
    assert main(["predict", str(mine.parent), str(photos)]) == 4
    assert "is not the folder of a run" in capsys.readouterr().err


def test_what_a_run_has_recorded_is_what_it_is_shown(mine, photos):
    config = fmjax.preprocess_config(fmjax.restore(mine))
    before = fmjax.restore(mine).predict(photos / "0.png")
    assert read_preprocessing(mine) is None
    assert config == preprocessing(replace(tiny_config(), model=tiny_config().model))
    (mine / "preprocessing.json").write_text(to_json(replace(config, mean=(0.1, 0.2, 0.3))))
    model = fmjax.restore(mine)
    assert model.facts.images.mean == (0.1, 0.2, 0.3)
    assert fmjax.preprocess_config(model).mean == (0.1, 0.2, 0.3)
    assert model.predict(photos / "0.png") != before


def tiny_config() -> fmjax.config.RunConfig:
    return fmjax.config.load_preset(str(tiny.TINY))


@pytest.fixture
def web(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(network, "BACKOFF_S", 0.01)
    monkeypatch.setenv("FMJAX_TIMEOUT_S", "0.3")
    with serving() as server:
        content = io.BytesIO()
        digit(2).save(content, "PNG")
        for name in ("ok", "again", "big", "cut", "page", "slow", "moved", "packed"):
            server.files[f"/{name}.png"] = content.getvalue()
        yield server


def test_addresses_are_fetched_within_bounds(run, photos, web, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(unlabelled, "MOST", 1 << 16)
    web.replies["/again.png"] = [Reply(503), Reply()]
    web.always["/big.png"] = Reply(body=b"x" * (1 << 17))
    web.always["/cut.png"] = Reply(cut=20)
    web.always["/page.png"] = Reply(headers={"Content-Type": "text/html"})
    web.always["/slow.png"] = Reply(wait_s=1.5)
    web.always["/moved.png"] = Reply(302, {"Location": "file:///etc/passwd"})
    names = ("ok", "again", "none", "big", "cut", "page", "moved", "slow")
    listed = tmp_path / "urls.txt"
    nobody = f"http://127.0.0.1:{closed_port()}/x.png"
    addresses = [*(f"{web.base}/{name}.png" for name in names), "ftp://host.example/x.png"]
    listed.write_text("\n".join([*addresses, nobody, str(photos / "2.png")]))
    out = tmp_path / "x.jsonl"
    assert main(["predict", str(run), "--list", str(listed), "--out", str(out)]) == 0
    rows = dict(zip([*names, "ftp", "nobody", "file"], rows_of(out), strict=True))
    for name in ("ok", "again"):
        assert rows[name]["classes"] == rows["file"]["classes"]
    reasons = {
        "none": "answered 404 (not there)",
        "big": "more than",
        "cut": "broke",
        "page": "a web page, not a file",
        "moved": "no web address",
        "ftp": "only http:// and https:// can",
        "nobody": "cannot be reached",
    }
    assert {
        n: r["error"] for n, r in rows.items() if n in reasons and reasons[n] not in r["error"]
    } == {}
    assert rows["slow"]["error"]
