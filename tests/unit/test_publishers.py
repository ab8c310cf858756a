"""How the authors of weights preprocess images, and how other publishers of them do."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace

import jax
import numpy as np
import pytest

import fmjax
from fmjax.config.model import ModelConfig
from fmjax.config.run import RunConfig
from fmjax.data.split import Part, Split
from fmjax.engine import backbone
from fmjax.engine import records as files
from fmjax.engine.reruns import check_spec
from fmjax.preprocessing import PreprocessConfig, preprocess_config
from fmjax.programs.convert import convert
from fmjax.serial import to_json
from fmjax.specs import Weights
from fmjax.weights.load import load, read
from fmjax.weights.publisher import spec_of_publisher, weights_of_publisher
from tests.support import torch_reference
from tests.support.checkpoints import random_file, save, small

assert torch_reference  # declares what torchvision needs before timm imports it
IMAGENET, OPENAI, HALF = (0.485, 0.456, 0.406), (0.48145466, 0.4578275, 0.40821073), (0.5, 0.5, 0.5)
WEIGHTS = [fmjax.get_weights(name) for name in fmjax.list_models(pretrained=True)]

# size, mean, interpolation, resize mode, crop: what the authors' own code does to evaluate. big_vision
# SigLIP_demo.ipynb and pp/ops_image.py; EVA-02 asuka/datasets.py; ml-aim README.md and aim/v1/torch/data.py; TAO
# classification_pyt augmentation.py and its specs; tips run_image_encoder_inference.py
AUTHORS = {
    "ViT-B-16-SigLIP.webli": (224, HALF, "bilinear_no_antialias", "squash", 1.0),
    "ViT-SO400M-14-SigLIP2-378.webli": (378, HALF, "bilinear_no_antialias", "squash", 1.0),
    "eva02_base_patch14.mim_in22k_ft_in22k_448": (448, OPENAI, "bicubic", "shortest", 1.0),
    "eva02_large_patch14.mim_m38m_ft_in22k_in1k_448": (448, OPENAI, "bicubic", "shortest", 1.0),
    "aimv2_large.224px": (224, IMAGENET, "bicubic", "shortest", 0.875),
    "aimv2_3B.448px": (448, IMAGENET, "bicubic", "shortest", 0.875),
    "nv_dinov2_vitl14.trainable_v1_1": (224, IMAGENET, "bilinear", "squash", 1.0),
    "nv_dinov2_vitg14_reg4.stage2": (224, IMAGENET, "bilinear", "squash", 1.0),
    "ViT-H-14-SigLIP-CLIPA-224.nvclip": (224, IMAGENET, "bilinear", "squash", 1.0),
    "tips_b14.tips_v2": (448, (0.0, 0.0, 0.0), "bilinear", "squash", 1.0),
    "dinov2_vits14.lvd142m": (224, IMAGENET, "bicubic", "shortest", 0.875),
    "dinov3_vitl16plus.lvd1689m": (256, IMAGENET, "bilinear", "squash", 1.0),
    "C-RADIOv4-H.nvidia": (512, OPENAI, "bilinear", "squash", 1.0),
}
# the fields in which a publisher differs from them: transformers convert_siglip_to_hf.py; open_clip pretrained.py; the
# processor beside Apple's files; timm's configs are held below, all of them
OTHERS = [
    ("ViT-B-16-SigLIP.webli", "hf_siglip", {"interpolation": "bicubic"}),
    ("ViT-B-16-SigLIP2.webli", "hf_siglip", {"interpolation": "bilinear"}),
    ("ViT-B-16-SigLIP2.webli", "open_clip_timm", {"interpolation": "bicubic"}),
    ("ViT-B-16-SigLIP2.webli", "big_vision_npz", {}),
    ("eva02_base_patch14.mim_in22k_ft_in22k_448", "timm", {"resize_mode": "squash"}),
    ("eva02_base_patch14.mim_in22k_ft_in22k_448", "eva02_original_finetune", {}),
    ("aimv2_large.224px", "aimv2", {"mean": OPENAI, "crop_pct": 1.0}),
    ("EVA02-B-16.merged2b_s8b_b131k", "open_clip_timm", {}),
    ("EVA02-B-16.merged2b_s8b_b131k", "timm", {"crop_pct": 0.9}),
    ("tips_b14.tips_v2", "tips_npz", {}),
]


def essential(config: PreprocessConfig) -> tuple:
    return (
        config.image_size[0],
        config.mean,
        config.interpolation,
        config.resize_mode,
        config.crop_pct,
    )


@pytest.mark.parametrize("name", AUTHORS)
def test_a_name_preprocesses_as_its_authors_evaluate(name):
    assert essential(preprocess_config(name)) == AUTHORS[name]


@pytest.mark.parametrize("family", ["SigLIP", "aimv2", "nv_dinov2"])
def test_siblings_preprocess_alike(family):
    configs = [
        preprocess_config(row)
        for row in WEIGHTS
        if family in row.model and "CLIPA" not in row.model
    ]
    assert len({replace(config, image_size=(0, 0)) for config in configs}) == 1


@pytest.mark.parametrize(("name", "dialect", "changed"), OTHERS)
def test_a_publisher_preprocesses_in_its_own_way(name, dialect, changed):
    theirs, ours = (
        asdict(preprocess_config(row))
        for row in (weights_of_publisher(fmjax.get_weights(name), dialect), name)
    )
    found = {
        field: value for field, value in theirs.items() if value != ours[field] and field != "std"
    }
    assert found == changed


BY_TIMM = [
    (row, s.location.removeprefix("timm/"))
    for row in WEIGHTS
    for s in row.sources
    if s.dialect == "timm"
]


@pytest.mark.parametrize(
    ("row", "theirs"),
    [pair for pair in BY_TIMM if "/" not in pair[1]],
    ids=lambda value: getattr(value, "name", value),
)
def test_files_of_timm_are_preprocessed_as_timms_configs_say(row: Weights, theirs: str):
    from timm.models import get_pretrained_cfg

    expected, found = (
        get_pretrained_cfg(theirs),
        preprocess_config(weights_of_publisher(row, "timm")),
    )
    assert found.image_size == tuple(expected.input_size[1:])
    assert found.interpolation == expected.interpolation
    assert found.resize_mode == {None: "shortest", "center": "shortest"}.get(
        expected.crop_mode, expected.crop_mode
    )
    assert found.crop_pct == expected.crop_pct
    assert np.allclose((found.mean, found.std), (expected.mean, expected.std), atol=1e-4)


def test_what_a_source_says_of_preprocessing_is_preprocessing():
    known = {field.name for field in fields(PreprocessConfig)}
    assert {
        key for row in WEIGHTS for source in row.sources for key in source.preprocessing
    } <= known


@pytest.fixture
def in_small(monkeypatch):
    monkeypatch.setattr(
        "fmjax.weights.load.names.get_spec",
        lambda name: replace(small(name.split(".")[0]), weights=name),
    )


@pytest.mark.parametrize(
    ("dialect", "interpolation"),
    [
        ("big_vision_npz", "bilinear_no_antialias"),
        ("hf_siglip", "bilinear"),
        ("open_clip_timm", "bicubic"),
    ],
)
def test_a_model_from_a_file_preprocesses_as_the_publisher_of_the_file(
    tmp_path, in_small, dialect, interpolation
):
    name, file = "ViT-B-16-SigLIP2.webli", random_file(small("ViT-B-16-SigLIP2"), dialect)
    np.savez(tmp_path / "x.npz", **file)
    path = tmp_path / "x.npz" if dialect.endswith("npz") else save(tmp_path / "x.safetensors", file)
    assert preprocess_config(load(name, checkpoint=path)).interpolation == interpolation
    convert(name, str(path), str(tmp_path / "ours.safetensors"))
    assert (
        preprocess_config(read(name, checkpoint=tmp_path / "ours.safetensors").spec).interpolation
        == interpolation
    )
    assert preprocess_config(name).interpolation == "bilinear_no_antialias"


def test_a_run_follows_the_publisher_of_its_file_and_remembers_it(tmp_path):
    name = "ViT-B-16-SigLIP2.webli"
    config = RunConfig(out=str(tmp_path / "run"), model=ModelConfig(name=name))
    spec = spec_of_publisher(fmjax.get_spec(name), fmjax.get_weights(name), "hf_siglip")
    assert backbone.preprocessing(config).interpolation == "bilinear_no_antialias"
    assert backbone.preprocessing(config, spec).interpolation == "bilinear"
    part = Part(["a/0.png", "b/0.png"], np.arange(2, dtype=np.int32), np.full(2, 9, np.int64))
    files.write_run(
        tmp_path / "run",
        config,
        Split(("a", "b"), part, part),
        spec,
        backbone.preprocessing(config, spec),
    )
    stored = files.read_spec(tmp_path / "run")
    assert stored == spec
    seen = files.read_preprocessing(tmp_path / "run")
    assert seen == backbone.preprocessing(config, spec)
    assert stored.publisher == "hf_siglip"


def test_a_run_of_before_there_were_publishers_goes_on(tmp_path):
    name = "dinov2_vits14.lvd142m"
    config, spec = RunConfig(out=str(tmp_path), model=ModelConfig(name=name)), fmjax.get_spec(name)
    old = json.loads(to_json(spec))
    del old["publisher"]
    (tmp_path / "spec.json").write_text(json.dumps(old))
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    (tmp_path / "checkpoints" / "1" / "arrays").write_text("x")
    check_spec(tmp_path, config, spec)


def test_authors_files_have_no_publisher_so_that_a_run_may_change_to_them():
    row, spec = fmjax.get_weights("dinov2_vits14.lvd142m"), fmjax.get_spec("dinov2_vits14.lvd142m")
    assert spec_of_publisher(spec, row, "dinov2") == spec
    assert spec_of_publisher(spec, row, "timm").publisher == "timm"


def test_a_model_for_other_images_keeps_their_size_and_its_publisher():
    spec = replace(fmjax.get_spec("dinov2_vits14.lvd142m"), publisher="timm")
    assert preprocess_config(spec).image_size == (518, 518)
    assert preprocess_config(replace(spec, image_size=(70, 98))).image_size == (70, 98)
    assert preprocess_config(replace(spec, image_size=(70, 98))).crop_pct == 1.0
    shapes = jax.eval_shape(lambda: fmjax.create("dinov2_vits14.lvd142m", image_size=224))
    assert preprocess_config(shapes) == preprocess_config("dinov2_vits14.lvd142m")
