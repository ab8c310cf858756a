"""What each publisher computes, as facts of their code, and what decides between them."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import fmjax
from fmjax.errors import CheckpointError, UsageError
from fmjax.programs.convert import convert
from fmjax.specs import Rope
from fmjax.weights.export import check_export
from fmjax.weights.load import load, read
from fmjax.weights.publisher import differences, spec_of_publisher, with_facts
from tests.support.checkpoints import random_file, save, small

AXIAL = Rope(first_axis="columns", offset=1.0)
# weights, dialect, activation, epsilon, resampling: transformers' configs and modeling files, timm's factory functions,
# open_clip's resize_pos_embed, the authors' code
FACTS = [
    ("ViT-B-16.openai", "open_clip", "quick_gelu", 1e-5, "bicubic_antialias"),
    ("ViT-B-16.openai", "openai_jit", "quick_gelu", 1e-5, "bicubic_antialias"),
    ("ViT-B-16.openai", "hf_clip", "quick_gelu", 1e-5, "bicubic"),
    ("ViT-B-32.laion2b_s34b_b79k", "hf_clip", "gelu", 1e-5, "bicubic"),
    ("EVA02-B-16.merged2b_s8b_b131k", "eva_clip", "gelu", 1e-6, "bicubic"),
    ("EVA02-B-16.merged2b_s8b_b131k", "timm", "gelu", 1e-6, "bicubic_antialias"),
    ("EVA02-B-16.merged2b_s8b_b131k", "open_clip_timm", "gelu", 1e-6, "bicubic_antialias"),
    ("eva02_tiny_patch14.mim_in22k_224", "timm", "gelu", 1e-6, "bicubic_antialias"),
    ("dinov2_vits14.lvd142m", "dinov2", "gelu", 1e-6, "bicubic_offset"),
    ("dinov2_vits14.lvd142m", "hf_dinov2", "gelu", 1e-6, "bicubic"),
    ("dinov2_vits14.lvd142m", "timm", "gelu", 1e-6, "bicubic_antialias"),
    ("dinov2_vits14_reg.lvd142m", "dinov2", "gelu", 1e-6, "bicubic_antialias"),
    ("dinov2_vits14_reg.lvd142m", "hf_dinov2_with_registers", "gelu", 1e-6, "bicubic_antialias"),
    ("nv_dinov2_vitl14.trainable_v1_1", "tao_nvdinov2", "gelu", 1e-6, "bicubic_offset"),
    ("ViT-B-16-SigLIP2.webli", "big_vision_npz", "gelu_tanh", 1e-6, "bilinear_corners"),
    ("ViT-B-16-SigLIP2.webli", "hf_siglip", "gelu_tanh", 1e-6, "bicubic"),
    ("ViT-B-16-SigLIP2.webli", "open_clip_timm", "gelu", 1e-6, "bicubic_antialias"),
    ("ViT-B-16-SigLIP2.webli", "timm", "gelu", 1e-6, "bicubic_antialias"),
    ("ViT-B-32-SigLIP2-256.webli", "timm", "gelu_tanh", 1e-6, "bicubic_antialias"),
    ("ViT-gopt-16-SigLIP2-256.webli", "open_clip_timm", "gelu_tanh", 1e-6, "bicubic_antialias"),
    ("mae_vit_base_patch16.pretrain", "mae", "gelu", 1e-6, "bicubic"),
    ("mae_vit_base_patch16.pretrain", "hf_vit_mae", "gelu", 1e-12, "bicubic"),
    ("dino_vits16.in1k", "dino", "gelu", 1e-6, "bicubic_offset"),
    ("dino_vits16.in1k", "hf_vit", "gelu", 1e-12, "bicubic"),
    ("dino_vits16.in1k", "timm", "gelu", 1e-6, "bicubic_antialias"),
    (
        "augreg_vit_tiny_patch16_224.augreg_in21k",
        "augreg_npz",
        "gelu_tanh",
        1e-6,
        "bilinear_corners",
    ),
    ("augreg_vit_tiny_patch16_224.augreg_in21k", "timm", "gelu", 1e-6, "bicubic_antialias"),
    ("eva02_tiny_patch14.mim_in22k_224", "eva02_original_pretrain", "gelu", 1e-6, "bicubic"),
    ("PE-Core-B-16.meta", "pe_original", "gelu", 1e-5, "bilinear"),
    ("PE-Core-B-16.meta", "open_clip_timm", "gelu", 1e-5, "bicubic_antialias"),
    ("dinov3_vits16.lvd1689m", "dinov3", "gelu", 1e-5, "bicubic_antialias"),
    ("aimv2_large.224px", "aimv2", "gelu", 1e-5, "bicubic_antialias"),
    ("C-RADIOv2-H.nvidia", "radio_hub", "gelu", 1e-6, "bilinear_window"),
    ("C-RADIOv2-H.nvidia", "radio", "gelu", 1e-6, "bilinear_window"),
    ("C-RADIOv3-B.nvidia", "radio_hub", "gelu", 1e-6, "bilinear_window"),
    ("C-RADIOv3-B.nvidia", "radio", "gelu", 1e-6, "bilinear_corners_window"),
    ("C-RADIOv3-H.nvidia", "radio", "gelu", 1e-6, "bilinear_corners_window"),
    ("C-RADIOv3-L.nvidia", "radio", "gelu", 1e-6, "bilinear_window"),
    ("C-RADIOv3-g.nvidia", "radio", "gelu", 1e-6, "bilinear_window"),
    ("C-RADIOv4-H.nvidia", "radio", "gelu", 1e-6, "bilinear_window"),
    ("tips_b14.tips_v2", "tips_npz", "gelu", 1e-6, "bilinear_antialias"),
    ("tips_b14.tips_v2", "hf_tipsv2", "gelu", 1e-6, "bilinear_antialias"),
    ("tips_b14.tips_v2", "timm", "gelu", 1e-6, "bicubic_antialias"),
    ("ViT-H-14-SigLIP-CLIPA-224.nvclip", "open_clip", "gelu", 1e-5, "bicubic_offset"),
    ("dinov3_vitl16plus.lvd1689m", "dinov3", "gelu", 1e-5, "bicubic_antialias"),
]


@pytest.mark.parametrize(("name", "dialect", "activation", "eps", "resample"), FACTS)
def test_a_file_is_computed_as_its_publisher_does(name, dialect, activation, eps, resample):
    spec = spec_of_publisher(fmjax.get_spec(name), fmjax.get_weights(name), dialect)
    assert (spec.activation, spec.norm_eps, spec.resample) == (activation, eps, resample)


def test_timm_rescales_the_rotary_positions_of_pe_and_meta_does_not():
    row, spec = fmjax.get_weights("PE-Core-B-16.meta"), fmjax.get_spec("PE-Core-B-16.meta")
    assert spec_of_publisher(spec, row, "pe_original").rope == AXIAL
    assert spec_of_publisher(spec, row, "open_clip_timm").rope == replace(
        AXIAL, reference_grid=(14, 14)
    )


# how the authors' own code follows another image size today: RADIO vit_patch_generator.py, tips image_encoder.py,
# EVA-CLIP eva_clip/utils.py, EVA-02 run_class_finetuning.py
AUTHORS = {
    "C-RADIO": "bilinear_window",
    "tips": "bilinear_antialias",
    "EVA0": "bicubic",
    "eva02_": "bicubic",
}


@pytest.mark.parametrize(
    "name", [n for n in fmjax.list_models(pretrained=True) if n.startswith(tuple(AUTHORS))]
)
def test_a_name_follows_another_size_as_its_authors_code_does_today(name):
    expected = next(resample for prefix, resample in AUTHORS.items() if name.startswith(prefix))
    assert fmjax.get_spec(name).resample == expected


@pytest.fixture
def in_small(monkeypatch):
    monkeypatch.setattr("fmjax.weights.load.names.get_spec", lambda name: small(name.split(".")[0]))


def test_a_name_means_the_same_function_whatever_source_is_reached(tmp_path, monkeypatch, in_small):
    row = fmjax.get_weights("ViT-B-16-SigLIP2.webli")
    for source in row.sources[:2]:
        path = save(
            tmp_path / f"{source.dialect}.safetensors",
            random_file(small("ViT-B-16-SigLIP2"), source.dialect),
        )
        monkeypatch.setattr("fmjax.store.locate.locate", lambda *_, p=path, s=source, **__: (p, s))
        assert read(row.name).spec.activation == "gelu_tanh"
        assert read(row.name).spec.resample == "bilinear_corners"


@pytest.mark.parametrize(
    "facts", ["not json", "[" * 9000, "[]", '{"norm_eps": 0.5}', '{"pool_tokens": [1]}']
)
def test_metadata_decides_nothing_that_fmjax_did_not_write(tmp_path, in_small, facts):
    name = "ViT-B-16.openai"
    source = save(tmp_path / "clip.safetensors", random_file(small("ViT-B-16"), "open_clip"))
    convert(name, str(source), str(tmp_path / "ours.safetensors"))
    from safetensors.numpy import load_file, save_file

    for path, kind in ((source, "pt"), (tmp_path / "ours.safetensors", "fmjax")):
        save_file(load_file(path), tmp_path / "x.safetensors", {"format": kind, "facts": facts})
        if kind == "pt":
            assert read(name, checkpoint=tmp_path / "x.safetensors").spec.norm_eps == 1e-5
        else:
            with pytest.raises(CheckpointError, match=r"facts|the file says"):
                read(name, checkpoint=tmp_path / "x.safetensors")


@pytest.mark.parametrize("value", [[4], [-1], [0, 0], [True], [0.0], [], "x", None, 0, [[0]]])
def test_only_class_tokens_of_the_model_are_joined(value):
    spec = fmjax.get_spec("C-RADIOv2-B")
    assert with_facts(spec, {"pool_tokens": [3, 0]}).pool_tokens == (3, 0)
    with pytest.raises(
        CheckpointError,
        match=r"the file says 'pool_tokens' = .*, which C-RADIOv2-B has no place for",
    ):
        with_facts(spec, {"pool_tokens": value})


def test_periods_are_rounded_to_a_type_that_there_is():
    spec = fmjax.get_spec("dinov3_vits16")
    told = with_facts(spec, {"rope.period_dtype": "bfloat16"})
    assert told.rope == replace(spec.rope, period_dtype="bfloat16")
    with pytest.raises(CheckpointError, match=r"'\\x1b\[2J'"):
        with_facts(spec, {"rope.period_dtype": "\x1b[2J"})


def test_the_names_of_jax_models_compute_the_tanh_gelu_of_jax():
    theirs = [
        n
        for n in fmjax.list_models(pretrained=True)
        if n.startswith("augreg_") and "augreg2" not in n
    ]
    assert len(theirs) == 19
    for name in theirs:
        spec = fmjax.get_spec(name)
        assert (spec.activation, spec.resample) == ("gelu_tanh", "bilinear_corners")
    # timm trained these further itself
    assert fmjax.get_spec("augreg_vit_base_patch16_224.augreg2_in21k_ft_in1k").activation == "gelu"


def test_a_converted_file_is_tied_to_its_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "fmjax.weights.load.names.get_spec",
        lambda name: replace(small(name.split(".")[0]), weights=name),
    )
    source = save(tmp_path / "clip.safetensors", random_file(small("ViT-B-16"), "open_clip"))
    convert("ViT-B-16.openai", str(source), str(tmp_path / "ours.safetensors"))
    assert read("ViT-B-16.openai", checkpoint=tmp_path / "ours.safetensors")
    with pytest.raises(
        UsageError, match=r"was converted from 'ViT-B-16\.openai', not from ViT-B-16\.laion400m_e32"
    ):
        read("ViT-B-16.laion400m_e32", checkpoint=tmp_path / "ours.safetensors")


@pytest.mark.parametrize(("dialect", "sees"), [("timm", "pool"), ("hf_dinov2", "cls_patches")])
def test_the_classifier_of_ones_own_file_is_kept(tmp_path, in_small, dialect, sees):
    model = fmjax.initialise(small("dinov2_vits14"), num_classes=7, classifier=sees)
    kernel = jnp.ones_like(model.classifier.kernel[...])
    model.classifier.kernel = type(model.classifier.kernel)(kernel)
    path = fmjax.export(model, tmp_path / "x.safetensors", dialect)
    back = load("dinov2_vits14.lvd142m", checkpoint=path, dialect=dialect)
    assert np.array_equal(back.classifier.kernel[...], kernel)
    assert back.classifier_input == sees
    assert (
        load("dinov2_vits14.lvd142m", checkpoint=path, dialect=dialect, num_classes=0).classifier
        is None
    )
    new = load("dinov2_vits14.lvd142m", checkpoint=path, dialect=dialect, num_classes=7)
    assert not np.asarray(new.classifier.kernel[...]).any()


def test_an_export_that_would_be_read_otherwise_is_told():
    spec = fmjax.get_spec("ViT-B-16-SigLIP.webli")
    found = differences(spec, "timm")
    assert "activation 'gelu' instead of 'gelu_tanh'" in found
    assert differences(fmjax.get_spec("ViT-B-16.openai"), "open_clip") == ""


def test_a_model_that_cannot_be_exported_says_so_before_training():
    with pytest.raises(
        UsageError, match=r"timm dialect has no place for registers, summary_tokens.*--export none"
    ):
        check_export(fmjax.initialise(small("C-RADIOv3-B"), num_classes=3), "timm")
    with pytest.raises(UsageError, match="no counterpart in timm"):
        check_export(
            fmjax.initialise(small("PE-Core-B-16"), num_classes=3, classifier="cls"), "timm"
        )
    check_export(fmjax.initialise(small("dinov2_vits14"), num_classes=3), "timm")


@pytest.mark.parametrize(
    "changed", [{"input_conditioner.norm_mean": np.zeros((3, 1, 1), np.float32)}]
)
def test_statistics_in_a_file_are_held_against_the_rows(tmp_path, in_small, changed):
    file = random_file(small("C-RADIOv3-B"), "radio")
    beside = {"radio_model.summary_idxs": np.asarray([0, 2])}
    path = save(tmp_path / "x.safetensors", file | beside)
    assert read("C-RADIOv3-B.nvidia", checkpoint=path).spec.pool_tokens == (0, 2)
    save(path, file | {f"radio_model.{key}": value for key, value in changed.items()})
    with pytest.raises(CheckpointError, match="input_conditioner holds"):
        read("C-RADIOv3-B.nvidia", checkpoint=path)
