"""The parts of a report, each for itself, and its page out of whatever a run has left."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from fmjax.cli import main
from fmjax.config.report import ReportConfig
from fmjax.data.split import Split, write_split
from fmjax.engine import predictions
from fmjax.errors import UsageError
from fmjax.programs import report as program
from fmjax.report import charts
from fmjax.report.atlas import Atlas, Point, atlas, hues, placed
from fmjax.report.confusion import MOST_CLASSES, blocked, class_rows, confusion, counted_pairs
from fmjax.report.figures import draw_confusion
from fmjax.report.masks import image_ious, segmentation
from fmjax.report.pages import Mistake, Page, PatchPicture, rendered
from fmjax.report.patches import patch_maps
from fmjax.report.pictures import photo, sprite
from fmjax.tasks.scores import calibration_error, reliability
from tests.support.run_folders import made, photographs, predicted

HOSTILE = "<script>alert('x')</script>"
REVERSED = "\u202egnp.exe"
NO_PICTURES = ["--no-pictures"]


def test_a_line_goes_from_corner_to_corner():
    chart = charts.line_chart(
        "loss", [("training", "train", [(0.0, 0.0), (10.0, 1.0)])], x_label="step"
    )
    assert chart is not None
    left, top, right, bottom = chart.box
    assert chart.lines[0].path == f"M{left} {bottom}L{right} {top}"
    assert chart.says == "loss. training: 0 at step 0, 1 at step 10."
    assert [text for _, text in chart.x_ticks] == ["0", "2", "4", "6", "8", "10"]


def test_a_chart_without_points_is_none_and_a_long_line_is_thinned():
    assert charts.line_chart("x", [("a", "val", [])], x_label="step") is None
    points = [(float(x), float(x)) for x in range(10_000)]
    thin = charts.thinned(points)
    assert len(thin) == charts.MOST_POINTS
    assert (thin[0], thin[-1]) == (points[0], points[-1])


def test_a_share_ends_at_all_and_its_best_step_is_marked():
    points = [(1.0, 0.2), (2.0, 0.97)]
    chart = charts.line_chart(
        "accuracy", [("held out", "val", points)], x_label="step", share=True, best=(2.0, 0.97)
    )
    assert chart is not None
    assert chart.y_ticks[-1][1] == "100%"
    assert chart.mark is not None
    assert chart.mark[2] == "best, step 2: 97%"


def test_reliability_has_the_bins_of_the_calibration_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 500)
    right = rng.uniform(size=500) < confidence**2
    counts, mean, accuracy = reliability(confidence, right)
    apart = (counts * np.abs(mean - accuracy)).sum() / 500
    assert apart == pytest.approx(calibration_error(confidence, right))
    chart = charts.reliability_chart(mean, accuracy, counts)
    assert len(chart.bars) == np.count_nonzero(counts)


def test_confusions_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    true, found = rng.integers(0, 6, 200), rng.integers(0, 6, 200)
    names = tuple("abcdef")
    expected = confusion_matrix(true, found)
    shown = confusion(true, found, names)
    assert np.allclose(shown.shares, expected / expected.sum(1, keepdims=True))
    assert shown.wrong == 200 - np.trace(expected)
    off = expected - np.diag(np.diag(expected))
    assert shown.pairs[0].count == off.max()
    assert [pair.count for pair in shown.pairs] == sorted(off.ravel())[::-1][: len(shown.pairs)]


def test_many_classes_are_drawn_in_blocks_and_more_not_at_all():
    true = np.arange(1000)
    found = np.where(true % 10 == 0, (true + 500) % 1000, true)
    names = tuple(f"class {i}" for i in range(1000))
    shown = confusion(true, found, names)
    assert (shown.block, shown.cells, shown.shares) == (5, 200, ())
    rows, columns, counts = counted_pairs(true, found, 1000)
    blocks = blocked(rows, columns, counts, classes=1000, block=5)
    assert np.allclose(blocks.sum(1), 1)
    assert blocks[0, 100] == pytest.approx(1 / 5)
    more = tuple(f"{i}" for i in range(10_000))
    assert confusion(true, found, more).picture == ""
    assert confusion(true, found, more).kinds == 100


def test_a_confusion_matrix_is_drawn_whatever_its_classes_are_called(tmp_path):
    odd = ("caf\udce9", "$x_{", "a$b$", HOSTILE, REVERSED, "\x1b[2J", "猫")
    labels = np.arange(len(odd))
    draw_confusion(tmp_path / "odd.png", labels, labels, odd)
    with Image.open(tmp_path / "odd.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.parametrize("classes", [101, 10_000])
def test_a_confusion_matrix_of_many_classes_has_no_names_and_one_of_more_is_not_drawn(
    tmp_path, classes
):
    labels = np.arange(classes)
    draw_confusion(tmp_path / "many.png", labels, labels, [f"class {i}" for i in range(classes)])
    assert (tmp_path / "many.png").exists() == (classes <= MOST_CLASSES)


def test_the_lowest_class_comes_first_and_those_without_images_last():
    scores = (np.zeros(3), np.zeros(3), np.asarray([0.0, 0.9, 0.2]), np.asarray([0, 5, 5]))
    pairs = (np.asarray([2, 2, 1]), np.asarray([1, 0, 1]), np.asarray([3, 1, 5]))
    rows = class_rows(("none", "good", "bad"), scores, pairs)
    assert [row.name for row in rows] == ["bad", "good", "none"]
    assert (rows[0].taken_for, rows[0].mistakes, rows[1].taken_for) == ("good", 3, "")


def test_patches_of_one_kind_have_one_colour_in_all_images_and_the_middle_is_kept():
    rng = np.random.default_rng(0)
    patches = 0.01 * rng.standard_normal((3, 8, 8, 6))
    patches[:, 2:6, 2:4, 0] += 5
    patches[:, 2:6, 4:6, :2] += 5
    # images that are darker over all
    found = patch_maps(patches)
    expected = np.zeros((8, 8), bool)
    expected[2:6, 2:6] = True
    assert np.array_equal(found.foreground, np.broadcast_to(expected, (3, 8, 8)))
    left, right = found.colours[:, 2:6, 2:4, 0], found.colours[:, 2:6, 4:6, 0]
    assert np.ptp(left.astype(int)) < 10
    assert np.ptp(right.astype(int)) < 10
    assert abs(int(left.mean()) - int(right.mean())) > 150
    # mirrored features are the same figure: signs are fixed
    assert np.array_equal(patch_maps(-patches).foreground, found.foreground)


def test_places_are_the_same_each_time_and_alike_lie_together():
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.standard_normal((2, 16)), 20, 0)
    features = (centres + 0.05 * rng.standard_normal((40, 16))).astype(np.float32)
    how, places = placed(features)
    assert how == "t-SNE"
    assert np.array_equal(places, placed(features)[1])
    first, second = places[:20], places[20:]
    apart = np.linalg.norm(first.mean(0) - second.mean(0))
    assert apart > 2 * max(first.std(), second.std())
    assert placed(features[:5])[0] == "PCA"


def test_an_atlas_of_images_some_of_which_are_gone():
    images = [Image.new("RGB", (8, 12)), None, Image.new("RGB", (100, 50))]
    features = np.eye(3, 4, dtype=np.float32)
    found = atlas(features, images, ["a", "b", "c"], ["x", "x", "y"], ["x", "y", "y"])
    assert [point.tile for point in found.points] == [0, -1, 1]
    assert found.columns == 2
    assert len({*hues(10)}) == 10


def test_a_picture_is_small_and_a_sheet_has_a_square_for_each():
    noise = np.random.default_rng(0).integers(0, 255, (900, 600, 3), np.uint8)
    uri = photo(Image.fromarray(noise), 192)
    assert uri.startswith("data:image/webp;base64,")
    assert len(uri) < 40_000
    _, columns = sprite([Image.new("RGB", (8, 8))] * 5, 48)
    assert columns == 3


def test_a_segmentation_is_scored_by_class_and_by_picture():
    overlap = np.zeros((2, 3, 3), np.int32)
    overlap[0] = [[10, 10, 10], [5, 10, 10], [0, 0, 0]]
    overlap[1] = [[10, 10, 10], [0, 0, 10], [0, 10, 0]]
    each = image_ious(overlap)
    assert np.allclose(each, [(1 + 5 / 15) / 2, 1 / 3])
    pictures = np.zeros((2, 4, 4, 3), np.uint8)
    masks = np.zeros((2, 4, 4), np.uint8)
    rows = {"overlap": overlap, "picture": pictures, "true": masks, "found": masks}
    found = segmentation(rows, ["a", "b"], ("sky", "sea", "none"))
    # none has no pixel, and stands last
    assert [row.name for row in found.classes] == ["sea", "sky", "none"]
    assert [one.name for one in found.worst] == ["b", "a"]


def test_flags_have_their_ranges():
    for field, value in (("maps", -1), ("maps", 25), ("atlas", 2001), ("batch_size", 0)):
        with pytest.raises(UsageError, match=f"--{field.replace('_', '-')} is {value}"):
            ReportConfig(**{field: value})


def page(run: Path, *flags: str) -> str:
    assert main(["report", str(run), *NO_PICTURES, *flags]) == 0
    return (run / "report.html").read_text()


def logits(images, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    count, classes = len(images.split.val), len(images.split.classes)
    found = rng.standard_normal((count, classes)).astype(np.float32)
    found[np.arange(count), images.split.val.labels] += 2
    return found


@pytest.fixture
def finished(tmp_path):
    """A run of hostile class names whose images are there, and its images."""
    source = photographs(tmp_path / "images", ("cat", "dog&amp", "emu <b>", REVERSED, "o" * 80))
    _, images = made(tmp_path / "run", f"folder:{source}")
    rows = {"logits": -logits(images), "label": images.split.val.labels}
    assert predicted(tmp_path / "run", images, 8, rows) == ""
    return tmp_path / "run", images


def test_every_name_is_only_a_text(finished, tmp_path):
    run, images = finished
    text = page(run)
    assert "emu <b>" not in text
    assert "emu &lt;b&gt;" in text
    assert "dog&amp;amp" in text
    assert "\u202e" not in text
    # no file, script or style of anybody else
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    assert text.count("<script") == 1
    # and names that a folder could not have
    classes = (HOSTILE, "'\"><img src=x onerror=alert(1)>", *images.split.classes[2:])
    for name in ("classes.json", "split.jsonl"):
        (run / name).unlink()
    _rewritten(run, images, classes)
    text = page(run)
    assert HOSTILE not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text


def _rewritten(run: Path, images, classes) -> None:
    (run / "classes.json").write_text(json.dumps(classes))
    write_split(run, Split(classes, images.split.train, images.split.val))


def test_an_image_that_vanished_is_named(finished, capsys):
    run, images = finished
    gone = [name for name in images.split.val.names if name.startswith("cat/")]
    for name in gone:
        (run.parent / "images" / name).unlink()
    text = page(run)
    assert text.count('class="gone"') == len(gone)
    assert f'aria-label="{gone[0]}, which is not there any more"' in text
    assert f"{len(gone)} removed (" in capsys.readouterr().out
    # and with all of them, the page says so
    shutil.rmtree(run.parent / "images")
    text = page(run)
    assert text.count('class="gone"') == len(images.split.val)
    assert "no images: " in text


def test_a_half_finished_run_shows_what_is_there(tmp_path, capsys):
    source = photographs(tmp_path / "images", ("cat", "dog"))
    made(tmp_path / "run", f"folder:{source}", at=3)
    text = page(tmp_path / "run")
    assert "the run is not finished: it is at step 3 of 8" in text
    assert 'id="curves"' in text
    assert 'id="confusion"' not in text
    assert "the run has no predictions to look at" in capsys.readouterr().out
    # before its first step there is no curve either
    (tmp_path / "run/metrics.jsonl").unlink()
    text = page(tmp_path / "run")
    assert "step 0 of 8" in text
    assert 'id="curves"' not in text


def test_the_share_of_the_peak_is_shown_where_it_is_known(tmp_path):
    source = photographs(tmp_path / "images", ("cat", "dog"))
    made(tmp_path / "run", f"folder:{source}")
    text = page(tmp_path / "run")
    assert "MFU, the share of the devices&#39; peak, n/a." in text
    assert "model FLOPs utilisation" not in text
    log = tmp_path / "run" / "metrics.jsonl"
    log.write_text(log.read_text().replace('"data_wait"', '"mfu": 0.412, "data_wait"'))
    text = page(tmp_path / "run")
    assert "MFU, the share of the devices&#39; peak, 41.2%." in text
    assert "model FLOPs utilisation. model FLOPs utilisation: 41.2% at step 1" in text


def test_a_run_without_checkpoint_has_no_pictures_and_a_reason(finished, capsys):
    run, _ = finished
    assert main(["report", str(run)]) == 0
    text = (run / "report.html").read_text()
    assert "has no checkpoint yet" in text
    assert 'id="confusion"' in text


def test_damaged_predictions_leave_the_rest(finished, capsys):
    run, _ = finished
    (run / predictions.PREDICTIONS).write_bytes(b"PK\x03\x04 nothing")
    text = page(run)
    assert "predictions.npz is damaged: " in text
    assert "`fmjax eval RUN` makes it anew" in text
    assert 'id="curves"' in text
    assert 'id="confusion"' not in text


def test_predictions_of_another_step_are_said_to_be(finished):
    run, images = finished
    rows = {"logits": logits(images), "label": images.split.val.labels}
    predicted(run, images, 4, rows)
    assert "the predictions are those of step 4, and the best step is 8" in page(run)


def test_rows_that_are_not_what_their_names_say_give_no_section(finished):
    run, images = finished
    labels = images.split.val.labels
    for rows in (
        {"logits": logits(images)[:, :2], "label": labels},
        {"logits": logits(images), "label": labels + 100},
        {"logits": logits(images), "label": labels.astype(np.float32)},
        {"depth": logits(images)},
    ):
        predicted(run, images, 8, rows)
        assert 'id="confusion"' not in page(run)


def test_ten_thousand_classes_fit_a_page(tmp_path):
    source = photographs(tmp_path / "images", ("cat", "dog"))
    _, images = made(tmp_path / "run", f"folder:{source}")
    names = tuple(f"a class with a long name, number {i}" for i in range(10_000))
    run = tmp_path / "run"
    part = images.split.val
    (run / "split.jsonl").unlink()
    _rewritten(run, images, names)
    many = 4
    rng = np.random.default_rng(0)
    rows = {
        "logits": rng.standard_normal((many, 10_000)).astype(np.float32),
        "label": np.arange(many, dtype=np.int32),
    }
    assert len(part) == many
    predicted(run, images, 8, rows)
    text = page(run)
    assert len(text) < 2_000_000
    assert "The 1,000 lowest of 10,000 classes" in text


def test_ten_thousand_images_of_a_thousand_classes_take_less_than_5_mb():
    rng = np.random.default_rng(0)
    # noise is what a picture takes most for
    noise = [Image.fromarray(rng.integers(0, 255, (224, 224, 3), np.uint8)) for _ in range(24)]
    pictures = [photo(image, 192) for image in noise]
    mistakes = tuple(Mistake("a.png", "x", "y", 0.9, picture, False) for picture in pictures)
    maps = tuple(PatchPicture("a.png", "x", uri, False, uri, uri, ()) for uri in pictures[:6])
    true = rng.integers(0, 1000, 10_000)
    found = np.where(rng.uniform(size=10_000) < 0.3, rng.integers(0, 1000, 10_000), true)
    names = tuple(f"class {i}" for i in range(1000))
    each = (*rng.uniform(size=(3, 1000)), np.bincount(true, minlength=1000))
    point = Point(1.0, 1.0, "#123456", "val/a.png", "x", "y", 0)
    sheet, columns = sprite([noise[i % 24] for i in range(400)], 48)
    whole = Page(
        title="t",
        lead="l",
        made="m",
        run=(("model", "m"),),
        settings="{}",
        confusion=confusion(true, found, names),
        classes=class_rows(names, each, counted_pairs(true, found, 1000)),
        class_count=1000,
        mistakes=mistakes,
        maps=maps,
        atlas=Atlas("t-SNE", (point,) * 400, (), sheet, columns),
    )
    size = sum(len(piece) for piece in rendered(whole))
    assert 500_000 < size < 5_000_000


def test_a_page_that_cannot_be_written_is_a_sentence_and_ends_no_run(finished, capsys):
    run, images = finished
    (run / "report.html.part").mkdir()
    assert main(["report", str(run), *NO_PICTURES]) == 5
    assert "Is a directory" in capsys.readouterr().err
    config, _ = program.read_run(run)
    said = program.at_end(run, config, images)
    assert said.startswith("note    report.html could not be made: ")
    assert main(["report", str(run), "--out", str(run / "x.txt")]) == 2
    assert "it must end in .html" in capsys.readouterr().err
    assert main(["report", str(run.parent)]) == 4
    assert "is not the folder of a run" in capsys.readouterr().err


def test_whatever_goes_wrong_a_finished_run_stays_one(finished, monkeypatch):
    run, images = finished

    def fails(*args, **options):
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(program, "gathered", fails)
    config, _ = program.read_run(run)
    said = program.at_end(run, config, images)
    assert said == "note    report.html could not be made: nobody thought of this"


def test_nothing_needs_a_screen(finished, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("MPLBACKEND", "a backend that is not there")
    assert "</html>" in page(finished[0])
