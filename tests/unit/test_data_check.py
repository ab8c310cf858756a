"""`fmjax data check`: every planted fault is found by its kind and its name, and a clean set has none."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmjax.cli import main
from fmjax.config.data import ImagesConfig
from fmjax.config.sets import DataCheckConfig
from fmjax.data.check.checkup import Report, _by_class, check
from fmjax.data.check.kinds import KINDS, LEFT_OUT
from fmjax.data.check.sets import _groups
from fmjax.data.example import Examples
from fmjax.errors import Stopped
from fmjax.programs import data_check
from fmjax.programs.data_check import lines
from fmjax.report.audit import page
from tests.support.planted import CLASSES, FAULTS, clean, picture, saved
from tests.unit.test_neighbours import OWN

# kinds that a folder with three parts cannot have
ELSEWHERE = {"refused", "one-class", "class-of-one-image", "too-many-unreadable", "wrong-mask", "closed-folder",
             "beside-parts", "mask-without-image", "mask-of-other-format", "left-out", *OWN}  # fmt: skip


def asked(root: Path, scheme: str = "folder", **options) -> DataCheckConfig:
    data = ImagesConfig(source=f"{scheme}:{root}")
    return DataCheckConfig(data=data, **{"large": 100_000, **options})


def found(report: Report) -> dict[str, list[str]]:
    return {finding.kind: list(finding.rows()) for finding in report.findings}


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """One set with all of the faults."""
    root = tmp_path_factory.mktemp("planted")
    clean(root)
    for plant, _ in FAULTS.values():
        plant(root)
    return root


@pytest.fixture(scope="module")
def report(planted) -> Report:
    return check(asked(planted))


def test_over_twenty_kinds_are_planted_and_none_is_forgotten():
    assert len(FAULTS) > 30
    assert {*FAULTS, *ELSEWHERE} == set(KINDS)
    assert set(LEFT_OUT.values()) <= set(KINDS)


@pytest.mark.parametrize("kind", FAULTS)
def test_every_planted_fault_is_found_by_its_kind_and_name(report, kind):
    _, named = FAULTS[kind]
    assert [row for row in found(report).get(kind, []) if named in row], found(report).get(kind)


def test_a_run_would_stop_for_the_planted_set_and_says_why(report):
    assert [row for row in found(report)["refused"] if "val" in row]


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_alone_is_found_and_brings_no_other_with_it(tmp_path, kind):
    # what one fault comes with, of itself: a class in one part only is one in val or in train alone
    plant, named = FAULTS[kind]
    beside = {
        "class-twins": {"class-not-in-val", "class-with-one-image"},
        "class-not-in-val": {"class-with-one-image"},
        "class-with-one-image": {"class-not-in-val"},
    }
    clean(tmp_path)
    plant(tmp_path)
    rows = found(check(asked(tmp_path)))
    others = set(rows) - {kind, "refused"} - beside.get(kind, set())
    assert others == set()
    assert len(rows[kind]) == (2 if kind == "imbalance" else 1)
    assert named in rows[kind][0]


def test_a_clean_set_has_nothing_to_mend(tmp_path):
    clean(tmp_path)
    report = check(asked(tmp_path))
    assert report.findings == []
    assert report.classes == CLASSES
    assert {role: part.images for role, part in report.parts.items()} == {"train": 12, "val": 12}
    assert report.parts["train"].by_class.tolist() == [4, 4, 4]
    assert report.formats == {"PNG": 24}
    assert report.widths == (48,) * 5


def test_mean_and_deviation_are_those_of_all_pixels(tmp_path):
    clean(tmp_path)
    report = check(asked(tmp_path))
    files = sorted(tmp_path.rglob("*.png"))
    values = np.stack([np.asarray(Image.open(file)) for file in files]) / 255
    assert report.sampled == len(files)
    np.testing.assert_allclose(report.mean, values.mean((0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(report.std, values.std((0, 1, 2)), atol=1e-4)


def test_an_error_is_what_a_run_stops_for(tmp_path):
    clean(tmp_path)
    # without val/, a class of one image cannot be split; unreadable ones beyond the bound
    root = tmp_path / "train"
    saved(picture(300), root / "wolf/0.png")
    for number in range(3):
        (root / "cat" / f"bad {number}.png").write_bytes(b"no picture")
    rows = found(check(asked(root)))
    assert rows["class-of-one-image"] == ["wolf"]
    assert rows["too-many-unreadable"] == ["train has 3 of 16 (19%)"]
    data = ImagesConfig(source=f"folder:{root}", max_bad_share=0.5)
    assert "too-many-unreadable" not in found(check(replace(asked(root), data=data)))


def test_one_class_and_a_folder_that_is_not_there_are_refused_in_a_sentence(tmp_path):
    saved(picture(1), tmp_path / "cat/0.png")
    saved(picture(2), tmp_path / "cat/1.png")
    rows = found(check(asked(tmp_path)))
    assert rows["one-class"] == ["cat"]
    assert "classification needs two or more" in rows["refused"][0]
    gone = found(check(asked(tmp_path / "nowhere")))
    assert list(gone) == ["refused"]
    assert "no folder" in gone["refused"][0]


def test_masks_are_checked_with_their_images(tmp_path):
    for number in range(3):
        saved(picture(number), tmp_path / f"images/{number}.png")
        values = np.full((48, 48), number % 2, np.uint8)
        saved(Image.fromarray(values), tmp_path / f"masks/{number}.png")
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    assert found(check(asked(tmp_path, "masks"))) == {}
    saved(Image.fromarray(np.full((48, 48), 7, np.uint8)), tmp_path / "masks/2.png")
    saved(picture(9, mode="L"), tmp_path / "masks/3.png")
    saved(picture(9, mode="L"), tmp_path / "masks/2.jpg")
    (tmp_path / "masks/1.png").write_bytes(b"no PNG")
    rows = found(check(asked(tmp_path, "masks")))
    assert "masks/1.png is no PNG" in rows["wrong-mask"][0]
    assert "masks/2.png has the value 7" in rows["wrong-mask"][1]
    assert rows["mask-without-image"] == ["masks/3.png"]
    assert rows["mask-of-other-format"] == ["masks/2.jpg"]


def test_what_lies_beside_the_parts_is_named(tmp_path):
    clean(tmp_path)
    saved(picture(3), tmp_path / "extra/0.png")
    assert found(check(asked(tmp_path))) == {"beside-parts": ["extra"]}


def test_the_test_part_is_compared_too(tmp_path):
    clean(tmp_path)
    saved(Image.open(tmp_path / "train/cat/0.png"), tmp_path / "test/cat/0.png")
    rows = found(check(asked(tmp_path)))
    assert rows == {"in-two-parts": ["test/cat/0.png is train/cat/0.png"]}


def test_what_no_run_opens_stops_none(tmp_path):
    clean(tmp_path)
    for name in ("owl", "cat", "CAT"):
        (tmp_path / "test" / name).mkdir(parents=True)
    report = check(asked(tmp_path))
    assert report.findings == []
    assert report.parts["test"].images == 0


def test_an_image_of_several_classes_counts_for_each():
    table = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1]], np.float32)
    examples = Examples(
        fields={"labels": lambda i: table[i]},
        labels=np.zeros(3, np.int32),
        classes=("a", "b", "c"),
        names=str,
        labelled=False,
    )
    assert _by_class(examples, np.array([True, True, False])).tolist() == [1, 0, 2]
    # and of a mask's classes none is counted
    plain = replace(examples, fields={})
    assert _by_class(plain, np.ones(3, bool)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("flag", "value", "kind"),
    [("small", 49, "small"), ("large", 2303, "large"), ("long", 1.0, None), ("ratio", 1.0, None)],
)
def test_every_bound_is_where_its_flag_says(tmp_path, flag, value, kind):
    clean(tmp_path)
    # at the bound itself nothing is named
    rows = found(check(asked(tmp_path, **{flag: value})))
    assert list(rows) == ([kind] if kind else [])
    edge = {"small": 48, "large": 2304}.get(flag)
    if edge:
        assert found(check(asked(tmp_path, **{flag: edge}))) == {}
    if flag == "long":
        saved(picture(5, width=64), tmp_path / "train/cat/wide.png")
        assert found(check(asked(tmp_path, long=1.3)))["long"] == ["train/cat/wide.png (64 x 48)"]
    if flag == "ratio":
        saved(picture(5), tmp_path / "train/cat/more.png")
        rows = found(check(asked(tmp_path, ratio=1.2)))
        assert rows["imbalance"] == ["dog has 4 of 5", "fox has 4 of 5"]


def test_groups_are_those_of_equal_keys():
    keys = np.array([3, 1, 3, 2, 1, 3], np.uint64)
    assert [group.tolist() for group in _groups(keys)] == [[1, 4], [0, 2, 5]]
    assert list(_groups(keys[:0])) == []


def test_threads_do_not_change_what_is_said(planted, report):
    data = ImagesConfig(source=f"folder:{planted}", threads=1)
    assert lines(check(replace(asked(planted), data=data))) == lines(report)


def test_the_command_ends_with_3_where_a_run_would_stop(planted, capsys, tmp_path):
    place = tmp_path / "check.html"
    source = f"folder:{planted}"
    assert main(["data", "check", source, "--page", str(place), "--large", "100000"]) == 3
    said = capsys.readouterr()
    assert "would stop: refused, two-folders-for-a-part, class-not-in-train" in said.err
    assert "[in-two-parts]\n            val/cat/again.bmp is train/cat/0.png" in said.out
    assert "turned by their EXIF orientation" in said.out
    assert place.read_text().startswith("<!doctype html>")
    assert main(["data", "check", source, "--page", str(place)]) == 2
    assert "--force" in capsys.readouterr().err


def test_the_record_for_machines_has_every_row(planted, report, capsys):
    assert main(["data", "check", f"folder:{planted}", "--json", "--large", "100000"]) == 3
    record = json.loads(capsys.readouterr().out)
    assert {row["kind"]: row["rows"] for row in record["findings"]} == found(report)
    assert record["would_stop"] is True
    assert record["parts"]["train"]["by_class"]["dog"] > 90
    assert record["parts"]["train"]["readable"] == record["parts"]["train"]["images"] - 1


def test_a_clean_set_ends_with_0(tmp_path, capsys):
    clean(tmp_path)
    assert main(["data", "check", f"folder:{tmp_path}"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.endswith("result    nothing to mend\n")


def test_a_source_is_needed_and_a_wrong_one_is_a_usage_error(capsys):
    assert main(["data", "check"]) == 2
    assert "fmjax data check folder:images" in capsys.readouterr().err
    assert main(["data", "chek", "digits"]) == 2
    assert "did you mean check" in capsys.readouterr().err
    assert main(["data", "check", "files:x"]) == 2
    assert "--data.source is 'files:x'" in capsys.readouterr().err


def test_ctrl_c_ends_with_a_sentence_and_without_a_page(tmp_path, monkeypatch):
    clean(tmp_path)
    place = tmp_path / "check.html"

    def stopped(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(data_check, "counted", stopped)
    with pytest.raises(Stopped, match="stopped after 0 images of folder:"):
        data_check.main(asked(tmp_path, page=str(place)))
    assert not place.exists()


class Tags(HTMLParser):
    """Which tags a page has, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_no_name_of_a_file_is_markup_in_the_page(tmp_path):
    clean(tmp_path)
    saved(picture(1), tmp_path / "train/cat/<script>alert(1)<!--.png")
    saved(picture(1), tmp_path / "train/cat/\u202egnp.png")
    parser = Tags()
    parser.feed("\n".join(page(check(asked(tmp_path)))))
    assert "script" not in parser.tags
    assert "<script>alert(1)<!--.png" in parser.text
    assert "\u202e" not in parser.text
    assert {"details", "table", "style"} <= parser.tags
