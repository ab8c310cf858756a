"""Every row at full size, without its memory; every name, alias and suggestion."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import fmjax
import weights_conversion as wc
from fmjax import names
from fmjax.errors import UsageError
from fmjax.models.build import param_shapes

# Keys and shapes that the authors' own model classes have, and their parameter counts. `{i}` counts to the depth, a
# number in braces to itself.
PUBLISHED = json.loads(Path(__file__).with_name("published_keys.json").read_text())
FILES = [(model, dialect) for model, row in PUBLISHED.items() for dialect in row["dialects"]]
ALL = [fmjax.get_weights(name) for name in fmjax.list_models(pretrained=True)]
# no parameters of the original
BUFFERS = ("rope_embed.periods", "*.bias_mask", "*.freqs_cos", "*.freqs_sin")


def published_file(model: str, dialect: str) -> dict[str, wc.LazyTensor]:
    """The tensors of a published file: shapes only, any attempt to read more than what is asserted fails the test."""
    row = PUBLISHED[model]
    out = {}
    for template, shape in row["dialects"][dialect]["keys"].items():
        number = re.search(r"\{(i|\d+)\}", template)
        count = 1 if number is None else row["depth"] if number[1] == "i" else int(number[1])
        for i in range(count):
            key = template if number is None else template.replace(number[0], str(i))
            out[key] = wc.LazyTensor(
                tuple(shape), np.dtype(np.float32), partial(values, key, tuple(shape))
            )
    return out


def values(key: str, shape: tuple[int, ...], index: wc.Index) -> np.ndarray:
    if key.endswith("bias_mask"):
        return np.repeat(np.float32([1, 0, 1]), shape[0] // 3)
    if key.endswith("periods"):
        return np.float32(100.0 ** (np.arange(shape[0]) / shape[0]))
    return np.broadcast_to(np.zeros((), np.float32), shape)


def num_classes(model: str, dialect: str) -> int:
    """Width of the classifier in a published file; a projection is none."""
    keys = PUBLISHED[model]["dialects"][dialect]["keys"]
    return keys.get("head.weight", [0])[0] if model.startswith("augreg") else 0


def convert(model: str, dialect: str) -> tuple[dict[str, wc.LazyTensor], wc.Conversion]:
    spec, file = fmjax.get_spec(model), published_file(model, dialect)
    shapes = param_shapes(spec, num_classes(model, dialect))
    return file, wc.to_jax(file, wc.named(file, dialect), shapes, heads=spec.num_heads)


def size(tensors: Iterable[wc.LazyTensor]) -> int:
    return sum(math.prod(tensor.shape) for tensor in tensors)


def test_all_published_architectures_and_tags_are_there():
    assert set(PUBLISHED) == set(fmjax.list_models()) - {"demo_vit_ti4"}
    assert len(PUBLISHED) == 112
    assert len(fmjax.list_models(pretrained=True)) == 204 + 1


@pytest.mark.parametrize("model", PUBLISHED)
def test_parameter_count_is_the_published_one(model):
    row = PUBLISHED[model]
    dialect = next(iter(row["dialects"]))
    file, conversion = convert(model, dialect)
    buffers = [
        t for key, t in file.items() if any(fnmatchcase(key, pattern) for pattern in BUFFERS)
    ]
    assert size(file.values()) - size(buffers) == row["parameters"]
    params = conversion.params.values()
    masked = fmjax.get_spec(model).width * fmjax.get_spec(model).depth if dialect == "dinov3" else 0
    used = {
        key: t
        for key, t in file.items()
        if key not in conversion.extras and not key.endswith("bias_mask")
    }
    assert size(params) == size(used.values()) - (
        masked if "blocks.attn.q.bias" in conversion.params else 0
    )


@pytest.mark.parametrize("model", fmjax.list_models())
def test_counted_parameters_are_those_of_the_model(model):
    spec = fmjax.get_spec(model)
    assert spec.parameters == sum(math.prod(shape) for shape in param_shapes(spec).values())


@pytest.mark.parametrize(("model", "dialect"), FILES)
def test_dialect_covers_every_key_and_every_parameter(model, dialect):
    file, conversion = convert(model, dialect)
    assert len(file) == PUBLISHED[model]["dialects"][dialect]["tensors"]
    assert set(conversion.params) == set(
        param_shapes(fmjax.get_spec(model), num_classes(model, dialect))
    )
    assert not conversion.dropped
    heads = fmjax.get_spec(model).num_heads
    back = wc.to_torch(
        conversion.params, wc.named(file, dialect), extras=conversion.extras, heads=heads
    )
    assert {key: tensor.shape for key, tensor in back.items()} == {
        key: tensor.shape for key, tensor in file.items()
    }


# timm, MAE and DINO name an encoder's tensors alike
ALIKE = [
    (m, d)
    for m, d in FILES
    if (m.startswith("mae") and d == "timm") or (m.startswith("dino_") and d != "hf_vit")
]


def likely(model: str) -> list[str]:
    """The dialects that a model is published in, its authors' first."""
    rows = [fmjax.get_weights(name) for name in fmjax.list_models(f"{model}.*", pretrained=True)]
    return [source.dialect for row in rows for source in row.sources]


@pytest.mark.parametrize(("model", "dialect"), [file for file in FILES if file not in ALIKE])
def test_dialect_is_told_by_its_keys(model, dialect):
    file = published_file(model, dialect)
    if dialect == "openai_jit":  # the list is of the image tower; these stand beside it
        file |= wc.in_memory_tree(
            {key: np.zeros(()) for key in ("input_resolution", "context_length", "vocab_size")}
        )
    assert wc.detect(file, likely(model)).name == dialect


@pytest.mark.parametrize(("model", "dialect"), ALIKE)
def test_names_that_two_dialects_share_are_the_authors_where_the_model_is_the_same(model, dialect):
    file, spec = published_file(model, dialect), fmjax.get_spec(model)
    with pytest.raises(wc.CheckpointError, match="--dialect"):
        wc.detect(file, likely(model))

    def alike(one: wc.Dialect, other: wc.Dialect) -> bool:
        return wc.reads_alike(one, other, param_shapes(spec), spec.num_heads)

    assert wc.detect(file, likely(model), alike=alike).name == model.split("_")[0]


def test_every_dialect_has_a_source_or_a_reason():
    used = {source.dialect for row in ALL for source in row.sources}
    told_apart = {
        "dinov2_chunked": "training checkpoints",
        "eva02_original": "backbones of fine-tuned files",
    }
    told_apart |= {
        "hf_aimv2": "transformers' own names",
        "radio_hub": "the half-precision files of torch.hub",
    }
    assert set(wc.dialects()) - used == set(told_apart)
    assert len(wc.dialects()) == 30


@pytest.mark.parametrize("name", fmjax.list_models(pretrained=True))
def test_weights_row_is_complete(name):
    weights = fmjax.get_weights(name)
    assert weights.licence
    assert weights.sources
    spec = fmjax.get_spec(name)
    assert (
        all(n % spec.patch_size == 0 for n in weights.image_size)
        or weights.image_size == spec.image_size
    )
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
    assert names.resolve(alias) == name


@pytest.mark.parametrize("shared", ["QuanSun/EVA-CLIP", "eva_giant_patch14_clip_224"])
def test_a_spelling_that_two_rows_share_is_no_alias(shared):
    with pytest.raises(UsageError, match="unknown model"):
        names.resolve(shared)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("ViT-B-33", "ViT-B-32"), ("dinov2_vits", "dinov2_vits14"), ("ViT-B-32.opena", "openai")],
)
def test_unknown_names_are_answered_with_the_nearest(wrong, near):
    with pytest.raises(UsageError, match=near):
        names.resolve(wrong)


def test_weights_of_an_architecture_with_several_must_be_named():
    with pytest.raises(UsageError, match="22 published weights"):
        fmjax.get_weights("ViT-B-32")


def test_no_file_is_published_as_two_sets_of_weights():
    owners: dict[tuple[str, str], list[str]] = {}
    for weights in ALL:
        for source in weights.sources:
            owners.setdefault((source.location, source.filename), []).append(weights.name)
    shared = [names for names in owners.values() if len(names) > 1]
    # one file, evaluated at 378 pixels too
    assert shared == [["ViT-SO400M-14-SigLIP-384.webli", "ViT-SO400M-14-SigLIP-378.webli"]]
