"""`fmjax embed`: pictures with labels and without, three kinds of files, and a command that is stopped and goes on."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors import safe_open

import fmjax
from fmjax.cli import main
from fmjax.config import EmbedConfig, ImagesConfig, ModelConfig
from fmjax.data.sources.digits import digits
from fmjax.engine.backbone import build_model
from fmjax.errors import DataError, FilesError, UsageError
from fmjax.programs import embed as programs
from fmjax.programs.embed import main as embed
from fmjax.programs.embeddings import Parts
from fmjax.programs.features import network
from tests.support import tiny

DIGITS = digits()
MODEL = ModelConfig(name="stored_vit.none", init="random")
FLAGS = ("--model.init", "random")


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """A very small network, which is made and compiled once for all commands that ask for the same."""
    kept = functools.cache(lambda model, mesh: network(EmbedConfig(model=model, mesh=mesh)))
    with tiny.known(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "network", lambda config: kept(config.model, config.mesh))
        yield


@pytest.fixture
def photos(tmp_path) -> Path:
    """A flat folder of ten pictures, two of them in a folder below, one that is none, and a text beside them."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for index in range(10):
        below = "more/" if index > 7 else ""
        Image.fromarray(DIGITS.read(index)["image"]).save(folder / f"{below}{index}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("x")
    return folder


def asked(photos: Path, out: Path, **settings) -> EmbedConfig:
    data = ImagesConfig(source=f"images:{photos}")
    config = EmbedConfig(model=MODEL, data=data, out=str(out), batch_size=8)
    return replace(config, **settings)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def pooled(indices: list[int]) -> np.ndarray:
    """By the model itself."""
    model = build_model(MODEL, (8, 8))
    config = fmjax.preprocess_config("stored_vit.none")
    images = fmjax.preprocess([DIGITS.read(index)["image"] for index in indices], config)
    return np.asarray(jax.jit(lambda x: model(x).pooled)(images))


def test_pictures_without_labels_have_embeddings_in_every_kind_of_file(photos, tmp_path, capsys):
    for ending in ("npz", "parquet", "safetensors"):
        embed(asked(photos, tmp_path / f"x.{ending}"))
    said = capsys.readouterr().out
    assert "left out: 1 with another suffix (notes.txt)" in said
    assert said.count("unreadable image left out") == 3
    assert "10 embeddings of width 16" in said
    found = arrays(tmp_path / "x.npz")
    assert sorted(found) == ["features", "names", "split"]
    names = [f"{photos}/{i}.png" for i in range(8)] + [f"{photos}/more/{i}.png" for i in (8, 9)]
    assert found["names"].tolist() == names
    assert set(found["split"].tolist()) == {"train"}
    np.testing.assert_allclose(found["features"], pooled(list(range(10))), atol=1e-5)
    table = pq.read_table(tmp_path / "x.parquet")
    assert table["file"].to_pylist() == names
    assert table.column_names == ["file", "split", "embedding"]
    np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), found["features"])
    with safe_open(tmp_path / "x.safetensors", "numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("features"), found["features"])
        blob, ends = file.get_tensor("names").tobytes(), file.get_tensor("name_ends").tolist()
        assert json.loads(file.metadata()["preprocessing"])["image_size"] == [8, 8]
    assert [blob[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)] == names
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_labelled_images_keep_their_labels(tmp_path):
    data = ImagesConfig(source="digits")
    for ending in ("npz", "parquet", "safetensors"):
        embed(
            EmbedConfig(model=MODEL, data=data, out=str(tmp_path / f"x.{ending}"), batch_size=256)
        )
    found = arrays(tmp_path / "x.npz")
    np.testing.assert_array_equal(found["labels"], DIGITS.labels)
    assert found["classes"].tolist() == [str(i) for i in range(10)]
    rows = pq.read_table(tmp_path / "x.parquet").slice(0, 20).to_pylist()
    assert [row["label"] for row in rows] == [str(i) for i in DIGITS.labels[:20]]
    with safe_open(tmp_path / "x.safetensors", "numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("labels"), DIGITS.labels)
        assert json.loads(file.metadata()["classes"]) == [str(i) for i in range(10)]


def test_one_file_or_folder_behind_the_model_is_enough(photos, tmp_path, capsys):
    out = str(tmp_path / "x.npz")
    assert main(["embed", "stored_vit.none", str(photos / "3.png"), "--out", out, *FLAGS]) == 0
    np.testing.assert_allclose(arrays(tmp_path / "x.npz")["features"], pooled([3]), atol=1e-5)
    capsys.readouterr()
    # a vote needs labels, and a folder of classes has some
    assert main(["knn", "stored_vit.none", "--data.source", f"images:{photos}", *FLAGS]) == 3
    assert "has image and no label, which is needed here" in capsys.readouterr().err
    assert main(["embed", "stored_vit.none", "--data.source", f"folder:{photos}/more", *FLAGS]) == 3
    assert "or pass images:DIR where no labels are needed" in capsys.readouterr().err
    assert main(["embed", "stored_vit.none", "nowhere", *FLAGS]) == 3
    assert "no file or folder 'nowhere'" in capsys.readouterr().err


@pytest.fixture
def stopped(photos, tmp_path, monkeypatch) -> EmbedConfig:
    """A command that was stopped when the first part of two was written: that of a batch, on eight devices."""
    config = asked(photos, tmp_path / "x.npz", part_images=4, batch_size=4)
    add = Parts.add

    def once(self: Parts, *rows) -> None:
        add(self, *rows)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "add", once)
        with pytest.raises(KeyboardInterrupt):
            embed(config)
    return config


def test_a_stopped_command_goes_on_where_it_was(stopped, photos, tmp_path, monkeypatch, capsys):
    assert not Path(stopped.out).exists()
    whole = embed(replace(stopped, out=str(tmp_path / "whole.npz")))
    capsys.readouterr()
    added: list[tuple[int, int]] = []
    add = Parts.add
    monkeypatch.setattr(
        Parts, "add", lambda self, *rows: (added.append(rows[1:3]), add(self, *rows))
    )
    # another size of the parts, or of the batch, changes no row
    embed(replace(stopped, part_images=100, batch_size=8))
    said = capsys.readouterr().out
    assert "going on with 1 part of a stopped command" in said
    assert added == [(8, 11)]
    one, other = arrays(whole), arrays(Path(stopped.out))
    assert sorted(one) == sorted(other)
    for name, array in one.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(array, other[name], atol=1e-6)
        else:
            np.testing.assert_array_equal(array, other[name])
    assert not (tmp_path / ".x.npz.parts").exists()


@pytest.mark.parametrize("ending", ["npz", "parquet", "safetensors"])
def test_a_finished_file_is_left_as_it_is_and_another_one_refused(
    photos, tmp_path, monkeypatch, capsys, ending
):
    config = asked(photos, tmp_path / f"x.{ending}")
    path = embed(config)
    content = path.read_bytes()
    assert "10 embeddings" in said(capsys)
    with monkeypatch.context() as patch:
        patch.setattr(programs, "_computed", None)  # a call would end it
        # neither changes a row
        assert embed(replace(config, batch_size=16, part_images=3)) == path
        assert "is whole, of these images and settings: nothing is left to do" in said(capsys)
        with pytest.raises(
            UsageError, match=r"exists, of other settings or images \(model\.dtype: "
        ):
            embed(replace(config, model=replace(MODEL, dtype="bfloat16")))
        Image.fromarray(DIGITS.read(10)["image"]).save(photos / "new.png")
        with pytest.raises(UsageError, match=r"\(images\.train\.count: 11 -> 12; ") as error:
            embed(config)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == content
    embed(replace(config, force=True))
    assert "11 embeddings" in said(capsys)


@pytest.mark.parametrize("ending", ["npz", "parquet", "safetensors"])
def test_a_file_of_somebody_else_is_never_taken_for_a_finished_one(photos, tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    config = asked(photos, path)
    embed(config)
    other = tmp_path / "other.npz"
    np.savez(other, features=np.zeros(3))
    # cut short, no such file at all, an archive that says nothing of itself, and nothing
    for content in (path.read_bytes()[:-9], b"x" * 99, other.read_bytes(), b""):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"exists; pass --force to replace it"):
            embed(config)
        assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": replace(MODEL, image_size=(16, 16))}, "preprocessing.image_size: [8, 8] ->"),
        ({"model": replace(MODEL, dtype="bfloat16")}, "model.dtype: 'float32' -> 'bfloat16'"),
        ({}, "images.train.digest:"),
    ],
)
def test_parts_of_something_else_are_refused_in_one_sentence(stopped, photos, change, says):
    if not change:
        (photos / "0.png").write_bytes((photos / "1.png").read_bytes() + b"\0")
    with pytest.raises(UsageError, match=r"holds the parts of a stopped `fmjax embed`") as error:
        embed(replace(stopped, **change))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    if not change:
        assert embed(replace(stopped, force=True)).exists()


def test_a_damaged_part_is_named_and_a_lost_one_computed_again(stopped, tmp_path):
    folder = tmp_path / ".x.npz.parts"
    [part] = folder.glob("*.npz")
    content = part.read_bytes()
    part.write_bytes(content[:50])
    with pytest.raises(FilesError, match=r"npz is damaged; delete it, and run the same command"):
        embed(stopped)
    part.unlink()
    assert len(arrays(embed(stopped))["names"]) == 10


def test_names_that_are_no_text_are_kept(tmp_path):
    folder = os.fsencode(tmp_path / "odd")
    os.mkdir(folder)
    name = os.fsdecode(folder + b"/caf\xe9.png")
    Image.fromarray(DIGITS.read(0)["image"]).save(name)
    for ending in ("npz", "parquet", "safetensors"):
        embed(asked(tmp_path / "odd", tmp_path / f"x.{ending}"))
    assert arrays(tmp_path / "x.npz")["names"].tolist() == [name]
    with safe_open(tmp_path / "x.safetensors", "numpy") as file:
        assert file.get_tensor("names").tobytes() == folder + b"/caf\xe9.png"
    assert pq.read_table(tmp_path / "x.parquet")["file"].to_pylist()[0].endswith("caf\\udce9.png")


def test_what_cannot_be_embedded_is_one_sentence(photos, tmp_path):
    with pytest.raises(UsageError, match=r"must end in \.npz, \.parquet or \.safetensors"):
        embed(asked(photos, tmp_path / "x.csv"))
    with pytest.raises(UsageError, match=r"--part-images is 0"):
        asked(photos, tmp_path / "x.npz", part_images=0)
    with pytest.raises(DataError, match=r"none of 1 image can be read"):
        embed(asked(photos / "broken.jpg", tmp_path / "x.npz"))
    assert list(tmp_path.iterdir()) == [photos]
