"""Real weights and real photographs: the whole path from a picture to an embedding, a saliency map, a score."""

from __future__ import annotations

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import fmjax
from fmjax.cli import main
from fmjax.config.data import DataConfig
from fmjax.config.features import KnnConfig, ProbeConfig
from fmjax.config.model import ModelConfig
from fmjax.engine.run import restore
from fmjax.models.resample import resize_matrix
from fmjax.programs.features import knn_main, probe_main
from tests.support import torch_reference
from tests.support.real_images import photographs

assert torch_reference  # declares what torchvision needs before it is imported
PHOTOGRAPHS = photographs()


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.fixture(scope="module")
def open_clip_embeddings(clip_tower) -> np.ndarray:
    """The same files and photographs through open_clip, its own transform included."""
    from open_clip.model import CLIP
    from open_clip.transform import image_transform

    vision = {"layers": 12, "width": 768, "patch_size": 16, "image_size": 224}
    model = CLIP(
        512, vision, {"layers": 1, "width": 64, "heads": 2, "vocab_size": 64}, quick_gelu=True
    ).eval()
    tensors = load_file(clip_tower / "open_clip" / "open_clip_model.safetensors")
    model.visual.load_state_dict(
        {k.removeprefix("visual."): torch.from_numpy(v) for k, v in tensors.items()}
    )
    weights = fmjax.get_weights("ViT-B-16.openai")
    transform = image_transform(224, is_train=False, mean=weights.mean, std=weights.std)
    with torch.no_grad():
        return model.encode_image(
            torch.stack([transform(Image.fromarray(p)) for p in PHOTOGRAPHS.values()])
        ).numpy()


@pytest.mark.parametrize("file", ["open_clip", "hf"])
def test_picture_to_embedding_equals_open_clip(file, clip_tower, open_clip_embeddings):
    model = fmjax.load("ViT-B-16.openai", checkpoint=clip_tower / file)
    images = fmjax.preprocess(PHOTOGRAPHS.values(), fmjax.preprocess_config(model))
    found = np.asarray(jax.jit(lambda m, x: m(x).pooled)(model, images))
    assert (1 - cosine(found, open_clip_embeddings)).max() < 1e-5


def test_the_wrong_activation_would_be_seen(clip_tower, open_clip_embeddings):
    model = fmjax.load("ViT-B-16.laion2b_s34b_b88k", checkpoint=clip_tower / "open_clip")
    images = fmjax.preprocess(PHOTOGRAPHS.values(), fmjax.preprocess_config("ViT-B-16.openai"))
    found = np.asarray(jax.jit(lambda m, x: m(x).pooled)(model, images))
    assert cosine(found, open_clip_embeddings).max() < 0.995


def test_both_files_hold_the_same_model_bit_by_bit(clip_tower):
    models = [
        fmjax.load("ViT-B-16.openai", checkpoint=clip_tower / file) for file in ("open_clip", "hf")
    ]
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, models), strict=True))


def test_saliency_map_equals_the_onnx_graph(dinov2_tower):
    import onnxruntime

    config = fmjax.preprocess_config("dinov2_vits14.lvd142m")
    images = fmjax.preprocess([PHOTOGRAPHS["chelsea"], PHOTOGRAPHS["astronaut"]], config)
    session = onnxruntime.InferenceSession(dinov2_tower / "vit_s_focus.onnx")
    expected = session.run(None, {"input_image": np.asarray(images).transpose(0, 3, 1, 2)})[0]
    model = fmjax.load("dinov2_vits14.lvd142m", checkpoint=dinov2_tower / "hf", resample="bicubic")
    patches = np.array(jax.jit(lambda m, x: m(x).patches)(model, images))
    found = saliency(patches, load_file(dinov2_tower / "decoder.safetensors"))
    assert np.abs(found - expected.reshape(found.shape)).max() < 1e-4
    other = fmjax.load(
        "dinov2_vits14.lvd142m", checkpoint=dinov2_tower / "hf", resample="bicubic_antialias"
    )
    patches = np.array(jax.jit(lambda m, x: m(x).patches)(other, images))
    wrong = saliency(patches, load_file(dinov2_tower / "decoder.safetensors"))
    assert np.abs(wrong - expected.reshape(wrong.shape)).max() > 1e-3


def saliency(patches: np.ndarray, decoder: dict[str, np.ndarray]) -> np.ndarray:
    """The graph's decoder: three transposed convolutions with batch norm, a 1 x 1 convolution, bilinear, sigmoid."""
    w = {key.removeprefix("decoder."): torch.from_numpy(value) for key, value in decoder.items()}
    f, x = torch.nn.functional, torch.from_numpy(patches).permute(0, 3, 1, 2)
    for i in "123":
        x = f.conv_transpose2d(x, w[f"upconv{i}.weight"], w[f"upconv{i}.bias"], stride=2, padding=1)
        mean, var = w[f"bn{i}.running_mean"], w[f"bn{i}.running_var"]
        x = f.relu(f.batch_norm(x, mean, var, w[f"bn{i}.weight"], w[f"bn{i}.bias"], eps=1e-5))
    x = f.conv2d(x, w["final_conv.weight"], w["final_conv.bias"]).numpy()
    matrix = resize_matrix(128, 224, "bilinear")
    return 1 / (1 + np.exp(-np.einsum("Hh,Ww,bchw->bcHW", matrix, matrix, x)))


@pytest.fixture(scope="module")
def few_stamps(stamps, tmp_path_factory) -> Path:
    """Every third photograph: 12 classes, about 90 images."""
    out = tmp_path_factory.mktemp("few")
    for path in sorted(stamps.glob("*/*.png"))[::3]:
        (out / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, out / path.parent.name / path.name)
    return out


def test_frozen_features_know_the_photographs(clip_tower, few_stamps):
    model = ModelConfig(name="ViT-B-16.openai", checkpoint=str(clip_tower / "hf"), dtype="float32")
    data = DataConfig(source=f"folder:{few_stamps}")
    assert knn_main(KnnConfig(model=model, data=data)) > 0.85
    assert probe_main(ProbeConfig(model=model, data=data, folds=2)) > 0.85


def test_short_fine_tune_on_eight_devices_trains_and_exports(clip_tower, few_stamps, tmp_path):
    run = tmp_path / "run"
    flags = [
        "--out",
        str(run),
        "--model.checkpoint",
        str(clip_tower / "open_clip"),
        "--data.source",
        f"folder:{few_stamps}",
    ]
    flags += [
        "--steps",
        "3",
        "--batch-size",
        "8",
        "--model.image-size",
        "64",
        "64",
        "--recipe.warmup-steps",
        "1",
    ]
    flags += [
        "--mesh.fsdp",
        "4",
        "--mesh.data",
        "2",
        "--log-every",
        "1",
        "--data.val-fraction",
        "0.3",
    ]
    assert main(["finetune", "finetune_clip_b16", *flags]) == 0
    import timm

    reference = timm.create_model(
        "vit_base_patch16_clip_quickgelu_224", img_size=64, num_classes=12
    ).eval()
    exported = load_file(run / "model.timm.safetensors")
    reference.load_state_dict({key: torch.from_numpy(value) for key, value in exported.items()})
    images = np.random.default_rng(0).standard_normal((2, 64, 64, 3), np.float32)
    with torch.no_grad():
        expected = reference(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    found = np.asarray(jax.jit(lambda m, x: m(x).logits)(restore(run), images))
    assert np.abs(found - expected).max() < 2e-5 * max(np.abs(expected).max(), 1)
