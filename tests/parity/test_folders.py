"""A folder that is written for another library is built, filled and computed by it as it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from PIL import Image

import fmjax
import weights_conversion as wc
from fmjax.deploy import folders
from fmjax.errors import CheckpointError, UsageError
from fmjax.models.build import abstract
from fmjax.specs import PreprocessConfig, ViTSpec
from fmjax.trees import flat
from fmjax.weights.load import fill
from tests.parity.bounds import FORWARD
from tests.parity.measure import error, random_params
from tests.support import torch_reference
from tests.support.checkpoints import small

CLASSES = ("a", "b c", "<d>", "é", "e")
# every trait of a graph that timm has a class for, each in one row at least
IN_TIMM = {
    "ViT-B-32": {"activation": "quick_gelu"},
    "EVA01-g-14": {},
    "EVA02-B-16": {},
    "EVA02-E-14": {},
    "dinov2_vitg14_reg": {},
    "ViT-B-16-SigLIP": {"activation": "gelu_tanh"},
    "dinov3_vits16plus": {},
    "eva02_tiny_patch14": {},
    "PE-Core-B-16": {},
    "aimv2_large": {},
    "tips_s14": {},
}


@pytest.fixture(scope="module", autouse=True)
def libraries():
    torch_reference.declare_torchvision_operators()


def in_small(name: str, **changes) -> ViTSpec:
    """The graph with the sizes that other libraries take: whole multiples, and one pooling."""
    spec = replace(small(name), mlp_dim=96, **changes)
    if spec.pool_heads:
        spec = replace(spec, pool_heads=spec.num_heads, pool_mlp_dim=spec.mlp_dim)
    return spec


def filled(spec: ViTSpec, num_classes: int = len(CLASSES), classifier: str = "pool") -> fmjax.ViT:
    """Random numbers in every parameter, as after fine-tuning."""
    outline = abstract(spec, num_classes=num_classes, classifier=classifier)
    rng = np.random.default_rng(0)
    head = {
        path: rng.standard_normal(leaf.shape, np.float32)
        for path, leaf in flat(outline).items()
        if path.startswith("classifier")
    }
    return fill(outline, wc.in_memory_tree(random_params(spec, 0, seed=3) | head))


def images_for(spec: ViTSpec) -> PreprocessConfig:
    return PreprocessConfig(image_size=spec.image_size, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))


def noise(spec: ViTSpec) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((2, 3, *spec.image_size), np.float32)


def ours(model: fmjax.ViT) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and logits."""
    images = noise(model.spec).transpose(0, 2, 3, 1)
    with jax.default_matmul_precision("highest"):
        out = jax.jit(lambda model, images: model(images))(model, images)
    return np.asarray(out.pooled), np.asarray(out.logits)


def by_timm(folder: Path, spec: ViTSpec) -> tuple[np.ndarray, dict]:
    import timm

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        return model(torch.from_numpy(noise(spec))).numpy(), dict(model.pretrained_cfg)


@pytest.mark.parametrize("name", IN_TIMM)
def test_timm_loads_the_folder_of_a_backbone_and_of_a_classifier(tmp_path, name):
    spec = in_small(name, **IN_TIMM[name])
    model = filled(spec)
    for classifier, expected in zip((False, True), ours(model), strict=True):
        folder = folders.write(
            tmp_path / f"{classifier}",
            model,
            images_for(spec),
            classes=CLASSES,
            classifier=classifier,
        )
        found, config = by_timm(folder, spec)
        assert error(found, expected) < FORWARD
        assert config["mean"] == [0.5, 0.4, 0.3]
        assert tuple(config.get("label_names") or ()) == (CLASSES if classifier else ())


@pytest.mark.parametrize(
    ("name", "lack"),
    [
        ("ViT-L-14-CLIPA", "a patch embedding without bias"),
        ("C-RADIOv3-B", "several class tokens that it pools"),
        ("nv_dinov2_vitg14_reg4", "registers behind the patches"),
    ],
)
def test_timm_has_no_class_for_some_and_nothing_is_written(tmp_path, name, lack):
    spec = small(name)
    with pytest.raises(CheckpointError, match=f"timm has no class for {name}.*{lack}"):
        folders.write(tmp_path / "x", filled(spec), images_for(spec))
    assert list(tmp_path.iterdir()) == []


IN_TRANSFORMERS = {
    "hf_clip": ("ViT-B-32", {"activation": "quick_gelu"}, ""),
    "hf_siglip": ("ViT-B-16-SigLIP", {}, ""),
    "hf_dinov2": ("dinov2_vits14", {}, "cls_patches"),
    "hf_dinov2_with_registers": ("dinov2_vits14_reg", {}, "cls_patches"),
    "hf_dinov3": ("dinov3_vits16plus", {}, ""),
    "hf_vit": ("dino_vits16", {}, "pool"),
    "hf_aimv2": ("aimv2_large", {}, ""),
}


def by_transformers(folder: Path, spec: ViTSpec) -> np.ndarray:
    """Of the class that the config names; every tensor must be in its place."""
    import transformers

    config = json.loads((folder / "config.json").read_text())
    kind = getattr(transformers, config["architectures"][0])
    more = {"add_pooling_layer": False} if kind.__name__ == "ViTModel" else {}
    model, info = kind.from_pretrained(folder, output_loading_info=True, **more)
    assert not any(info.values()), info
    with torch.no_grad():
        out = model.eval()(pixel_values=torch.from_numpy(noise(spec)))
    if hasattr(out, "logits"):
        assert model.config.id2label == dict(enumerate(CLASSES))
        return out.logits.numpy()
    if getattr(out, "image_embeds", None) is not None:
        return out.image_embeds.numpy()
    if spec.pool == "patches":
        return out.last_hidden_state.mean(1).numpy()
    pooled = getattr(out, "pooler_output", None)
    return (out.last_hidden_state[:, 0] if pooled is None else pooled).numpy()


@pytest.mark.parametrize("dialect", IN_TRANSFORMERS)
def test_transformers_loads_the_folder(tmp_path, dialect):
    import transformers

    name, changes, sees = IN_TRANSFORMERS[dialect]
    spec = in_small(name, **changes)
    model = filled(spec, classifier=sees or "pool")
    kinds = (False, True) if sees else (False,)
    for classifier, expected in zip(kinds, ours(model), strict=False):
        folder = folders.write(
            tmp_path / f"{classifier}",
            model,
            images_for(spec),
            dialect=dialect,
            classes=CLASSES,
            classifier=classifier,
        )
        assert error(by_transformers(folder, spec), expected) < FORWARD
    assert transformers.AutoConfig.from_pretrained(folder).hidden_size == spec.width


@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_the_preprocessor_of_transformers_shows_the_same_picture(tmp_path, mode):
    import transformers

    spec = in_small("dino_vits16")
    config = replace(images_for(spec), resize_mode=mode, crop_pct=1.0 if mode == "squash" else 0.8)
    folder = folders.write(tmp_path / "x", filled(spec), config, dialect="hf_vit")
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    )
    processor = transformers.AutoImageProcessor.from_pretrained(folder, use_fast=False)
    seen = np.asarray(processor(picture, return_tensors="np")["pixel_values"])
    expected = np.asarray(fmjax.preprocess(picture, config)).transpose(0, 3, 1, 2)
    assert np.abs(seen - expected).max() < 2 / 255 / 0.2  # of one step in 256, by other rounding


def test_open_clip_loads_both_towers_of_the_folder(tmp_path):
    import open_clip
    from safetensors.torch import save_file

    spec = replace(in_small("ViT-B-32"), width=64, num_heads=2)
    vision = {"layers": 2, "width": 64, "head_width": 32, "mlp_ratio": 1.5, "patch_size": 32}
    text = {"context_length": 9, "vocab_size": 50, "width": 64, "heads": 1, "layers": 2}
    original = open_clip.CLIP(spec.embed_dim, vision | {"image_size": 128}, text)
    base = tmp_path / "base.safetensors"
    save_file({k: v.contiguous() for k, v in original.state_dict().items()}, base, {"format": "pt"})

    model = filled(spec)
    shared = {"dialect": "open_clip", "classifier": False}
    folder = folders.write(tmp_path / "x", model, images_for(spec), base=base, **shared)
    loaded = open_clip.create_model(f"local-dir:{folder}").eval()
    words = torch.arange(9)[None]
    with torch.no_grad():
        found = loaded.encode_image(torch.from_numpy(noise(spec))).numpy()
        assert torch.equal(loaded.encode_text(words), original.eval().encode_text(words))
    assert error(found, ours(model)[0]) < FORWARD
    with pytest.raises(CheckpointError, match="pass the original file with --base"):
        folders.write(tmp_path / "y", model, images_for(spec), **shared)


def test_a_dialect_without_a_folder_and_a_classifier_without_a_class_are_refused(tmp_path):
    spec = in_small("ViT-B-32")
    with pytest.raises(UsageError, match="no library loads a folder of 'openclip'; did you mean"):
        folders.write(tmp_path / "x", filled(spec), images_for(spec), dialect="openclip")
    with pytest.raises(CheckpointError, match=r"a classifier like this one; .*--no-classifier"):
        folders.write(tmp_path / "x", filled(spec), images_for(spec), dialect="hf_clip")
    assert list(tmp_path.iterdir()) == []
