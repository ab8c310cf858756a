"""Strictness and bit-exactness of the table engine."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import weights_conversion as wc
from fmjax.models.build import param_shapes
from tests.support.checkpoints import random_file, small
from weights_conversion.report import MAX_LINES, collapse
from weights_conversion.writer import write_safetensors

PAIRS = [
    ("ViT-B-16", "open_clip"),
    ("ViT-B-16", "openai_jit"),
    ("ViT-L-14-CLIPA", "open_clip"),
    ("ViT-B-16", "hf_clip"),
    ("ViT-B-16", "timm"),
    ("EVA01-g-14", "open_clip_timm"),
    ("EVA02-B-16", "open_clip_timm"),
    ("EVA02-L-14", "timm"),
    ("EVA02-E-14", "timm"),
    ("EVA01-g-14", "eva_clip"),
    ("EVA02-B-16", "eva_clip"),
    ("EVA02-E-14", "eva_clip"),
    ("dinov2_vits14", "dinov2"),
    ("dinov2_vitg14_reg", "dinov2"),
    ("dinov2_vits14_reg", "timm"),
    ("dinov2_vitg14", "hf_dinov2"),
    ("dinov2_vits14_reg", "hf_dinov2_with_registers"),
    ("nv_dinov2_vitl14", "tao_nvdinov2"),
    ("nv_dinov2_vitg14_reg4", "tao_nvdinov2"),
    ("ViT-B-16-SigLIP", "timm"),
    ("ViT-B-16-SigLIP2", "open_clip_timm"),
    ("ViT-B-16-SigLIP", "hf_siglip"),
    ("ViT-B-16-SigLIP2", "big_vision_npz"),
    ("dinov3_vits16", "dinov3"),
    ("dinov3_vit7b16", "dinov3"),
    ("dinov3_vits16plus", "hf_dinov3"),
    ("dinov3_vit7b16", "hf_dinov3"),
    ("dinov3_vits16", "timm"),
    ("dinov3_vith16plus", "timm"),
    ("mae_vit_base_patch16", "mae"),
    ("mae_vit_base_patch16", "hf_vit_mae"),
    ("dino_vits16", "dino"),
    ("dino_vits16", "hf_vit"),
    ("augreg_vit_tiny_patch16_224", "augreg_npz"),
    ("augreg_vit_tiny_patch16_224", "timm"),
    ("eva02_tiny_patch14", "timm"),
    ("eva02_base_patch14", "timm"),
    ("eva02_tiny_patch14", "eva02_original_pretrain"),
    ("eva02_base_patch14", "eva02_original_finetune"),
    ("eva02_base_patch14", "eva02_original"),
    ("PE-Core-B-16", "pe_original"),
    ("PE-Core-bigG-14-448", "pe_original"),
    ("PE-Core-B-16", "open_clip_timm"),
    ("aimv2_large", "aimv2"),
    ("aimv2_large", "hf_aimv2"),
    ("aimv2_large", "timm"),
    ("C-RADIOv2-B", "radio"),
    ("C-RADIOv3-B", "radio"),
    ("C-RADIOv4-H", "radio"),
    ("C-RADIOv3-B", "radio_hub"),
    ("C-RADIOv4-SO400M", "radio_hub"),
    ("tips_s14", "tips_npz"),
    ("tips_g14", "hf_tipsv2"),
    ("tips_s14", "timm"),
    ("dinov2_vits14", "dinov2_chunked"),
]
EXTRAS = {
    "open_clip": "text_projection",
    "open_clip_timm": "text.cls_emb",
    "eva_clip": "visual.blocks.0.attn.rope.freqs_cos",
    "hf_clip": "text_model.final_layer_norm.weight",
    "hf_siglip": "logit_bias",
    "dinov2": "mask_token",
    "hf_dinov2": "embeddings.mask_token",
    "hf_dinov2_with_registers": "embeddings.mask_token",
    "hf_dinov3": "embeddings.mask_token",
    "mae": "decoder_blocks.0.norm1.weight",
    "radio": "radio_model.model.reg_token",
    "tips_npz": "mask_token",
}


def test_every_dialect_makes_a_round_trip():
    assert {dialect for _, dialect in PAIRS} == set(wc.dialects())


@pytest.mark.parametrize("dialect", ["timm", "open_clip_timm"])
@pytest.mark.parametrize(
    ("model", "key"), [("EVA01-g-14", "q_bias"), ("dinov3_vits16", "gamma_1"), ("ViT-B-16", "")]
)
def test_a_file_of_timm_is_read_by_the_table_of_its_class(model, key, dialect):
    shapes = param_shapes(small(model))
    table = wc.writing(dialect, shapes)
    file = wc.in_memory_tree(random_file(small(model), dialect))
    assert any(name.endswith(key) for name in file)
    assert [found for found in wc.candidates(file) if found.name == dialect] == [table]
    assert (table == wc.get_dialect(dialect)) == (key == "")


def test_a_model_of_eva_is_not_written_under_the_name_of_code_without_it():
    with pytest.raises(
        wc.CheckpointError, match=r"the mae dialect has no place for blocks\.attn\.q\.bias"
    ):
        random_file(small("EVA01-g-14"), "mae")


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(("model", "dialect"), PAIRS)
def test_round_trip_is_bit_exact(model, dialect, dtype):
    spec = small(model)
    table = wc.writing(dialect, param_shapes(spec))
    file = random_file(spec, dialect, dtype)
    if dialect in EXTRAS:
        file[EXTRAS[dialect]] = np.arange(6, dtype=np.int64)
    conversion = wc.to_jax(wc.in_memory_tree(file), table, param_shapes(spec), heads=spec.num_heads)
    back = wc.to_torch(conversion.params, table, extras=conversion.extras, heads=spec.num_heads)
    assert set(back) == set(file)
    for key, tensor in back.items():
        assert tensor.dtype == file[key].dtype
        assert tensor.read(()).tobytes() == np.ascontiguousarray(file[key]).tobytes(), key


def test_a_slice_reads_only_its_own_blocks():
    spec, table = small("ViT-B-16", depth=4), wc.get_dialect("open_clip")
    file, seen = wc.in_memory_tree(random_file(spec, "open_clip")), []

    def watched(key: str, tensor: wc.LazyTensor) -> wc.LazyTensor:
        return wc.LazyTensor(
            tensor.shape, tensor.dtype, lambda index: seen.append(key) or tensor.read(index)
        )

    spied = {key: watched(key, tensor) for key, tensor in file.items()}
    kernel = wc.to_jax(spied, table, param_shapes(spec)).params["blocks.mlp.up.kernel"]
    assert seen == []
    part = kernel.read((slice(1, 3), slice(0, 16), slice(None)))
    assert seen == [f"visual.transformer.resblocks.{i}.mlp.c_fc.weight" for i in (1, 2)]
    assert np.array_equal(part, kernel.read(())[1:3, :16])


def test_report_names_every_misfit_at_once():
    spec, table = small("ViT-B-16"), wc.get_dialect("open_clip")
    file = random_file(spec, "open_clip")
    del file["visual.ln_post.bias"]
    file["visual.transformer.resblocks.1.ln_1.weights"] = file.pop(
        "visual.transformer.resblocks.1.ln_1.weight"
    )
    file["visual.proj"] = file["visual.proj"].T
    file["optimizer.step"] = np.zeros(1)
    with pytest.raises(wc.MisfitError) as caught:
        wc.to_jax(wc.in_memory_tree(file), table, param_shapes(spec))
    misfits, text = caught.value.misfits, str(caught.value)
    assert misfits.missing == ["visual.transformer.resblocks.1.ln_1.weight", "visual.ln_post.bias"]
    assert misfits.unmapped == ["visual.transformer.resblocks.1.ln_1.weights", "optimizer.step"]
    assert misfits.misshapen == {"visual.proj": ((24, 48), (48, 24))}
    assert "(the file has 'visual.transformer.resblocks.1.ln_1.weights')" in text
    assert "nothing was loaded" in text


def test_a_model_part_without_a_rule_is_a_misfit():
    spec = small("ViT-B-16")
    shapes = param_shapes(spec) | {"blocks.extra.scale": (2, 48)}
    with pytest.raises(wc.MisfitError, match=r"cannot fill: blocks\.extra\.scale"):
        wc.to_jax(
            wc.in_memory_tree(random_file(spec, "open_clip")), wc.get_dialect("open_clip"), shapes
        )


def test_a_constant_that_is_not_constant_is_refused():
    spec = small("ViT-B-16")
    file = random_file(spec, "timm")
    assert not file["head.bias"].any()
    file["head.bias"] = file["head.bias"] + 1
    with pytest.raises(wc.CheckpointError, match=r"head\.bias must be all zeros"):
        wc.to_jax(wc.in_memory_tree(file), wc.get_dialect("timm"), param_shapes(spec))


def test_export_refuses_a_parameter_without_a_place():
    spec = small("EVA02-B-16")
    params = {path: wc.in_memory(np.zeros(shape)) for path, shape in param_shapes(spec).items()}
    with pytest.raises(wc.CheckpointError, match=r"no place for .*mlp\.gate"):
        wc.to_torch(params, wc.get_dialect("open_clip"))


@pytest.mark.parametrize("keys", [[], ["a", "b"]])
def test_unknown_names_are_an_error(keys):
    with pytest.raises(wc.CheckpointError, match="--dialect"):
        wc.detect(wc.in_memory_tree(dict.fromkeys(keys, np.zeros(1))))


def test_an_ambiguous_file_is_an_error_and_not_a_guess():
    file = wc.in_memory_tree(random_file(small("nv_dinov2_vitl14"), "tao_nvdinov2"))
    with pytest.raises(wc.CheckpointError, match=r"any of timm, tao_nvdinov2"):
        wc.detect(file)
    assert wc.detect(file, {"tao_nvdinov2"}).name == "tao_nvdinov2"


def test_names_collapse_over_blocks():
    assert collapse(["a.0.b", "a.1.b", "a.2.b", "c"]) == ["a.{0-2}.b", "c"]
    assert collapse(["a.0.b", "a.5.b"]) == ["a.{0,5}.b"]
    assert collapse(["a.3.b"]) == ["a.3.b"]


def test_far_block_numbers_make_no_list():
    assert collapse(["a.0.b", "a.999999999.b"]) == ["a.{0,999999999}.b"]
    assert collapse([f"a.{7 * i}.b" for i in range(500)]) == [
        "a.{0,7,14,21,28,35,42,49,56,63,70,77,...}.b"
    ]
    assert collapse(["a.9999999999.b", "a.1.b"]) == ["a.9999999999.b", "a.1.b"]
    assert collapse(["a.007.b", "{}.3.b", "a.\u0663.b"]) == ["a.007.b", "{}.3.b", "a.\u0663.b"]


def fitted(file: dict[str, np.ndarray], dtype: type = np.float32) -> wc.Conversion:
    shapes = param_shapes(small("ViT-B-16"))
    return wc.to_jax(wc.in_memory_tree(file), wc.get_dialect("open_clip"), shapes, np.dtype(dtype))


def test_a_report_of_many_misfits_is_cut():
    file = random_file(small("ViT-B-16"), "open_clip")
    strange = {f"stranger{i}": np.zeros(1) for i in range(15_000)}
    with pytest.raises(wc.MisfitError) as caught:
        fitted(file | strange)
    lines = str(caught.value).splitlines()
    assert "in the file, but not in the model (15,000)" in lines[1]
    assert lines[-1].strip() == f"... and {15_000 - MAX_LINES:,} more"
    assert len(lines) == MAX_LINES + 3


NAME = "visual.transformer.resblocks.1.attn.in_proj_weight"
HOSTILE = "\x1b]0;owned\a\n\u202e[2J"


def test_names_of_a_file_are_quoted_wherever_they_are_shown(tmp_path):
    file, one = random_file(small("ViT-B-16"), "open_clip"), np.zeros(1, np.float32)
    messages = []
    for changed in (file | {HOSTILE: one}, {HOSTILE: one}, {f"{NAME}{HOSTILE}": one}):
        with pytest.raises(wc.MisfitError) as misfit:
            fitted(changed)
        messages.append(str(misfit.value))
    with pytest.raises(wc.CheckpointError) as unknown:
        wc.detect(wc.in_memory_tree({HOSTILE: one}))
    with pytest.raises(wc.CheckpointError) as base:
        wc.get_dialect("open_clip").unwritten(wc.in_memory_tree({f"visual.{HOSTILE}": one}), {})
    with pytest.raises(wc.CheckpointError) as untyped:
        write_safetensors(tmp_path / "x", wc.in_memory_tree({HOSTILE: one.astype(np.complex64)}))
    messages += [str(error.value) for error in (unknown, base, untyped)]
    for message in messages:
        assert r"\x1b]0;owned\x07\n\u202e[2J'" in message
        assert message.isascii()
        assert message.replace("\n", "").isprintable()


KINDS = (
    np.int8,
    np.uint8,
    np.bool_,
    np.int64,
    np.complex64,
    ml_dtypes.float8_e4m3fn,
    np.longdouble,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [None, np.dtype(np.float32)])
def test_parameters_of_another_kind_are_refused_by_name_before_a_value_is_read(kind, dtype):
    def read(index: wc.Index) -> np.ndarray:
        raise AssertionError("a value was read")

    file = wc.in_memory_tree(random_file(small("ViT-B-16"), "open_clip"))
    file[NAME] = wc.LazyTensor(file[NAME].shape, np.dtype(kind), read)
    with pytest.raises(
        wc.CheckpointError, match=rf"stores '{NAME}' as {np.dtype(kind).name}"
    ) as caught:
        wc.to_jax(file, wc.get_dialect("open_clip"), param_shapes(small("ViT-B-16")), dtype)
    assert ("is quantised" in str(caught.value)) == (
        np.dtype(kind).itemsize == 1 and kind != np.bool_
    )
    assert "float16, bfloat16, float32, float64" in str(caught.value)


@pytest.mark.parametrize("companion", ["_scale", "_zero_point", ".SCB", ".absmax", "_scale_inv"])
def test_a_quantised_file_says_so_and_names_its_scales(companion):
    file = random_file(small("ViT-B-16"), "open_clip")
    file |= {NAME: file[NAME].astype(np.int8), NAME + companion: np.ones(1, np.float32)}
    with pytest.raises(
        wc.CheckpointError, match=rf"is quantised: .* and has '{NAME}{companion}' beside them"
    ):
        fitted(file)


def refusal(tensor: wc.LazyTensor) -> wc.CheckpointError | None:
    """Why it cannot be read; None where it can, and is finite."""
    try:
        values = tensor.read(())
    except wc.CheckpointError as error:
        return error
    assert np.isfinite(values.astype(np.float32)).all()
    return None


@pytest.mark.parametrize("key", [NAME, "visual.ln_post.bias", "visual.proj"])
@pytest.mark.parametrize(
    ("value", "stored", "dtype"),
    [
        (np.nan, np.float32, np.float32),
        (np.inf, np.float16, np.float32),
        (-np.inf, ml_dtypes.bfloat16, ml_dtypes.bfloat16),
        (np.nan, np.float16, np.float16),
        (1e300, np.float64, np.float32),
        (1e5, np.float32, np.float16),
    ],
)
def test_values_that_are_not_finite_are_refused_by_name(key, value, stored, dtype):
    file = random_file(small("ViT-B-16"), "open_clip")
    file[key] = file[key].astype(stored)
    file[key].flat[7] = value
    refused = [str(error) for error in map(refusal, fitted(file, dtype).params.values()) if error]
    assert len(refused) == 1
    kind, size = np.dtype(dtype).name, file[key].size
    assert refused[0].startswith(f"'{key}' is not finite in {kind}: 1 of its {size:,} values")


def test_a_slice_is_held_to_its_own_values():
    file = random_file(small("ViT-B-16"), "open_clip")
    file["visual.transformer.resblocks.1.ln_1.weight"][3] = np.nan
    scale = fitted(file).params["blocks.norm1.scale"]
    assert scale.read((slice(0, 1),)).shape == (1, 48)
    with pytest.raises(wc.CheckpointError, match=r"resblocks\.1\.ln_1\.weight' is not finite"):
        scale.read((slice(1, 2),))


def test_extras_may_be_of_any_kind():
    extras = {
        "logit_scale": np.asarray(3),
        "token_embedding.weight": np.full((2, 2), np.nan, np.complex64),
    }
    found = fitted(random_file(small("ViT-B-16"), "open_clip") | extras)
    assert set(found.extras) == set(extras)
    assert all(np.isfinite(tensor.read(())).all() for tensor in found.params.values())


@pytest.mark.parametrize(
    "indices", [np.asarray([np.nan]), np.zeros(1 << 20, np.int64), np.zeros(2, np.complex64)]
)
def test_an_extra_that_decides_something_says_it_or_is_refused(indices):
    spec = small("C-RADIOv3-B")
    file = random_file(spec, "radio") | {"radio_model.summary_idxs": indices}
    with pytest.raises(wc.CheckpointError, match=r"radio_model\.summary_idxs"):
        wc.to_jax(wc.in_memory_tree(file), wc.get_dialect("radio"), param_shapes(spec))
