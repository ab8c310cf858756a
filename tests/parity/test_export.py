"""A model with its own classifier, exported, gives the same logits in the library that reads the file."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import fmjax
import weights_conversion as wc
from fmjax.errors import CheckpointError
from fmjax.models.functional import with_params
from fmjax.specs import ViTSpec
from fmjax.trees import flat, nested
from tests.parity.bounds import FORWARD
from tests.parity.measure import error, random_params
from tests.support import torch_reference

CLASSES = 7


def tuned(name: str, classifier: str, **changes) -> fmjax.ViT:
    """Two random blocks and a classifier, as after fine-tuning."""
    spec: ViTSpec = replace(fmjax.get_spec(name), depth=2, **changes)
    model = fmjax.initialise(spec, num_classes=CLASSES, classifier=classifier)
    rng = np.random.default_rng(0)
    values = random_params(spec, 0, seed=3)
    head = {
        p: rng.standard_normal(a.shape, np.float32)
        for p, a in flat(model).items()
        if p.startswith("classifier")
    }
    return with_params(
        model, nested({path: jnp.asarray(value) for path, value in (values | head).items()})
    )


def logits(model: fmjax.ViT, images: np.ndarray) -> np.ndarray:
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(lambda m, x: m(x).logits)(model, images.transpose(0, 2, 3, 1)))


def image(size: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((2, 3, size, size), np.float32)


@pytest.mark.parametrize(
    ("name", "timm_name", "size"),
    [
        ("dinov2_vits14_reg", "vit_small_patch14_reg4_dinov2", 518),
        ("ViT-B-16", "vit_base_patch16_clip_224", 224),
        ("EVA02-B-16", "eva02_base_patch16_clip_224", 224),
        ("eva02_tiny_patch14", "eva02_tiny_patch14_224", 224),
        ("ViT-B-16-SigLIP", "vit_base_patch16_siglip_224", 224),
        ("dinov3_vits16", "vit_small_patch16_dinov3_qkvb", 224),
    ],
)
def test_timm_reads_the_exported_classifier(tmp_path, name, timm_name, size):
    torch_reference.declare_torchvision_operators()
    import timm

    changes = {"activation": "gelu"} if "SigLIP" in name else {}
    model = tuned(name, "pool", **changes)
    path = fmjax.export(model, tmp_path / "x.safetensors", "timm")
    pool = {"global_pool": "token"} if "dinov3" in name else {}
    theirs = timm.create_model(
        timm_name, depth=2, num_classes=CLASSES, checkpoint_path=str(path), **pool
    ).eval()
    with torch.no_grad():
        expected = theirs(torch.from_numpy(image(size))).numpy()
    assert error(logits(model, image(size)), expected) < FORWARD


@pytest.mark.parametrize(
    ("name", "dialect", "kind", "classifier"),
    [
        ("dinov2_vits14", "hf_dinov2", "Dinov2ForImageClassification", "cls_patches"),
        (
            "dinov2_vits14_reg",
            "hf_dinov2_with_registers",
            "Dinov2WithRegistersForImageClassification",
            "cls_patches",
        ),
        ("dino_vits16", "hf_vit", "ViTForImageClassification", "pool"),
    ],
)
def test_transformers_reads_the_exported_classifier(tmp_path, name, dialect, kind, classifier):
    torch_reference.declare_torchvision_operators()
    import transformers

    model = tuned(name, classifier)
    spec, theirs = model.spec, getattr(transformers, kind)
    config = theirs.config_class(
        hidden_size=spec.width,
        num_hidden_layers=2,
        num_attention_heads=spec.num_heads,
        intermediate_size=spec.mlp_dim,
        patch_size=spec.patch_size,
        image_size=spec.image_size[0],
        layer_norm_eps=spec.norm_eps,
        num_labels=CLASSES,
        **({"num_register_tokens": 4} if spec.num_registers else {}),
    )
    config.save_pretrained(tmp_path)
    mask = {"hf_dinov2": "dinov2", "hf_dinov2_with_registers": "dinov2_with_registers"}.get(dialect)
    base = None
    if mask:
        # transformers asks for the mask token of pretraining, which an original file brings back
        path = fmjax.export(model, tmp_path / "base.safetensors", dialect)
        from safetensors.numpy import load_file, save_file

        tensors = load_file(path) | {
            f"{mask}.embeddings.mask_token": np.zeros((1, spec.width), np.float32)
        }
        save_file(tensors, tmp_path / "base.safetensors", {"format": "pt"})
        base = tmp_path / "base.safetensors"
    fmjax.export(model, tmp_path / "model.safetensors", dialect, base=base)
    if base:
        base.unlink()
    loaded, info = theirs.from_pretrained(tmp_path, output_loading_info=True, dtype=torch.float32)
    assert not any(info.values()), info
    with torch.no_grad():
        expected = loaded.eval()(
            pixel_values=torch.from_numpy(image(spec.image_size[0]))
        ).logits.numpy()
    assert error(logits(model, image(spec.image_size[0])), expected) < FORWARD


def test_an_exported_classifier_is_told_and_read_back(tmp_path):
    model = tuned("dinov2_vits14", "cls_patches")
    path = fmjax.export(model, tmp_path / "x.safetensors", "hf_dinov2")
    from weights_conversion.readers import open_checkpoint

    found = wc.detect(open_checkpoint(path).tensors)
    assert (found.name, found.classifier) == ("hf_dinov2", "cls_patches")


@pytest.mark.parametrize("dialect", ["open_clip", "dinov2", "hf_clip"])
def test_a_dialect_without_a_classifier_says_so_and_takes_the_rest(tmp_path, dialect):
    model = tuned({"dinov2": "dinov2_vits14"}.get(dialect, "ViT-B-16"), "pool")
    with pytest.raises(CheckpointError, match="no place for classifier"):
        fmjax.export(model, tmp_path / "x.safetensors", dialect)
    assert fmjax.export(model, tmp_path / "x.safetensors", dialect, classifier=False).is_file()


def test_a_classifier_over_other_tokens_than_the_dialects_is_refused(tmp_path):
    with pytest.raises(
        CheckpointError, match="over 'patches' has no counterpart in timm, where it sees 'pool'"
    ):
        fmjax.export(tuned("dinov2_vits14", "patches"), tmp_path / "x.safetensors", "timm")


def test_read_only_dialects_say_what_to_write_instead(tmp_path):
    with pytest.raises(CheckpointError, match="npz files are not written; export to timm"):
        fmjax.export(
            tuned("ViT-B-16-SigLIP2", "pool"), tmp_path / "x.safetensors", "big_vision_npz"
        )
