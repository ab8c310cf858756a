"""`fmjax data check --embed`: what neighbours in an embedding tell of images, of the real demo network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from fmjax.cli import main
from fmjax.data.check import neighbours
from fmjax.data.check.neighbours import by_embedding
from fmjax.data.check.pictures import FACTS
from fmjax.data.check.sets import Set
from fmjax.data.sources import digits

DEMO = "demo_vit_ti4.fashion_mnist"
OWN = ("alike-in-two-parts", "doubtful-label", "alike", "outlier")


def as_set(labels: np.ndarray, parts: np.ndarray | None = None, **facts) -> Set:
    """Images of two classes, all of which have pixels of their own."""
    known = np.zeros(len(labels), FACTS)
    known["digest"][:, 0] = np.arange(len(labels))
    for name, values in facts.items():
        known[name] = values
    return Set(
        facts=known,
        parts=np.zeros(len(labels), int) if parts is None else parts,
        labels=labels,
        classes=("cat", "dog"),
        labelled=True,
        name="{}.png".format,
    )


def around(centre: list[float], count: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.1, (count, len(centre)))
    return np.asarray(centre) + noise


@pytest.fixture
def two() -> tuple[np.ndarray, np.ndarray]:
    """features [60, 8] of two classes that are far apart, and their labels."""
    near, far = [1.0, *[0.0] * 7], [0.0, 1.0, *[0.0] * 6]
    return np.vstack([around(near, 30, 0), around(far, 30, 1)]), np.repeat([0, 1], 30)


def kinds(images: Set, features: np.ndarray, **bounds) -> dict[str, list[str]]:
    found = by_embedding(images, features, **({"alike": 0.05, "unlike": 8.0} | bounds))
    return {finding.kind: list(finding.rows()) for finding in found}


def test_two_classes_apart_have_nothing_to_look_at(two):
    features, labels = two
    assert kinds(as_set(labels), features) == {}


def test_a_wrong_label_is_told_with_what_its_neighbours_are(two):
    features, labels = two
    labels[7] = 1
    assert kinds(as_set(labels), features) == {
        "doubtful-label": ["7.png (dog) has 100% neighbours of cat"]
    }


@pytest.mark.parametrize(("part", "kind"), [(0, "alike"), (1, "alike-in-two-parts")])
def test_two_views_of_a_thing_are_a_pair_whatever_part_they_are_in(two, part, kind):
    features, labels = two
    parts = np.zeros(60, int)
    parts[9] = part
    features[9] = features[3] * 2 + 1e-4
    assert kinds(as_set(labels, parts), features) == {kind: ["9.png is like 3.png"]}


def test_copies_of_the_same_pixels_are_told_by_another_finding(two):
    features, labels = two
    features[9] = features[3]
    images = as_set(labels)
    images.facts["digest"][9] = images.facts["digest"][3]
    assert kinds(images, features) == {}


def test_what_is_far_from_all_is_told_and_the_bound_moves_it(two):
    features, labels = two
    features[5] = [0, 0, 0, 0, 0, 0, 0, 1]
    features[5, 0] = 0.4  # of its own class still
    rows = kinds(as_set(labels), features)
    assert [row.split()[0] for row in rows["outlier"]] == ["5.png"]
    assert "outlier" not in kinds(as_set(labels), features, unlike=1e6)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_sets_without_neighbours_are_not_compared(count):
    assert (
        by_embedding(as_set(np.zeros(count, int)), np.ones((count, 4)), alike=0.5, unlike=2.0) == []
    )


def test_blocks_of_images_find_what_all_at_once_do(two, monkeypatch):
    features, labels = two
    labels[7] = 1
    features[9] = features[3] * 2 + 1e-4
    features[20:34] = features[20]  # more copies than neighbours
    images = as_set(labels)
    whole = kinds(images, features)
    assert set(whole) == {"doubtful-label", "alike"}
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    told = []

    def watched(blocks, total):
        for count, near in blocks:
            told.append((count, total))
            yield near

    assert kinds(images, features, compared=watched) == whole
    assert told == [(7, 60)] * 8 + [(4, 60)]


def test_no_image_is_its_own_neighbour(two):
    features, _ = two
    features[10:25] = features[10]
    expected = NearestNeighbors(n_neighbors=10, metric="cosine", algorithm="brute").fit(features)
    [(_, near)] = neighbours._nearest(features)
    assert not (near.places == np.arange(60)[:, None]).any()
    np.testing.assert_allclose(near.distances, expected.kneighbors()[0], atol=1e-12)


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """Digits in two parts: one has a wrong label, one is in val again a little turned, and one is noise."""
    root = tmp_path_factory.mktemp("digits")
    found = digits.digits()
    for number in range(300):
        name = str(found.classes[found.labels[number]])
        part = "train" if number % 5 else "val"
        path = root / part / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(found.fields["image"](number))).save(path)
    [zero, *_] = sorted((root / "train" / "0").iterdir())
    zero.rename(root / "train" / "1" / "wrong.png")
    seen = Image.open(next((root / "train" / "7").iterdir()))
    seen.rotate(1, resample=Image.Resampling.BICUBIC).save(root / "val" / "7" / "again.png")
    noise = np.random.default_rng(0).integers(0, 255, (*seen.size[::-1], 3)).astype(np.uint8)
    Image.fromarray(noise).save(root / "train" / "4" / "noise.png")
    (root / "train" / "4" / "broken.png").write_bytes(b"no picture")
    return root


def test_the_demo_network_finds_what_was_planted_among_real_pictures(planted, capsys):
    source = f"folder:{planted}"
    assert main(["data", "check", source, "--embed", DEMO, "--json"]) == 0
    rows = {one["kind"]: one["rows"] for one in json.loads(capsys.readouterr().out)["findings"]}
    assert [
        row for row in rows["doubtful-label"] if "wrong.png (1)" in row and row.endswith("of 0")
    ]
    assert [row for row in rows["alike-in-two-parts"] if "again.png" in row]
    assert "noise.png" in rows["outlier"][0]
    assert len(rows["unreadable"]) == 1


def test_a_long_comparison_is_told_with_its_time_once_its_first_part_is_timed(
    planted, capsys, monkeypatch
):
    monkeypatch.setattr(neighbours, "BLOCK", 100)
    assert main(["data", "check", f"folder:{planted}", "--embed", DEMO]) == 0
    said = capsys.readouterr().out
    assert (
        len(re.findall(r"^compare   302 images with each other, about 0:\d\d:\d\d$", said, re.M))
        == 1
    )
    # what is compared at once is not worth a line
    monkeypatch.setattr(neighbours, "BLOCK", 1000)
    assert main(["data", "check", f"folder:{planted}", "--embed", DEMO]) == 0
    assert "compare " not in capsys.readouterr().out


def test_without_a_network_nothing_of_it_is_told_and_jax_is_not_read(planted):
    code = (
        "import sys; from fmjax.cli import main;"
        f"main(['data', 'check', 'folder:{planted}', '--json']); assert 'jax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {one["kind"] for one in json.loads(done.stdout)["findings"]} & set(OWN)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--embed", "dinov9"], 2, "unknown model 'dinov9'"),
        (["--alike", "0.5"], 2, "--alike is 0.5; it must be left out, as there is no --embed"),
        (["--checkpoint", "x.npz"], 2, "it must be left out, as there is no --embed"),
        (["--embed", DEMO, "--alike", "1"], 2, "--alike is 1.0; it must be above 0 and below 1"),
        (["--embed", DEMO, "--unlike", "nan"], 2, "--unlike is nan; it must be above 0, and finite"),
        (["--embed", DEMO, "--checkpoint", "gone.npz"], 4, "no checkpoint at gone.npz"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_a_picture_is_read(planted, words, code, says, capsys):
    assert main(["data", "check", f"folder:{planted}", *words]) == code
    assert says in capsys.readouterr().err
