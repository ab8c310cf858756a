"""Every row at full size, without its memory; every name, alias and suggestion."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import fmjax
import weights_conversion as wc
from fmjax import specs
from fmjax.errors import UsageError
from fmjax.factory import param_shapes

# Keys and shapes that the authors' own model classes have, and their parameter counts.
PUBLISHED = json.loads(Path(__file__).with_name("published_keys.json").read_text())
FILES = [(model, dialect) for model, row in PUBLISHED.items() for dialect in row["dialects"]]


def published_file(model: str, dialect: str) -> dict[str, wc.LazyTensor]:
    """The tensors of a published file: shapes only, any attempt to read more than zeros fails the test."""
    row = PUBLISHED[model]
    out = {}
    for template, shape in row["dialects"][dialect]["keys"].items():
        for i in range(row["depth"]) if "{i}" in template else [0]:
            zeros = np.broadcast_to(np.zeros((), np.float32), shape)
            out[template.replace("{i}", str(i))] = wc.LazyTensor(
                tuple(shape), np.dtype(np.float32), lambda _, z=zeros: z
            )
    return out


def test_all_published_architectures_and_tags_are_there():
    assert set(PUBLISHED) == set(fmjax.list_models()) - {"demo_vit_ti4"}
    assert len(fmjax.list_models(pretrained=True)) == 75 + 1


@pytest.mark.parametrize("model", PUBLISHED)
def test_parameter_count_is_the_published_one(model):
    declared_extra = fmjax.get_spec(model).width if model.startswith("dinov2") else 0  # Meta counts its mask token
    total = sum(math.prod(shape) for shape in param_shapes(fmjax.get_spec(model)).values())
    assert total == PUBLISHED[model]["parameters"] - declared_extra


@pytest.mark.parametrize(("model", "dialect"), FILES)
def test_dialect_covers_every_key_and_every_parameter(model, dialect):
    file, shapes = published_file(model, dialect), param_shapes(fmjax.get_spec(model))
    assert len(file) == PUBLISHED[model]["dialects"][dialect]["tensors"]
    conversion = wc.to_jax(file, wc.DIALECTS[dialect], shapes)
    assert set(conversion.params) == set(shapes)
    assert not conversion.dropped
    back = wc.to_torch(conversion.params, wc.DIALECTS[dialect], extras=conversion.extras)
    assert {key: tensor.shape for key, tensor in back.items()} == {key: tensor.shape for key, tensor in file.items()}


@pytest.mark.parametrize(("model", "dialect"), FILES)
def test_dialect_is_told_by_its_keys(model, dialect):
    likely = {s.dialect for n in fmjax.list_models(f"{model}.*", pretrained=True) for s in fmjax.get_weights(n).sources}
    assert wc.detect(published_file(model, dialect), likely).name == dialect


@pytest.mark.parametrize("name", fmjax.list_models(pretrained=True))
def test_weights_row_is_complete(name):
    weights = fmjax.get_weights(name)
    assert weights.licence
    assert weights.sources
    assert all(n % fmjax.get_spec(name).patch_size == 0 for n in weights.image_size)
    assert fmjax.get_spec(name).name == weights.model


def test_what_belongs_to_the_tag_is_in_the_tag():
    assert fmjax.get_spec("ViT-B-32.openai").activation == "quick_gelu"
    assert fmjax.get_spec("ViT-B-32.laion2b_s34b_b79k").activation == "gelu"
    assert fmjax.get_weights("ViT-L-14.laion2b_s32b_b82k").mean == (0.5, 0.5, 0.5)
    assert fmjax.get_weights("ViT-H-14.dfn5b").resize_mode == "squash"
    assert fmjax.get_spec("dinov2_vits14.lvd142m").resample == "bicubic_offset"
    assert fmjax.get_spec("dinov2_vits14_reg.lvd142m").resample == "bicubic_antialias"
    assert fmjax.get_spec("nv_dinov2_vitg14_reg4").register_position == "end"


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("hf-hub:openai/clip-vit-base-patch32", "ViT-B-32.openai"),
        ("facebook/dinov2-small", "dinov2_vits14.lvd142m"),
        ("vit_base_patch16_clip_quickgelu_224.openai", "ViT-B-16.openai"),
        ("vit_small_patch14_dinov2.lvd142m", "dinov2_vits14.lvd142m"),
        ("EVA02-L-14-336.laion400m_e31", "EVA02-L-14-336.merged2b_s6b_b61k"),
        ("EVA02-E-14.laion400m_e31", "EVA02-E-14.laion2b_s4b_b115k"),
        ("EVA02-E-14-plus.laion2b_s32b_b79k", "EVA02-E-14-plus.laion2b_s9b_b144k"),
        ("vit_large_patch14_dinov2_swiglu", "nv_dinov2_vitl14"),
    ],
)
def test_other_spellings_resolve(alias, name):
    assert specs.resolve(alias) == name


@pytest.mark.parametrize("shared", ["QuanSun/EVA-CLIP", "eva_giant_patch14_clip_224"])
def test_a_spelling_that_two_rows_share_is_no_alias(shared):
    with pytest.raises(UsageError, match="unknown model"):
        specs.resolve(shared)


@pytest.mark.parametrize(
    ("wrong", "near"), [("ViT-B-33", "ViT-B-32"), ("dinov2_vits", "dinov2_vits14"), ("ViT-B-32.opena", "openai")]
)
def test_unknown_names_are_answered_with_the_nearest(wrong, near):
    with pytest.raises(UsageError, match=near):
        specs.resolve(wrong)


def test_weights_of_an_architecture_with_several_must_be_named():
    with pytest.raises(UsageError, match="22 published weights"):
        fmjax.get_weights("ViT-B-32")
