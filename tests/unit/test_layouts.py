"""Files as the authors' own code writes them, which are told without naming a dialect."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fmjax
import weights_conversion as wc
from fmjax.errors import CheckpointError
from fmjax.weights.load import Loaded, read
from fmjax.weights.publisher import same_function
from tests.support.checkpoints import random_file, save, small

Tensors = dict[str, np.ndarray]
MASK = {"mask_token": np.full((1, 48), 0.5, np.float32)}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(autouse=True)
def in_small(monkeypatch):
    """Architectures with two thin blocks, so that their files are small."""
    monkeypatch.setattr("fmjax.weights.load.names.get_spec", lambda name: small(name.split(".")[0]))


def under(lead: str, tensors: Mapping[str, np.ndarray]) -> Tensors:
    return {lead + key: value for key, value in tensors.items()}


def head(kind: str) -> Tensors:
    """A head of DINO's training, with weight_norm in its old (Meta) or its new spelling (TAO)."""
    last = {
        "old": ("weight_g", "weight_v"),
        "new": tuple(f"parametrizations.weight.original{i}" for i in (0, 1)),
    }
    keys = [
        *(f"mlp.{i}.{leaf}" for i in (0, 2, 4) for leaf in ("weight", "bias")),
        *(f"last_layer.{n}" for n in last[kind]),
    ]
    return {key: np.ones((2, 2), np.float32) for key in keys}


def saved(path: Path, content: Any) -> Path:
    """The content as torch.save writes it, arrays as tensors."""

    def torched(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: torched(inner) for key, inner in value.items()}
        return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value

    torch.save(torched(content), path)
    return path


def loaded(path: Path, name: str) -> Loaded:
    """The file, read under that name; its patch kernel is read too."""
    found = read(name, checkpoint=path)
    assert np.isfinite(found.conversion.params["patch_embed.kernel"].read(())).all()
    return found


@pytest.mark.parametrize(
    ("name", "dialect", "wrapped", "resample"),
    [
        ("mae_vit_base_patch16.pretrain", "mae", True, "bicubic"),
        ("dino_vits16.in1k", "dino", False, "bicubic_offset"),
    ],
)
def test_an_encoder_file_whose_names_timm_has_too_is_computed_as_its_authors_do(
    tmp_path, name, dialect, wrapped, resample
):
    file = random_file(small(name.split(".")[0]), dialect)
    found = loaded(saved(tmp_path / "x.pth", {"model": file} if wrapped else file), name)
    assert (found.dialect.name, found.spec.resample, found.spec.publisher) == (
        dialect,
        resample,
        "",
    )
    assert found.conversion.tensors == len(file)
    named = read(name, checkpoint=tmp_path / "x.pth", dialect="timm").spec
    assert (named.resample, named.publisher) == ("bicubic_antialias", "timm")


def test_two_dialects_are_one_only_where_the_code_behind_them_computes_the_same():
    row, spec = fmjax.get_weights("mae_vit_base_patch16.pretrain"), small("mae_vit_base_patch16")
    assert same_function(spec, row, "mae", "timm")
    other = [
        replace(s, overrides={"norm_eps": 1e-5}) if s.dialect == "timm" else s for s in row.sources
    ]
    assert not same_function(spec, replace(row, sources=tuple(other)), "mae", "timm")
    file = wc.in_memory_tree(random_file(spec, "mae"))
    with pytest.raises(CheckpointError, match="could be any of mae, timm"):
        wc.detect(file, ["mae", "timm"], alike=lambda one, two: False)
    assert wc.detect(file, ["timm", "mae"], alike=lambda one, two: True).name == "timm"


@pytest.mark.parametrize("chunks", [0, 1])
def test_dinov2s_own_teacher_checkpoint_loads_whatever_its_block_chunks(tmp_path, chunks):
    file = random_file(small("dinov2_vits14"), "dinov2") | MASK
    spelled = {
        key.replace("blocks.", "blocks.0.") if chunks else key: value for key, value in file.items()
    }
    heads = under("dino_head.", head("old")) | under("ibot_head.", head("old"))
    found = loaded(
        saved(tmp_path / "t.pth", {"teacher": under("backbone.", spelled) | heads}),
        "dinov2_vits14.lvd142m",
    )
    assert found.dialect.name == ("dinov2_chunked" if chunks else "dinov2")
    assert found.conversion.tensors == len(file) - 1
    assert len(found.conversion.extras) == len(heads) + 1


def lightning(networks: Mapping[str, Tensors], beside: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """A checkpoint of Lightning: the networks of a module, and the state of a training."""
    state = {
        key: value
        for lead, tensors in networks.items()
        for key, value in under(lead, tensors).items()
    }
    training = {
        "epoch": 3,
        "global_step": 40,
        "pytorch-lightning_version": "2.5.0",
        "loops": {"fit_loop": {}},
    }
    return training | {
        "state_dict": state | dict(beside),
        "optimizer_states": [{"state": {0: {"step": np.ones(1)}}}],
    }


@pytest.mark.parametrize(
    ("networks", "taken"),
    [
        (("student", "teacher"), "teacher"),
        (("student", "teacher", "student_ema"), "student_ema"),
        (("student",), "student"),
    ],
)
@pytest.mark.parametrize(
    "model", ["nv_dinov2_vitl14.trainable_v1_1", "nv_dinov2_vitg14_reg4.stage2"]
)
def test_a_checkpoint_of_taos_trainer_gives_the_network_that_tao_goes_on_with(
    tmp_path, model, networks, taken
):
    spec = small(model.split(".")[0])
    files = {name: random_file(spec, "tao_nvdinov2", seed=i) for i, name in enumerate(networks)}
    bodies = {
        f"{name}.backbone.": file | {"mask_token": MASK["mask_token"][None]}
        for name, file in files.items()
    }
    heads = {
        f"{name}.{part}.": head("new") for name in networks for part in ("dino_head", "ibot_head")
    }
    centre = {"dino_cls_token_loss.center": np.zeros((1, 4), np.float32)}
    found = loaded(saved(tmp_path / "x.pth", lightning(bodies | heads, centre)), model)
    assert (found.dialect.name, found.dialect.container) == ("tao_nvdinov2", f"{taken}.backbone.")
    assert found.conversion.tensors == len(files[taken])
    assert np.array_equal(
        found.conversion.params["cls_token"].read(()), files[taken]["cls_token"][0, 0]
    )


TEXT = {
    "positional_embedding": (77, 8),
    "text_projection": (8, 24),
    "token_embedding.weight": (9, 8),
    "transformer.resblocks.0.ln_1.weight": (8,),
    "ln_final.weight": (8,),
    "attn_mask": (77, 77),
    "logit_scale": (),
    "logit_bias": (),
}


@pytest.mark.parametrize(
    ("name", "dialect"),
    [
        ("ViT-L-14-SigLIP-CLIPA-224.nvclip", "open_clip"),
        ("ViT-H-14-SigLIP-CLIPA-224.nvclip", "open_clip"),
        ("ViT-B-16-SigLIP2.webli", "open_clip_timm"),
    ],
)
def test_a_classifier_of_tao_over_an_open_clip_tower_gives_the_tower(tmp_path, name, dialect):
    file = random_file(small(name.split(".")[0]), dialect)
    text = {key: np.zeros(shape, np.float32) for key, shape in TEXT.items()}
    classifier = {
        "head.weight": np.zeros((5, 24), np.float32),
        "head.bias": np.zeros(5, np.float32),
    }
    content = lightning({"model.model.": file | text, "model.": classifier}, {})
    found = loaded(saved(tmp_path / "x.pth", content), name)
    assert (found.dialect.name, found.dialect.container) == (dialect, "model.model.")
    assert found.conversion.tensors == len(file)
    assert len(found.conversion.extras) == len(text) + len(classifier)


def torch_hub(file: Tensors, **beside: np.ndarray) -> dict[str, Any]:
    """A .pth.tar of RADIO: the averaged weights, the heads of the teachers, and the arguments of its training."""
    statistics = {
        f"input_conditioner.norm_{k}": np.float32(v).reshape(3, 1, 1)
        for k, v in (("mean", MEAN), ("std", STD))
    }
    heads = {
        f"_{kind}.0.{leaf}": np.ones((2, 2), np.float32)
        for kind in ("heads", "feature_projections")
        for leaf in "wb"
    }
    state = file | statistics | heads | beside
    arguments = argparse.Namespace(
        model="vit_base_patch16_v2_224", teachers=[{"name": "clip", "use_summary": True}]
    )
    return {"state_dict_ema": state, "state_dict": state, "args": arguments, "epoch": 1}


@pytest.mark.parametrize("name", ["C-RADIOv2-H", "C-RADIOv3-B", "C-RADIOv3-g", "C-RADIOv4-SO400M"])
def test_radios_own_files_for_torch_hub_are_computed_as_radio_computes_today(tmp_path, name):
    file = random_file(small(name), "radio_hub") | {
        "base_model.reg_token": np.zeros((1, 4, 48), np.float32)
    }
    found = loaded(saved(tmp_path / "x.pth.tar", torch_hub(file)), f"{name}.nvidia")
    assert (found.dialect.name, found.spec.resample) == ("radio_hub", "bilinear_window")
    assert found.conversion.tensors == len(file) - 1


def test_the_statistics_of_a_file_for_torch_hub_are_held_against_the_rows(tmp_path):
    wrong = {"input_conditioner.norm_mean": np.zeros((3, 1, 1), np.float32)}
    content = torch_hub(random_file(small("C-RADIOv3-L"), "radio_hub"), **wrong)
    with pytest.raises(CheckpointError, match="input_conditioner holds"):
        read("C-RADIOv3-L.nvidia", checkpoint=saved(tmp_path / "x.pth.tar", content))


@pytest.mark.parametrize(
    "name",
    ["feature_normalizer.mean", "feature_normalizer.tx", "inter_feature_normalizer.rotation"],
)
@pytest.mark.parametrize("own", [True, False])
def test_a_file_whose_features_radio_normalises_is_refused(tmp_path, name, own):
    value = np.eye(48, dtype=np.float32)
    if own:
        name = f"_{name.replace('inter_', 'intermediate_')}"
        path = saved(
            tmp_path / "x.pth.tar",
            torch_hub(random_file(small("C-RADIOv3-L"), "radio_hub"), **{name: value}),
        )
    else:
        name = f"radio_model.{name}"
        path = save(
            tmp_path / "x.safetensors", random_file(small("C-RADIOv3-L"), "radio") | {name: value}
        )
    with pytest.raises(
        CheckpointError, match=rf"the file has '{name}': RADIO rotates and scales the features"
    ):
        read("C-RADIOv3-L.nvidia", checkpoint=path)


@pytest.mark.parametrize(
    ("name", "cls", "registers"), [("C-RADIOv3-H", 4, 4), ("C-RADIOv4-H", 3, 7)]
)
def test_class_tokens_and_registers_are_as_many_as_the_model_has(tmp_path, name, cls, registers):
    file = random_file(small(name), "radio")
    found = loaded(save(tmp_path / "x.safetensors", file), f"{name}.nvidia")
    tokens = file["radio_model.model.patch_generator.cls_token.token"]
    params = {
        path: tensor.read(())
        for path, tensor in found.conversion.params.items()
        if tensor.shape[-1] == 48
    }
    assert np.array_equal(params["cls_token"], tokens[0])
    assert np.array_equal(params["summary_tokens"], tokens[1:cls])
    assert np.array_equal(params["registers"], tokens[cls:])
    assert len(tokens) == cls + registers
