"""From a name or a file to a model, and back to a file."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

import fmjax
from fmjax.errors import CheckpointError, UsageError
from fmjax.params import flat
from fmjax.weights import load, read
from tests.support.checkpoints import random_file, save, small


@pytest.fixture
def in_small(monkeypatch):
    """Architectures with two thin blocks, so that their files are small."""
    monkeypatch.setattr("fmjax.weights.specs.get_spec", lambda name: small(name.split(".")[0]))


def test_plain_name_alias_and_hub_name_ask_the_hub_for_the_same_file(tmp_path, monkeypatch, in_small):
    path, asked = save(tmp_path / "x.safetensors", random_file(small("ViT-B-32"), "open_clip")), []

    def download(repo: str, filename: str, *, local_files_only: bool, revision: str | None) -> str:
        asked.append((repo, filename, local_files_only))
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    hub = "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    for name in ("ViT-B-32.laion2b_s34b_b79k", hub, "vit_base_patch32_clip_224.laion2b"):
        assert load(name, offline=True).spec.width == 48
    assert asked == [("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip_model.safetensors", True)] * 3


def test_a_local_folder_is_recognised_by_its_tensors(tmp_path, in_small):
    save(tmp_path / "eva" / "model.safetensors", random_file(small("EVA02-B-16"), "timm"))
    assert read(f"local-dir:{tmp_path / 'eva'}").spec.rope is not None
    save(tmp_path / "clip" / "model.safetensors", random_file(small("ViT-B-16"), "open_clip"))
    with pytest.raises(CheckpointError, match=r"fits ViT-B-16 and ViT-B-16-plus-240; name the model"):
        read(f"local-dir:{tmp_path / 'clip'}")
    with pytest.raises(UsageError, match="differ in activation"):
        read("ViT-B-16", checkpoint=tmp_path / "clip")
    save(tmp_path / "other" / "model.safetensors", {"a": np.zeros(3)})
    with pytest.raises(CheckpointError, match="fits no registered architecture"):
        read(f"local-dir:{tmp_path / 'other'}")


def test_export_with_the_original_brings_everything_back(tmp_path, in_small):
    extra = {"text_projection": np.ones((2, 2), np.float32), "logit_scale": np.asarray(2.5, np.float32)}
    tensors = random_file(small("ViT-B-32"), "open_clip") | extra
    path = save(tmp_path / "clip.safetensors", tensors)
    model = load("ViT-B-32.openai", checkpoint=path)
    back = load_file(fmjax.export(model, tmp_path / "back.safetensors", "open_clip", base=path))
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[key], tensors[key]) for key in tensors)
    assert set(tensors) - set(load_file(fmjax.export(model, tmp_path / "x.safetensors", "open_clip"))) == set(extra)
    strange = save(tmp_path / "strange.safetensors", tensors | {"optimizer": np.zeros(1)})
    with pytest.raises(CheckpointError, match="it also has optimizer"):
        fmjax.export(model, tmp_path / "y.safetensors", "open_clip", base=strange)
    assert not (tmp_path / "y.safetensors").exists()


def test_one_checkpoint_in_three_dialects_is_one_model(tmp_path, in_small):
    first = save(tmp_path / "a.safetensors", random_file(small("ViT-B-16"), "hf_clip"))
    model = load("ViT-B-16.openai", checkpoint=first)
    for dialect in ("open_clip", "timm", "hf_clip"):
        path = fmjax.export(model, tmp_path / f"{dialect}.safetensors", dialect)
        other = flat(load("ViT-B-16.openai", checkpoint=path))
        assert all(np.array_equal(leaf, other[key]) for key, leaf in flat(model).items())


def test_image_size_resizes_the_table_once_and_a_classifier_is_new(tmp_path, in_small):
    path = save(
        tmp_path / "x.safetensors", random_file(small("dinov2_vits14"), "dinov2") | {"mask_token": np.zeros((1, 48))}
    )
    model = load("dinov2_vits14.lvd142m", checkpoint=path, image_size=(28, 70), num_classes=3)
    assert flat(model)["pos_embed"].shape == (1 + 2 * 5, 48)
    assert flat(model)["classifier.kernel"].shape == (48, 3)
    assert model.spec.grid == (2, 5)
    with pytest.raises(UsageError, match="nearest"):
        load("dinov2_vits14.lvd142m", checkpoint=path, image_size=30)


def test_half_precision_files_fill_the_asked_precision(tmp_path, in_small):
    path = save(tmp_path / "x.safetensors", random_file(small("EVA02-B-16"), "timm", np.float16))
    model = load("EVA02-B-16", checkpoint=path)
    assert {leaf.dtype for leaf in flat(model).values()} == {np.dtype(np.float32)}
    half = load("EVA02-B-16", checkpoint=path, param_dtype=np.float16)
    assert {leaf.dtype for leaf in flat(half).values()} == {np.dtype(np.float16)}


def test_the_shipped_checkpoint_is_the_one_that_was_made():
    assert fmjax.load("demo_vit_ti4.fashion_mnist").spec.width == 96
