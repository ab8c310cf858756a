"""torch's own files, written by torch and read without it, against what torch reads."""

from __future__ import annotations

import argparse
import json
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

import weights_conversion as wc
from tests.security import build as b
from weights_conversion.readers import open_checkpoint
from weights_conversion.writer import write_safetensors

X = torch.arange(24, dtype=torch.float32).reshape(4, 6)
DTYPES = (
    *(
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.complex64,
        torch.float8_e4m3fn,
    ),
    *(
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
        torch.uint16,
        torch.uint32,
    ),
)
FORMATS = ("zip", "legacy", "deflated")


def saved(path: Path, value: object, form: str = "zip") -> Path:
    """The file that torch writes; "deflated" is packed again, as some mirrors do."""
    torch.save(value, path, _use_new_zipfile_serialization=form != "legacy")
    if form == "deflated":
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
    return path


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    if tensor.dtype == torch.float8_e4m3fn:
        return tensor.view(torch.int8).numpy().view(ml_dtypes.float8_e4m3fn)
    return tensor.numpy()


def assert_same(tensors, expected: dict[str, torch.Tensor]) -> None:
    assert set(tensors) == set(expected)
    for name, tensor in expected.items():
        array = as_numpy(tensor)
        read = tensors[name].read(())
        assert (
            (tensors[name].shape, tensors[name].dtype)
            == (array.shape, array.dtype)
            == (read.shape, read.dtype)
        )
        assert np.array_equal(read, array), name


class Net(nn.Module):
    """Parameters in two precisions, a buffer, a list of modules, a tied weight and settings."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 2, bias=False).half()
        self.norm = nn.LayerNorm(4)
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.tied = self.blocks[1].weight
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.register_buffer("size", torch.tensor(224))
        self.drop, self.patch, self.sizes, self.mean = nn.Dropout(0.1), 2, [4, 4], [0.5, 0.5]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.norm(x) * self.scale


@pytest.mark.parametrize("form", FORMATS)
def test_every_dtype_comes_back(tmp_path, form):
    state = {str(dtype): X.gt(5) if dtype == torch.bool else X.to(dtype) for dtype in DTYPES}
    assert_same(open_checkpoint(saved(tmp_path / "x.pt", state, form)).tensors, state)


@pytest.mark.parametrize("form", FORMATS)
def test_views_strides_empty_and_0d_tensors_are_right(tmp_path, form):
    state = {
        "whole": X,
        "transposed": X.t(),
        "column": X[:, 2:3],
        "odd": X[1::2, ::3],
        "moved": X.reshape(2, 2, 6).permute(2, 0, 1),
        "channels_last": torch.arange(48.0)
        .reshape(1, 3, 4, 4)
        .to(memory_format=torch.channels_last),
        "expanded": torch.arange(7).expand(3, 7),
        "scalar": torch.tensor(3.5),
        "inside": X[2, 3],
        "empty": torch.zeros(0, 5),
        "none": torch.zeros(0),
    }
    assert_same(open_checkpoint(saved(tmp_path / "x.pt", state, form)).tensors, state)


@pytest.mark.parametrize("form", FORMATS)
def test_slices_equal_torchs_and_do_not_hold_the_whole(tmp_path, form):
    state = {"plain": X, "t": X.t(), "half": X.half()}
    tensors = open_checkpoint(saved(tmp_path / "x.pt", state, form)).tensors
    for name, tensor in state.items():
        part = tensors[name].read((slice(1, 3), slice(0, 2)))
        assert np.array_equal(part, as_numpy(tensor)[1:3, :2])
        assert np.array_equal(tensors[name].read((slice(1, 2),)), as_numpy(tensor)[1:2])
        assert not part.flags.writeable


def test_tied_weights_and_parameters_come_back_under_each_name(tmp_path):
    module = Net()
    assert_same(
        open_checkpoint(saved(tmp_path / "x.pt", module.state_dict())).tensors, module.state_dict()
    )
    state = {
        "a": nn.Parameter(X),
        "b": nn.Parameter(X),
        "c": nn.Parameter(X.clone(), requires_grad=False),
    }
    state["c"]._no_weight_decay = True  # saved as a tensor with Python attributes
    assert_same(open_checkpoint(saved(tmp_path / "y.pt", state)).tensors, state)


def test_settings_beside_the_weights_are_inert(tmp_path):
    file = {
        "model": {"w": X},
        "args": argparse.Namespace(
            lr=1e-3, size=torch.Size([2, 3]), dtype=torch.float16, device=torch.device("cpu")
        ),
        "epoch": 3,
        "score": np.float32(0.5),
        "random": {
            "numpy": np.random.default_rng(0).bit_generator.state,
            "torch": torch.get_rng_state(),
        },
        "counts": Counter(a=1),
        "set": {1, 2},
        "old_random": np.random.RandomState(0).get_state(),
        "schedule": [(1, 2.5, None, True, "text", b"bytes", 1 << 100)],
        "keys": {1: 2, 2.5: 3, None: 4, (1, 2): 5},
    }
    found = open_checkpoint(saved(tmp_path / "x.pt", file))
    assert_same(found.tensors, {"w": X})
    assert found.wrapper == "model"
    assert set(found.others) == set(file) - {"model"}


@pytest.mark.parametrize(
    ("file", "wrapper", "others"),
    [
        ({"w": X}, "", ()),
        ({"state_dict": {"w": X}, "epoch": 1}, "state_dict", ("epoch",)),
        ({"model": {"w": X + 1}, "model_ema": {"w": X}}, "model_ema", ("model",)),
        (
            {"state_dict": {"w": X + 1}, "state_dict_ema": {"w": X}},
            "state_dict_ema",
            ("state_dict",),
        ),
        ({"student": {"w": X + 1}, "teacher": {"w": X}}, "teacher", ("student",)),
        ({"model": {"state_dict": {"w": X}, "step": 2}}, "model.state_dict", ("model.step",)),
        ({"model": "vit_b", "module": {"w": X}}, "module", ("model",)),
        ({"model": {"lr": 1.0}, "w": X}, "", ("model",)),
        ({"module.w": X}, "module", ()),
        ({"state_dict": {"module._orig_mod.w": X}}, "state_dict.module._orig_mod", ()),
        ({"_orig_mod.w": X, "iteration": 4}, "_orig_mod", ("iteration",)),
    ],
)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_wrappers_are_taken_off_in_their_order(tmp_path, file, wrapper, others, form):
    found = open_checkpoint(saved(tmp_path / "x.pth", file, form))
    assert_same(found.tensors, {"w": X})
    assert (found.wrapper, found.others) == (wrapper, others)


def test_other_prefixes_stay_and_nested_dicts_become_dotted_names(tmp_path):
    file = {"visual": {"conv1.weight": X, "blocks": {0: {"w": X}}}, "module.a": X, "backbone.b": X}
    found = open_checkpoint(saved(tmp_path / "x.pt", file))
    assert set(found.tensors) == {
        "visual.conv1.weight",
        "visual.blocks.0.w",
        "module.a",
        "backbone.b",
    }
    with pytest.raises(wc.CheckpointError, match=r"two tensors called 'a\.b'"):
        open_checkpoint(saved(tmp_path / "y.pt", {"a.b": X, "a": {"b": X}}))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("make", ["script", "trace"])
def test_torchscript_archives_give_the_modules_state_dict(tmp_path, make):
    module = Net().eval()
    jit = (
        torch.jit.script(module) if make == "script" else torch.jit.trace(module, torch.ones(1, 4))
    )
    torch.jit.save(jit, tmp_path / "x.pt")
    assert_same(open_checkpoint(tmp_path / "x.pt").tensors, module.state_dict())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_module_called_model_is_no_wrapper(tmp_path):
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.module = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(self.module(x))

    torch.jit.save(torch.jit.script(Outer()), tmp_path / "x.pt")
    found = open_checkpoint(tmp_path / "x.pt")
    assert set(found.tensors) == {"model.weight", "model.bias", "module.weight", "module.bias"}
    assert found.wrapper == ""


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("legacy", [False, True])
def test_every_pickle_protocol_is_read(tmp_path, protocol, legacy):
    state = OrderedDict(a=X, b=nn.Parameter(X.half()))
    torch.save(
        state, tmp_path / "x", pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy
    )
    assert_same(open_checkpoint(tmp_path / "x").tensors, state)


def test_files_without_checksums_load_and_others_are_checked(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "x.pt", {"w": X})
    finally:
        torch.serialization.set_crc32_options(before)
    assert_same(open_checkpoint(path).tensors, {"w": X})

    whole = saved(tmp_path / "y.pt", {"w": X, "v": X + 100}).read_bytes()
    place = whole.index(as_numpy(X).tobytes())
    (tmp_path / "y.pt").write_bytes(whole[:place] + b"\1" + whole[place + 1 :])
    tensors = open_checkpoint(tmp_path / "y.pt").tensors
    assert np.array_equal(tensors["v"].read(()), as_numpy(X + 100))
    with pytest.raises(
        wc.CheckpointError, match=r"damaged: the bytes of 'y/data/0' have the checksum"
    ):
        tensors["w"].read((slice(3, 4),))


def test_a_file_that_changes_after_it_was_opened_is_refused(tmp_path):
    for form in FORMATS:
        path = saved(tmp_path / f"{form}.pt", {"w": X}, form)
        tensors = open_checkpoint(path).tensors
        path.unlink()
        with pytest.raises(wc.CheckpointError, match="can no longer be read"):
            tensors["w"].read(())


def test_zip64_records_are_followed(tmp_path, monkeypatch):
    path = saved(tmp_path / "x.pt", {"w": X})
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 50)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)
    assert_same(open_checkpoint(path).tensors, {"w": X})


@pytest.mark.parametrize("container", ["safetensors", "bin"])
def test_sharded_bins_are_read_and_safetensors_come_first(tmp_path, container):
    saved(tmp_path / "pytorch_model-1.bin", {"module.a": X})
    saved(tmp_path / "pytorch_model-2.bin", {"b": X + 1})
    owners = {"module.a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": owners}))
    if container == "safetensors":
        write_safetensors(tmp_path / "model.safetensors", wc.in_memory_tree({"w": as_numpy(X)}))
        assert_same(open_checkpoint(tmp_path).tensors, {"w": X})
    else:
        assert_same(open_checkpoint(tmp_path).tensors, {"module.a": X, "b": X + 1})


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "open_clip_pytorch_model.bin", "dinov2_vits14_pretrain.pth"]
)
def test_a_folder_with_one_torch_file(tmp_path, name):
    saved(tmp_path / name, {"w": X})
    assert_same(open_checkpoint(tmp_path).tensors, {"w": X})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            nn.Linear(2, 2),
            r"calls for 'torch\.nn\.modules\.linear\.Linear'.*nothing was run; save only the weights",
        ),
        ({"path": Path("x")}, r"calls for 'pathlib\.Posix"),
        ([X], "holds a list, not a state dict"),
        (X, "holds a tensor, not a state dict"),
        ({"epoch": 1}, r"holds no tensors under names \('epoch'\)"),
        ({"w": X.to_sparse()}, r"sparse tensors; save them with \.to_dense"),
        ({"w": torch.zeros(2, device="meta")}, "tensors without values"),
        ({"w": torch.ones(2, dtype=torch.complex64).conj()}, r"\.resolve_conj"),
        ({"state_dict_encrypted": b"x"}, "encrypted by NVIDIA TAO"),
    ],
)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_what_is_no_state_dict_is_refused_with_the_way_out(tmp_path, value, message, form):
    path = saved(tmp_path / "x.pt", value, form)
    with pytest.raises(wc.CheckpointError, match=message):
        open_checkpoint(path)


@pytest.mark.filterwarnings("ignore")
def test_quantised_files_are_refused(tmp_path):
    path = saved(tmp_path / "x.pt", {"w": torch.quantize_per_tensor(X, 0.1, 0, torch.qint8)})
    with pytest.raises(wc.CheckpointError, match="is quantised; take the file of the float model"):
        open_checkpoint(path)


@pytest.mark.parametrize("form", ["zip", "deflated", "script", "legacy"])
@pytest.mark.parametrize("count", [1000, 3])
def test_a_storage_is_described_in_one_way(tmp_path, form, count):
    other = {"shape": (count,), "strides": (1,), "where": b.storage(count=count)}
    if form == "legacy":
        body = b.pairs(
            {"a": b.legacy_tensor(count=max(6, count)), "w": b.legacy_tensor(kind="IntStorage")}
        )
        data = b.legacy(body)
    else:
        more = [("x/constants.pkl", b"")] if form == "script" else []
        body = b.program(b.pairs({"a": b.tensor(**other), "w": b.tensor()}))
        data = b.torch_zip(body, *more, method=8 if form == "deflated" else 0)
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(wc.CheckpointError, match="describes the storage '0' in two ways"):
        open_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["OrderedDict", "Counter"])
@pytest.mark.parametrize(("times", "refused"), [(10, False), (1000, True)])
def test_what_calls_copy_is_counted(tmp_path, name, times, refused):
    table = b.pairs({f"{i}": b.NONE for i in range(1000)}) + b"q\x00"
    calls = b.call(b.name("collections", name), b"h\x00") * times
    value = b"](" + table + calls + b"e"
    (tmp_path / "x.pt").write_bytes(
        b.torch_zip(b.program(b.pairs({"w": b.tensor(), "more": value})))
    )
    if refused:
        with pytest.raises(wc.CheckpointError, match="whose calls copy more than 300,000 parts"):
            open_checkpoint(tmp_path / "x.pt")
    else:
        assert set(open_checkpoint(tmp_path / "x.pt").tensors) == {"w"}


@pytest.mark.parametrize(
    ("names", "shared"),
    [
        (["module.a", "module.b"], "module"),
        (["module.module.a", "module._orig_mod.b"], "module"),
        (["_orig_mod.module.a", "_orig_mod.module.b"], "_orig_mod.module"),
        (["_orig_mod.a", "module.b"], ""),
        (["module.a", "modules.b"], ""),
        (["module.", "module.module.a"], None),
        (["_orig_mod.module.x"], "_orig_mod.module"),
    ],
)
def test_prefixes_come_off_as_far_as_all_names_have_them(tmp_path, names, shared):
    path = saved(tmp_path / "x.pt", dict.fromkeys(names, X))
    if shared is None:
        with pytest.raises(wc.CheckpointError, match="is no name of at most 512 characters"):
            open_checkpoint(path)
        return
    found = open_checkpoint(path)
    assert found.wrapper == shared
    assert set(found.tensors) == {
        name.removeprefix(f"{shared}." if shared else "") for name in names
    }


@pytest.mark.parametrize("length", [512, 513])
def test_a_long_name_is_no_other_name(tmp_path, length):
    path = saved(tmp_path / "x.pt", {"model": {"a": {"b" * (length - 2): X}}})
    if length > 512:
        with pytest.raises(wc.CheckpointError, match="is no name of at most 512 characters"):
            open_checkpoint(path)
    else:
        assert set(open_checkpoint(path).tensors) == {"a." + "b" * 510}


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_thousand_tensors_open_at_once(tmp_path, form):
    state = {f"blocks.{i}.weight": torch.full((2, 2), float(i)) for i in range(1000)}
    assert_same(open_checkpoint(saved(tmp_path / "x.pt", state, form)).tensors, state)
