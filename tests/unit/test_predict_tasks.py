"""What each task says of pictures alone: classes, several classes, masks, and the rows of a task of one's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import fmjax
from fmjax.cli import main
from fmjax.config import ClassifyConfig, MultiLabelConfig, RunConfig, SegmentConfig, TaskConfig
from fmjax.data import masks
from fmjax.data.split import Part, Split
from fmjax.engine.backbone import build, preprocessing
from fmjax.engine.checkpoint import save_params
from fmjax.engine.plan import make_task
from fmjax.engine.records import write_run
from fmjax.models.heads import linear_head
from fmjax.tasks.task import Task
from fmjax.trees import flat, nested
from tests.support import tiny

CLASSES = ("sky", "sea", "land")


@pytest.fixture(scope="module", autouse=True)
def preset() -> Iterator[RunConfig]:
    with tiny.known() as known:
        yield known


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two pictures of other shapes than the network's, and one that is none."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, size in (("wide", (20, 30, 3)), ("tall", (33, 9, 3))):
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"x")
    return folder


def made(out: Path, preset: RunConfig, task: Any, **settings: Any) -> Path:
    """A run of a task whose parameters are random, its head's too."""
    config = replace(preset, task=task, out=str(out), **settings)
    backbone = build(config, None)
    images = preprocessing(config, backbone.spec)
    net = make_task(config, images).parts(backbone, CLASSES, nnx.Rngs(0))
    params = {path: np.asarray(leaf) for path, leaf in flat(net).items()}
    rng = np.random.default_rng(0)
    for path in params:
        if path.startswith("head"):
            params[path] = rng.standard_normal(params[path].shape).astype(np.float32)
    nothing = Part([], np.zeros(0, np.int32), np.zeros(0, np.int64))
    write_run(out, config, Split(CLASSES, nothing, nothing), backbone.spec, images)
    save_params(out, 4, nested({path: jnp.asarray(leaf) for path, leaf in params.items()}))
    return out


def answers(run: Path, photos: Path, out: Path, *flags: str) -> dict[str, dict[str, Any]]:
    assert main(["predict", str(run), str(photos), "--out", str(out), *flags]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return {Path(row["file"]).stem: row for row in rows}


def logits(model: fmjax.ViT, path: Path) -> np.ndarray:
    images = fmjax.preprocess(path, fmjax.preprocess_config(model))
    return np.asarray(jax.jit(lambda x: model(x).logits)(images), np.float64)[0]


def test_a_yes_or_no_for_each_class_is_read_as_such(preset, photos, tmp_path):
    run = made(tmp_path / "run", preset, ClassifyConfig(loss="bce"))
    model = fmjax.restore(run)
    assert model.facts.reading == "sigmoid"
    found = answers(run, photos, tmp_path / "x.jsonl")
    shares = 1 / (1 + np.exp(-logits(model, photos / "wide.png")))
    order = np.argsort(-shares)
    assert found["wide"]["classes"] == [CLASSES[i] for i in order]
    assert found["wide"]["probabilities"] == pytest.approx(shares[order], abs=1e-5)
    assert model.predict(photos / "wide.png").probabilities == pytest.approx(
        shares[order], rel=1e-4
    )


def test_several_classes_are_those_above_the_threshold(preset, photos, tmp_path):
    run = made(tmp_path / "run", preset, MultiLabelConfig())
    shares = 1 / (1 + np.exp(-logits(fmjax.restore(run), photos / "wide.png")))
    middle = float(np.sort(shares)[1])
    for threshold, count in ((0.0, 3), (middle - 1e-4, 2), (middle + 1e-4, 1), (1.0, 0)):
        out = tmp_path / f"{count}.jsonl"
        row = answers(run, photos, out, "--threshold", str(threshold))["wide"]
        expected = [i for i in np.argsort(-shares) if shares[i] > threshold]
        assert len(expected) == count
        assert row["classes"] == [CLASSES[i] for i in expected]
        assert row["probabilities"] == pytest.approx(shares[expected], abs=1e-5)
        assert row["error"] is None
    for ending in ("csv", "parquet"):
        out = tmp_path / f"x.{ending}"
        assert main(["predict", str(run), str(photos), "--out", str(out)]) == 0


def test_a_segmentation_writes_a_mask_in_the_size_of_each_picture(
    preset, photos, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = made(tmp_path / "run", preset, SegmentConfig())
    found = answers(run, photos, tmp_path / "x.jsonl", "--masks", "found")
    assert found["broken"]["mask"] is None
    assert sorted(path.name for path in Path("found").iterdir()) == ["1_tall.png", "2_wide.png"]
    for name in ("wide", "tall"):
        row = found[name]
        with Image.open(photos / f"{name}.png") as picture:
            size = picture.size
        values = masks.read(Path(row["mask"]), name=name).values
        assert values.shape[::-1] == size
        shares = np.bincount(values.ravel(), minlength=3) / values.size
        assert row["classes"] == [
            CLASSES[i] for i in np.argsort(-shares, kind="stable")[: len(row["classes"])]
        ]
        assert row["shares"] == pytest.approx(
            np.sort(shares)[::-1][: len(row["classes"])], abs=1e-5
        )
        assert sum(row["shares"]) == pytest.approx(1, abs=1e-5)
    # each pixel is of the class that the network finds at its place
    model = fmjax.restore(run)
    assert model.facts.classes == CLASSES
    # what is there already is not written among
    assert main(["predict", str(run), str(photos), "--masks", "found"]) == 2
    assert "--masks 'found' is not empty" in capsys.readouterr().err
    assert main(["predict", str(run), str(photos), "--masks", "found", "--force"]) == 0


def test_masks_lie_where_the_network_saw_them():
    from fmjax.tasks.segment import _said

    # a picture twice as wide as high fills the upper half of a square image, in which the left is of class 1
    seen = np.full((8, 8), 2, np.uint8)
    seen[:4] = 0
    seen[:4, :2] = 1
    row = _said(seen, (16, 8), CLASSES)
    expected = np.zeros((8, 16), np.uint8)
    expected[:, :4] = 1
    np.testing.assert_array_equal(row["mask"], expected)
    assert (row["classes"], row["shares"]) == (["sky", "sea"], [0.75, 0.25])


@dataclass(frozen=True, kw_only=True)
class OwnConfig(TaskConfig):
    home = "test_predict_tasks:Own"


class Own(Task):
    """Says how bright a picture is, and its middle."""

    def parts(self, backbone: Any, labels: Any, rngs: Any) -> Any:
        return {"backbone": backbone, "head": linear_head(16, 2, rngs=rngs)}

    def loss(self, net: Any, batch: Any, now: Any) -> Any:
        return (net["head"](net["backbone"](batch["image"]).pooled) ** 2).sum() / now.count, {}

    def outputs(self, net: Any, batch: Any) -> Any:
        image = batch["image"]
        return {"bright": image.mean((1, 2, 3)), "middle": image[:, 4, 4], "label": batch["label"]}

    def scores(self, rows: Mapping[str, Any], labels: Any) -> dict[str, float]:
        return {"loss": 0.0}


PRESET = """
from fmjax.config import RunConfig
from tests.unit.test_predict_tasks import OwnConfig
config = RunConfig(task=OwnConfig())
"""


def test_a_task_of_ones_own_says_its_rows(preset, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(OwnConfig, "home", Own)
    run = made(tmp_path / "run", preset, OwnConfig())
    (tmp_path / "own.py").write_text(PRESET)
    given = ("--preset", str(tmp_path / "own.py"))
    row = answers(run, photos, tmp_path / "x.jsonl", *given)["wide"]
    image = fmjax.preprocess(photos / "wide.png", fmjax.preprocess_config("stored_vit.none"))
    assert row["bright"] == pytest.approx(float(image.mean()), abs=1e-5)
    assert row["middle"] == pytest.approx(np.asarray(image[0, 4, 4]).tolist(), abs=1e-5)
    assert "label" not in row
    for ending in ("csv", "parquet"):
        out = tmp_path / f"x.{ending}"
        assert main(["predict", str(run), str(photos), "--out", str(out), *given]) == 0
    assert main(["predict", str(run), str(photos), *given]) == 0
    # a task that needs more than a picture cannot be asked so
    monkeypatch.setattr(Own, "needs", ("image", "text"))
    assert main(["predict", str(run), str(photos), *given]) == 2
    assert "Own needs the text of each example" in capsys.readouterr().err
