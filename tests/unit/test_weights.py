"""From a name or a file to a model, and back to a file."""

from __future__ import annotations

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import fmjax
import weights_conversion as wc
from fmjax.errors import CheckpointError, UsageError
from fmjax.programs.convert import convert
from fmjax.trees import flat
from fmjax.weights.load import load, read
from tests.support.checkpoints import random_file, save, small


@pytest.fixture
def in_small(monkeypatch):
    """Architectures with two thin blocks, so that their files are small."""
    monkeypatch.setattr("fmjax.weights.load.names.get_spec", lambda name: small(name.split(".")[0]))


def test_plain_name_alias_and_hub_name_ask_the_hub_for_the_same_file(
    tmp_path, monkeypatch, in_small
):
    path, asked = save(tmp_path / "x.safetensors", random_file(small("ViT-B-32"), "open_clip")), []

    def download(repo: str, filename: str, *, local_files_only: bool, revision: str | None) -> str:
        asked.append((repo, filename, local_files_only))
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    hub = "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    for name in ("ViT-B-32.laion2b_s34b_b79k", hub, "vit_base_patch32_clip_224.laion2b"):
        assert load(name, offline=True).spec.width == 48
    assert (
        asked
        == [("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip_model.safetensors", True)] * 3
    )


def test_a_local_folder_is_recognised_by_its_tensors(tmp_path, in_small):
    save(tmp_path / "eva" / "model.safetensors", random_file(small("EVA02-B-16"), "timm"))
    assert read(f"local-dir:{tmp_path / 'eva'}").spec.rope is not None
    save(tmp_path / "clip" / "model.safetensors", random_file(small("ViT-B-16"), "open_clip"))
    with pytest.raises(
        CheckpointError, match=r"fits ViT-B-16 and ViT-B-16-plus-240; name the model"
    ):
        read(f"local-dir:{tmp_path / 'clip'}")
    with pytest.raises(UsageError, match="differ in activation"):
        read("ViT-B-16", checkpoint=tmp_path / "clip")
    save(tmp_path / "other" / "model.safetensors", {"a": np.zeros(3)})
    with pytest.raises(CheckpointError, match="fits no registered architecture"):
        read(f"local-dir:{tmp_path / 'other'}")


def test_export_with_the_original_brings_everything_back(tmp_path, in_small):
    extra = {
        "text_projection": np.ones((2, 2), np.float32),
        "logit_scale": np.asarray(2.5, np.float32),
    }
    tensors = random_file(small("ViT-B-32"), "open_clip") | extra
    path = save(tmp_path / "clip.safetensors", tensors)
    model = load("ViT-B-32.openai", checkpoint=path)
    back = load_file(fmjax.export(model, tmp_path / "back.safetensors", "open_clip", base=path))
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[key], tensors[key]) for key in tensors)
    assert set(tensors) - set(
        load_file(fmjax.export(model, tmp_path / "x.safetensors", "open_clip"))
    ) == set(extra)
    strange = save(tmp_path / "strange.safetensors", tensors | {"optimizer": np.zeros(1)})
    with pytest.raises(CheckpointError, match="it also has 'optimizer'"):
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
        tmp_path / "x.safetensors",
        random_file(small("dinov2_vits14"), "dinov2") | {"mask_token": np.zeros((1, 48))},
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


def test_a_published_classifier_is_kept_replaced_or_left_out(tmp_path, in_small):
    name = "augreg_vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    spec, rng = small("augreg_vit_tiny_patch16_224"), np.random.default_rng(0)
    head = {"head.weight": rng.standard_normal((1000, 48)), "head.bias": rng.standard_normal(1000)}
    path = save(
        tmp_path / "x.safetensors",
        random_file(spec, "timm") | {k: np.float32(v) for k, v in head.items()},
    )
    images = jnp.ones((1, 64, 64, 3))
    kept = load(name, checkpoint=path, dialect="timm")
    assert np.array_equal(kept.classifier.kernel[...], np.float32(head["head.weight"].T))
    assert kept(images).logits.shape == (1, 1000)
    new = load(name, checkpoint=path, dialect="timm", num_classes=1000)
    assert not np.asarray(new.classifier.kernel[...]).any()
    assert load(name, checkpoint=path, dialect="timm", num_classes=0)(images).logits is None
    with pytest.raises(UsageError, match="sees 'pool', not 'cls'; pass num_classes for a new one"):
        load(name, checkpoint=path, dialect="timm", classifier="cls")


@pytest.mark.parametrize(
    ("dialect", "activation", "resample"),
    [
        ("open_clip_timm", "gelu", "bicubic_antialias"),
        ("timm", "gelu", "bicubic_antialias"),
        ("hf_siglip", "gelu_tanh", "bicubic"),
        ("big_vision_npz", "gelu_tanh", "bilinear_corners"),
    ],
)
def test_a_file_is_computed_as_its_publisher_does(
    tmp_path, in_small, dialect, activation, resample
):
    file = random_file(small("ViT-B-16-SigLIP2"), dialect)
    np.savez(tmp_path / "x.npz", **file)
    path = tmp_path / "x.npz" if dialect.endswith("npz") else save(tmp_path / "x.safetensors", file)
    found = read("ViT-B-16-SigLIP2.webli", checkpoint=path, dialect=dialect).spec
    assert (found.activation, found.resample) == (activation, resample)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_stored_rotary_periods_decide_what_is_computed(tmp_path, in_small, dtype):
    name, spec = "dinov3_vits16.lvd1689m", small("dinov3_vits16")
    periods = (
        (100.0 ** (np.arange(spec.head_dim // 4) / (spec.head_dim // 4)))
        .astype(dtype)
        .astype(np.float32)
    )
    beside = {"rope_embed.periods": periods, "mask_token": np.zeros((1, 48), np.float32)}
    path = save(tmp_path / "x.safetensors", random_file(spec, "dinov3") | beside)
    assert read(name, checkpoint=path).spec.rope.period_dtype == np.dtype(dtype).name
    convert(name, str(path), str(tmp_path / "ours.safetensors"))
    assert (
        read(name, checkpoint=tmp_path / "ours.safetensors").spec.rope.period_dtype
        == np.dtype(dtype).name
    )
    save(path, random_file(spec, "dinov3") | beside | {"rope_embed.periods": periods * 2})
    with pytest.raises(CheckpointError, match=r"rope_embed\.periods is not 100"):
        read(name, checkpoint=path)


@pytest.mark.parametrize(
    ("lead", "dialect", "model"),
    [
        ("backbone.", "tao_nvdinov2", "nv_dinov2_vitl14.trainable_v1_1"),
        ("model.model.backbone.", "tao_nvdinov2", "nv_dinov2_vitl14.trainable_v1_1"),
        ("backbone.", "dino", "dino_vits16.in1k"),
        ("dinov2.", "hf_dinov2", "dinov2_vits14.lvd142m"),
        ("vit.", "hf_vit_mae", "mae_vit_base_patch16.pretrain"),
        ("base_model.", "radio_hub", "C-RADIOv3-B.nvidia"),
    ],
)
def test_what_training_code_puts_before_names_is_found(tmp_path, in_small, lead, dialect, model):
    table = wc.get_dialect(dialect)
    file = random_file(small(model.split(".")[0]), dialect)
    led = {lead + key.removeprefix(table.container): value for key, value in file.items()} | {
        "epoch": np.zeros(1)
    }
    loaded = read(model, checkpoint=save(tmp_path / "x.safetensors", led), dialect=dialect)
    assert loaded.dialect.container == lead
    assert set(loaded.conversion.extras) == {"epoch"}


def test_a_torch_file_with_a_wrapper_loads(tmp_path, in_small):
    file = random_file(small("dinov2_vits14"), "dinov2") | {
        "mask_token": np.zeros((1, 48), np.float32)
    }
    state = {f"module.{key}": torch.from_numpy(np.array(value)) for key, value in file.items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "x.pth")
    model = load("dinov2_vits14.lvd142m", checkpoint=tmp_path / "x.pth")
    assert np.array_equal(model.cls_token[...], file["cls_token"][0, 0])
