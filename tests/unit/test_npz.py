"""numpy's archives, as AugReg, big_vision and TIPS publish them."""

from __future__ import annotations

import zipfile

import ml_dtypes
import numpy as np
import pytest

import weights_conversion as wc
from tests.security import build as b
from weights_conversion.readers import archive, open_checkpoint

RNG = np.random.default_rng(0)
ARRAYS = {
    "params/img/embedding/kernel": RNG.standard_normal((2, 2, 3, 5)).astype(np.float32),
    "Transformer/encoderblock_0/LayerNorm_0/scale": RNG.standard_normal(7).astype(np.float16),
    "fortran": np.asfortranarray(RNG.standard_normal((3, 4))),
    "bfloat16": np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.asarray(2.5),
    "step": np.asarray(7),
    "mask": np.array([True, False]),
    "bytes": np.arange(5, dtype=np.uint8),
    "complex": np.ones(2, np.complex64),
}
SAVE = {"stored": np.savez, "deflated": np.savez_compressed}


@pytest.mark.parametrize("form", SAVE)
def test_every_array_comes_back_whole_and_in_slices(tmp_path, form):
    SAVE[form](tmp_path / "x.npz", **ARRAYS)
    file = open_checkpoint(tmp_path / "x.npz")
    assert set(file.tensors) == set(ARRAYS)
    assert (file.wrapper, file.others) == ("", ())
    for name, array in ARRAYS.items():
        tensor = file.tensors[name]
        assert (tensor.shape, tensor.dtype) == (array.shape, array.dtype)
        assert np.array_equal(tensor.read(()), array)
        if array.ndim > 1 and array.size:
            assert np.array_equal(tensor.read((slice(1, 2), slice(0, 2))), array[1:2, :2])


def test_stored_arrays_are_mapped_and_told_by_content(tmp_path):
    np.savez(tmp_path / "x.npz", **ARRAYS)
    (tmp_path / "x.npz").rename(tmp_path / "x.pt")
    read = open_checkpoint(tmp_path / "x.pt").tensors["params/img/embedding/kernel"].read(())
    assert not read.flags.writeable
    assert not read.flags.owndata


def test_texts_and_other_entries_are_listed_apart(tmp_path):
    np.savez(tmp_path / "x.npz", w=np.ones(2), names=np.array(["a", "b"]))
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("README", "text")
    file = open_checkpoint(tmp_path / "x.npz")
    assert set(file.tensors) == {"w"}
    assert set(file.others) == {"names", "README"}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.array([{}, []], object),
            "'w.npy' of type O, which holds no plain numbers|holds no plain numbers",
        ),
        (np.ones(2, ">f4"), r"big-endian numbers; save it again with \.astype\('<f4'\)"),
        (np.zeros(2, [("a", "f4"), ("b", "i4")]), "holds no plain numbers"),
        (np.zeros(2, "M8[s]"), "holds no plain numbers"),
    ],
)
def test_arrays_that_are_no_numbers_are_refused(tmp_path, array, message):
    np.savez(tmp_path / "x.npz", w=array, allow_pickle=True)
    with pytest.raises(wc.CheckpointError, match=message):
        open_checkpoint(tmp_path / "x.npz")


@pytest.mark.parametrize("form", SAVE)
def test_a_flipped_bit_is_found_when_the_array_is_read(tmp_path, form):
    SAVE[form](tmp_path / "x.npz", w=RNG.standard_normal(500), v=np.ones(3))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[600] ^= 4
    (tmp_path / "x.npz").write_bytes(data)
    tensors = open_checkpoint(tmp_path / "x.npz").tensors
    assert np.array_equal(tensors["v"].read(()), np.ones(3))
    with pytest.raises(wc.CheckpointError, match=r"checksum|inflate"):
        tensors["w"].read(())


@pytest.mark.parametrize(
    "change",
    [
        ("{", "{'descr': '<f8', "),
        (", }", ", 'shape': (3, 2), }"),
        ("{", "{'x': \"'shape': (3, 2)\", "),
        ("(2, 3)", "(6)"),
        ("False", "1"),
    ],
)
def test_a_header_in_another_form_than_numpys_is_refused(tmp_path, change):
    whole = b.npz(b.npy())
    (tmp_path / "x.npz").write_bytes(whole)
    assert open_checkpoint(tmp_path / "x.npz").tensors["w"].shape == (2, 3)
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }".replace(*change) + "\n"
    array = (
        b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode() + b.VALUES.tobytes()
    )
    (tmp_path / "x.npz").write_bytes(b.npz(array))
    with pytest.raises(
        wc.CheckpointError, match=r"'w\.npy', which holds no plain numbers in the form that numpy"
    ):
        open_checkpoint(tmp_path / "x.npz")


def test_entries_that_are_read_by_turns_are_inflated_once(tmp_path, monkeypatch):
    arrays = {name: np.zeros(1 << 18, np.float32) for name in "abc"}
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    tensors = open_checkpoint(tmp_path / "x.npz").tensors
    inflated, once = [], archive._inflated
    monkeypatch.setattr(archive, "_inflated", lambda *a: inflated.append(a[2]) or once(*a))
    for name in "abc" * 5:
        assert not tensors[name].read((slice(3, 9),)).any()
    assert len(inflated) == 3
    monkeypatch.setattr(archive, "KEPT_BYTES", 2 << 20)  # room for one of them, with its header
    tensors = open_checkpoint(tmp_path / "x.npz").tensors
    inflated.clear()
    for name in "ab" * 5:
        tensors[name].read((slice(3, 9),))
    assert len(inflated) == 10
    with pytest.raises(
        wc.CheckpointError, match="inflated 64 times over; save it without compression"
    ):
        assert all(tensors[name].read(()).size for name in "ab" * 100)


def test_zeros_that_compress_a_thousandfold_are_no_bomb(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", w=np.zeros(1 << 20, np.float32))
    assert open_checkpoint(tmp_path / "x.npz").tensors["w"].read((slice(5, 9),)).tolist() == [
        0,
        0,
        0,
        0,
    ]
