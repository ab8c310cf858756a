"""`fmjax report --backbones`: the numbers are those of knn and probe, and what one lacks ends nothing."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmjax.cli import main
from fmjax.config import ImagesConfig, KnnConfig, ModelConfig, ProbeConfig
from fmjax.data.sources import digits
from fmjax.programs.features import knn_main, probe_main
from fmjax.report.comparison import Row, best
from tests.support.browser import look

DEMO = "demo_vit_ti4.fashion_mnist"
OTHER = "ViT-B-16.openai"  # whose weights are not here


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Eight digits of four classes, the name of one of which is no markup."""
    root = tmp_path_factory.mktemp("digits")
    found = digits.digits()
    names = ("zero", "one", "two", "<i>three")
    for label, name in enumerate(names):
        (root / name).mkdir()
        for number in np.flatnonzero(found.labels == label)[:8]:
            pixels = np.asarray(found.fields["image"](int(number)))
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def page(images, tmp_path_factory) -> Path:
    """One backbone that is here, and one that is not."""
    out = tmp_path_factory.mktemp("page") / "out.html"
    words = ["report", "--backbones", DEMO, OTHER, "--checkpoints", "published", "gone.npz"]
    words += ["--data", str(images), "--out", str(out), "--folds", "4", "--maps", "2"]
    assert main(words) == 0
    return out


def numbers(text: str) -> list[float]:
    return [float(value) for value in re.findall(r'<td class="n[^"]*" data-value="([^"]*)"', text)]


def test_the_accuracies_are_those_of_the_commands_of_their_own(page, images):
    settings = {
        "model": ModelConfig(name=DEMO),
        "data": ImagesConfig(source=f"folder:{images}"),
    }
    vote, probe, per_second, memory, parameters, *_ = numbers(page.read_text())
    assert vote == knn_main(KnnConfig(**settings))
    assert probe == probe_main(ProbeConfig(**settings, folds=4))
    assert per_second > 0
    # the float32 parameters, and what a batch takes beside them
    assert memory > 4 * parameters


def test_one_backbone_that_is_not_there_is_a_note_and_not_the_end(page):
    text = page.read_text()
    assert f"{OTHER}: no checkpoint at gone.npz" in text
    assert text.count("<figure>") == 2


def test_the_page_needs_nothing_and_names_are_only_text(page, images):
    text = page.read_text()
    assert "<i>three" not in text
    assert "&lt;i&gt;three" in text
    # files by their place in the folder: where that lies is nobody's business
    assert re.search(r'class="file">(zero|one|two|&lt;i&gt;three)/\d+\.png<', text)
    assert str(images) not in text
    assert not re.search(r'(src|href)="(?!data:|#)', text)


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_fits_a_desk_and_a_phone(page, width):
    seen = look(page, width=width)
    assert [seen[name] for name in ("overflow", "without_alt", "broken", "unnamed")] == [0] * 4
    assert (seen["requests"], seen["said"]) == ([page.as_uri()], [])
    assert seen["links_to_nowhere"] == 0
    assert seen["cut_captions"] == 0
    # on a desk the table is seen whole, its last column too
    assert seen["scrolling"] == 0 or width < 1200


def test_the_best_of_a_column_is_named_where_there_is_one():
    rows = [
        Row(name=name, parameters=1, gflops=1.0, size="", width=1, licence="", **known)
        for name, known in {
            "a": {"neighbours": 0.5, "memory": 2, "probe": 0.7},
            "b": {"neighbours": 0.6, "memory": 1, "probe": 0.7},
            "c": {},
        }.items()
    ]
    assert best(tuple(rows)) == {"neighbours": "b", "memory": "b"}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([DEMO], 2, "--backbones has 1 models; name two or more"),
        ([DEMO, DEMO], 2, f"--backbones names '{DEMO}' twice"),
        ([DEMO, "dinov9"], 2, "unknown model 'dinov9'"),
        ([DEMO, OTHER, "--checkpoints", "x.npz"], 2, "--checkpoints is ('x.npz',)"),
        ([DEMO, OTHER, "--k", "32"], 2, "--k 32 neighbours of 32 images"),
        ([DEMO, OTHER, "--k", "0"], 2, "--k is 0"),
        ([DEMO, OTHER, "--c", "0"], 2, "--c is 0.0"),
        ([DEMO, OTHER, "--seed", "-1"], 2, "--seed is -1"),
        ([DEMO, OTHER, "--batch-size", "0"], 2, "--batch-size is 0"),
        ([DEMO, OTHER, "--out", "page.pdf"], 2, "--out is 'page.pdf'; it must end in .html"),
        ([DEMO, OTHER, "--checkpoints", "a.npz", "b.npz"], 3, "none of 2 backbones could be compared"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_a_backbone_is_loaded(
    images, words, code, says, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["report", "--backbones", *words, "--data", str(images)]) == code
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_is_there_stays_unless_it_is_to_be_replaced(page, images, capsys):
    before = page.read_text()
    words = ["report", "--backbones", DEMO, OTHER, "--data", str(images), "--out", str(page)]
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err
    assert page.read_text() == before
