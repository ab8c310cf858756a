"""Files that are whole, in shards, damaged, or something else."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest

import weights_conversion as wc
from tests.support.checkpoints import save
from weights_conversion.readers import open_checkpoint
from weights_conversion.writer import write_safetensors

TENSORS = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.float16([1, 2]),
    "empty": np.zeros((0, 3)),
}


def test_file_comes_back_whole_and_in_slices(tmp_path):
    file = open_checkpoint(save(tmp_path / "x.safetensors", TENSORS))
    assert set(file.tensors) == set(TENSORS)
    for key, array in TENSORS.items():
        assert np.array_equal(file.tensors[key].read(()), array)
    assert np.array_equal(
        file.tensors["a.weight"].read((slice(1, 3), slice(0, 2))), TENSORS["a.weight"][1:3, :2]
    )


def test_writer_and_reader_agree_on_bfloat16_and_on_bytes(tmp_path):
    tensors = wc.in_memory_tree(
        {"x": np.arange(5).astype(ml_dtypes.bfloat16), "n": np.asarray(7, np.int64)}
    )
    write_safetensors(tmp_path / "one.safetensors", tensors, {"format": "fmjax"})
    write_safetensors(tmp_path / "two.safetensors", tensors, {"format": "fmjax"})
    assert (tmp_path / "one.safetensors").read_bytes() == (
        tmp_path / "two.safetensors"
    ).read_bytes()
    back = open_checkpoint(tmp_path / "one.safetensors")
    assert back.metadata == {"format": "fmjax"}
    assert back.tensors["x"].dtype == ml_dtypes.bfloat16
    assert back.tensors["n"].read(()) == 7


def test_a_large_tensor_is_written_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("weights_conversion.tensors.CHUNK_BYTES", 64)
    array, reads = np.random.default_rng(0).standard_normal((10, 4)), []
    lazy = wc.LazyTensor(
        array.shape, array.dtype, lambda index: reads.append(index) or array[index]
    )
    write_safetensors(tmp_path / "x.safetensors", {"x": lazy})
    assert len(reads) == 5
    assert np.array_equal(open_checkpoint(tmp_path / "x.safetensors").tensors["x"].read(()), array)


def test_a_failed_write_leaves_nothing_and_keeps_the_old_file(tmp_path):
    path = save(tmp_path / "x.safetensors", TENSORS)
    before = path.read_bytes()

    def fails(index):
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        write_safetensors(path, {"x": wc.LazyTensor((3,), np.dtype(np.float32), fails)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_folder_with_shards(tmp_path):
    save(tmp_path / "model-1.safetensors", {"a.weight": TENSORS["a.weight"]})
    save(tmp_path / "model-2.safetensors", {"b": TENSORS["b"]})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {"a.weight": "model-1.safetensors", "b": "model-2.safetensors"}})
    )
    assert set(open_checkpoint(tmp_path).tensors) == {"a.weight", "b"}
    index.write_text(json.dumps({"weight_map": {"a.weight": "model-2.safetensors"}}))
    with pytest.raises(wc.CheckpointError, match=r"do not hold: 'a\.weight'"):
        open_checkpoint(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a.weight": "../model-1.safetensors"}}))
    with pytest.raises(wc.CheckpointError, match="outside its own folder"):
        open_checkpoint(tmp_path)


def test_a_tensor_that_an_index_leaves_out_is_in_the_checkpoint(tmp_path):
    save(tmp_path / "model-1.safetensors", TENSORS)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"b": "model-1.safetensors"}}))
    assert set(open_checkpoint(tmp_path).tensors) == set(TENSORS)


def test_a_tensor_of_two_shards_is_refused(tmp_path):
    save(tmp_path / "model-1.safetensors", {"a": TENSORS["a.weight"], "b": TENSORS["b"]})
    save(tmp_path / "model-2.safetensors", {"b": TENSORS["b"] + 1, "c": TENSORS["b"]})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {"a": "model-1.safetensors", "c": "model-2.safetensors"}})
    )
    with pytest.raises(
        wc.CheckpointError, match=r"shards that both hold 'b'; which is meant is unclear"
    ):
        open_checkpoint(tmp_path)
    index.write_text('{"weight_map": {"a": "model-1.safetensors", "a": "model-2.safetensors"}}')
    with pytest.raises(
        wc.CheckpointError, match="is not an index of shards: two entries called 'a'"
    ):
        open_checkpoint(tmp_path)


def test_small_and_large_tensors_are_the_same_bytes(tmp_path):
    arrays = {f"{n}": np.arange(n, dtype=np.uint8) for n in (1, 16 << 10, (16 << 10) + 1)}
    tensors = open_checkpoint(save(tmp_path / "x.safetensors", arrays)).tensors
    for name, array in arrays.items():
        assert np.array_equal(tensors[name].read(()), array)
        assert not tensors[name].read(()).flags.writeable
    (tmp_path / "x.safetensors").write_bytes(b"")
    for tensor in tensors.values():
        with pytest.raises(wc.CheckpointError, match="can no longer be read as it was"):
            tensor.read(())


@pytest.mark.parametrize("damage", ["truncate", "header", "short"])
def test_damaged_files_are_refused_in_one_sentence(tmp_path, damage):
    path = save(tmp_path / "x.safetensors", TENSORS)
    whole = path.read_bytes()
    broken = {"truncate": whole[:-8], "header": b"\xff" * 8 + whole[8:], "short": whole[:12]}
    path.write_bytes(broken[damage])
    with pytest.raises(wc.CheckpointError, match="not a whole safetensors file"):
        open_checkpoint(path)


def test_what_is_not_there_says_so(tmp_path):
    with pytest.raises(wc.CheckpointError, match="no checkpoint at"):
        open_checkpoint(tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    with pytest.raises(wc.CheckpointError, match=r"has no \.safetensors, \.bin, \.pt"):
        open_checkpoint(tmp_path / "folder")
    save(tmp_path / "two" / "a.safetensors", TENSORS)
    save(tmp_path / "two" / "b.safetensors", TENSORS)
    with pytest.raises(
        wc.CheckpointError, match=r"has 2 checkpoints \('a\.safetensors', 'b\.safetensors'\)"
    ):
        open_checkpoint(tmp_path / "two")


def test_a_safetensors_file_is_told_by_its_content(tmp_path):
    save(tmp_path / "x.safetensors", TENSORS).rename(tmp_path / "x.pt")
    assert set(open_checkpoint(tmp_path / "x.pt").tensors) == set(TENSORS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.pt", b"", "is empty"),
        (
            "x.pt",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "git-lfs pointer.*run git lfs pull",
        ),
        ("x.safetensors", b"\n<!DOCTYPE html><html>404</html>", "is a web page"),
        ("x.bin", b'{"error": "not found"}', "is JSON text"),
        ("x.h5", b"\x89HDF\r\n\x1a\n\0", "is an HDF5 file.*numpy.savez"),
        ("x.gguf", b"GGUF\3\0\0\0", "is a GGUF file"),
        ("x.npy", b"\x93NUMPY\1\0", "is a single numpy array"),
        ("x.pth.gz", b"\x1f\x8b\x08", "is gzipped"),
        ("x.rar", b"Rar!\x1a\x07\0", "is packed"),
        ("x.tar", bytes(257) + b"ustar\x0000", "is a tar file; unpack it"),
        ("x.onnx", b"\x12\4abcd", "is an ONNX graph"),
        ("model", b"\x08\x07\x12\x07pytorch", "is an ONNX graph"),
        ("saved_model.pb", b"\x08\x01\x12\x07", "TensorFlow"),
        ("model.ckpt.data-00000-of-00001", b"\0\1\2", "TensorFlow"),
        ("flax_model.msgpack", b"\x81\xa6params", "Flax msgpack"),
        ("x.pkl", b"\x80\x04\x95\x0b", "is a pickle, but not one of torch's"),
        ("x.pt", b"PK\3\4" + bytes(100), "zip file cut short"),
        ("x.pt", b"PK\5\6" + bytes(18), r"neither torch's data.pkl nor \.npy arrays \(empty\)"),
        ("x.pt", b"PK", "is no checkpoint that is known"),
        ("x.weights", b"\1\2\3", "is no checkpoint that is known"),
    ],
)
def test_what_is_something_else_says_what(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(wc.CheckpointError, match=message):
        open_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("_CHECKPOINT_METADATA", "is an Orbax checkpoint"),
        ("flax_model.msgpack", "has a Flax msgpack file only"),
        ("saved_model.pb", "TensorFlow SavedModel"),
        ("variables.data-00000-of-00001", "TensorFlow checkpoint"),
        ("tf_model.h5", "HDF5"),
        ("model.onnx", "ONNX"),
        ("model.gguf", "GGUF"),
    ],
)
def test_folders_of_other_frameworks_say_what_they_are(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(wc.CheckpointError, match=message):
        open_checkpoint(tmp_path)
