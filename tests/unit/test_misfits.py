"""A file of another model, in every dialect: one report of everything, the closest model, and nothing read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import fmjax
import weights_conversion as wc
from fmjax.models.build import param_shapes
from fmjax.specs import ViTSpec
from fmjax.weights.load import read
from tests.support.checkpoints import random_file, save, small
from tests.unit.test_rules import PAIRS

ONE_EACH = {dialect: model for model, dialect in reversed(PAIRS)}


def unreadable(file: dict[str, np.ndarray]) -> dict[str, wc.LazyTensor]:
    """The file with tensors whose values must not be asked for."""

    def read(index: wc.Index) -> np.ndarray:
        raise AssertionError("a value was read before the file was known to fit")

    return {key: wc.LazyTensor(array.shape, array.dtype, read) for key, array in file.items()}


def misfits(file: dict[str, np.ndarray], dialect: str, spec: ViTSpec) -> wc.Misfits:
    with pytest.raises(wc.MisfitError) as caught:
        wc.to_jax(
            unreadable(file),
            wc.writing(dialect, param_shapes(spec)),
            param_shapes(spec),
            heads=spec.num_heads,
        )
    assert "nothing was loaded" in str(caught.value)
    return caught.value.misfits


@pytest.fixture(params=ONE_EACH.items(), ids=lambda pair: pair[0])
def pair(request) -> tuple[str, ViTSpec, dict[str, np.ndarray]]:
    dialect, model = request.param
    return dialect, small(model), random_file(small(model), dialect)


def test_another_depth_names_every_tensor_of_the_other_blocks(pair):
    dialect, spec, file = pair
    deeper = random_file(replace(spec, depth=3), dialect)
    found = misfits(deeper, dialect, spec)
    stacked = [key for key in file if deeper[key].shape != file[key].shape]
    assert set(found.unmapped) == set(deeper) - set(file)
    assert set(found.misshapen) == set(stacked)
    assert found.unmapped or found.misshapen
    assert set(misfits(file, dialect, replace(spec, depth=3)).missing) == set(deeper) - set(file)


def test_another_width_names_every_tensor_that_has_one(pair):
    dialect, spec, file = pair
    wider = random_file(replace(spec, width=96), dialect)
    found = misfits(wider, dialect, spec)
    assert set(found.misshapen) == {key for key in file if wider[key].shape != file[key].shape}
    assert len(found.misshapen) > len(file) // 2


def test_another_patch_is_a_matter_of_the_patch_embedding(pair):
    dialect, spec, _ = pair
    other = random_file(replace(spec, patch_size=8, image_size=(32, 32)), dialect)
    assert len(misfits(other, dialect, spec).misshapen) == 1


def test_a_missing_and_an_unknown_tensor_are_named_together(pair):
    dialect, spec, file = pair
    gone = next(reversed(file))
    del file[gone]
    file["strange"] = np.zeros(3, np.float32)
    found = misfits(file, dialect, spec)
    assert found.missing == [gone]
    # outside a container everything is carried along
    assert "strange" in found.unmapped or wc.get_dialect(dialect).container


def test_a_transposed_matrix_is_named(pair):
    dialect, spec, file = pair
    key = next(key for key, a in file.items() if a.ndim == 2 and a.shape[0] != a.shape[1])
    file[key] = file[key].T
    assert set(misfits(file, dialect, spec).misshapen) == {key}


def test_registers_that_the_model_has_not_are_named():
    file = random_file(small("dinov2_vits14_reg"), "dinov2")
    assert misfits(file, "dinov2", small("dinov2_vits14")).unmapped == ["register_tokens"]


def test_a_prefix_of_nobody_is_no_dialect(pair):
    _, _, file = pair
    with pytest.raises(wc.CheckpointError, match="none of the known dialects"):
        wc.detect(unreadable({f"my.own.{key}": array for key, array in file.items()}))


@pytest.mark.parametrize(
    ("asked", "held", "dialect", "closest"),
    [
        ("dinov2_vitb14.lvd142m", "dinov2_vits14", "dinov2", "dinov2_vits14, with 0 misfits"),
        (
            "ViT-B-16-SigLIP.webli",
            "ViT-B-16-SigLIP-256",
            "hf_siglip",
            "ViT-B-16-SigLIP-256 or ViT-B-16-SigLIP2-256",
        ),
        ("aimv2_large.224px", "aimv2_huge", "aimv2", "aimv2_huge, with 0 misfits"),
        (
            "PE-Core-T-16-384.meta",
            "PE-Core-S-16-384",
            "pe_original",
            "PE-Core-S-16-384, with 0 misfits",
        ),
        ("tips_b14.tips_v2", "tips_s14", "tips_npz", "tips_s14, with 0 misfits"),
    ],
)
def test_the_report_names_the_closest_model(tmp_path, asked, held, dialect, closest):
    spec = fmjax.get_spec(held)
    shapes = param_shapes(spec)
    params = {
        path: wc.in_memory(np.broadcast_to(np.float16(0), shape)) for path, shape in shapes.items()
    }
    table = wc.writing(dialect, shapes)
    file = {key: t.read(()) for key, t in wc.to_torch(params, table, heads=spec.num_heads).items()}
    if dialect in ("dinov2", "tips_npz"):
        file["mask_token"] = np.zeros((1, spec.width), np.float16)
    with pytest.raises(wc.MisfitError, match=f"the closest model is {closest}"):
        read(asked, checkpoint=save(tmp_path / "x.safetensors", file), dialect=dialect)
