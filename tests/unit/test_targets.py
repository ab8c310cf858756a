"""What a command will write is looked at before it works: nothing is overwritten, renamed or refused too late."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import fmjax
from fmjax.cli import main
from fmjax.errors import FilesError, UsageError
from fmjax.targets import check_target, check_writable
from tests.support.checkpoints import random_file, save, small
from weights_conversion import in_memory
from weights_conversion.writer import whole, write_safetensors

DEMO = "demo_vit_ti4.fashion_mnist"


@pytest.fixture
def clip(tmp_path, monkeypatch) -> Path:
    """A file of ViT-B-16 in small."""
    monkeypatch.setattr("fmjax.weights.load.names.get_spec", lambda name: small(name.split(".")[0]))
    return save(tmp_path / "clip.safetensors", random_file(small("ViT-B-16"), "open_clip"))


def refused(capsys, code: int, *args: object) -> str:
    assert main([str(arg) for arg in args]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_convert_does_not_write_over_its_own_source(clip, capsys):
    before = clip.read_bytes()
    assert "is read from" in refused(capsys, 2, "convert", "ViT-B-16.openai", clip, clip, "--force")
    linked = clip.with_name("other.safetensors")
    linked.symlink_to(clip)
    assert "is read from" in refused(
        capsys, 2, "convert", "ViT-B-16.openai", clip, linked, "--force"
    )
    folder_form = refused(capsys, 2, "convert", "ViT-B-16.openai", clip.parent, clip, "--force")
    assert "is read from" in folder_form
    assert clip.read_bytes() == before


def test_export_does_not_write_over_the_original(clip):
    before = clip.read_bytes()
    model = fmjax.load("ViT-B-16.openai", checkpoint=clip)
    with pytest.raises(UsageError, match="is read from"):
        fmjax.export(model, clip, "open_clip", base=clip)
    assert clip.read_bytes() == before


def test_embed_does_not_write_over_its_weights(tmp_path, capsys):
    weights = tmp_path / "w.npz"
    weights.write_bytes(b"weights")
    said = refused(capsys, 2, "embed", DEMO, "--checkpoint", weights, "--out", weights, "--force")
    assert "is read from" in said
    assert weights.read_bytes() == b"weights"


def test_a_run_does_not_write_over_its_weights_or_the_files_of_others(tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    own = out / "model.timm.safetensors"
    own.write_bytes(b"weights")
    flags = ("--out", out, "--steps", 1)
    assert "is read from" in refused(capsys, 2, "finetune", DEMO, *flags, "--checkpoint", own)
    assert own.read_bytes() == b"weights"
    (out / "metrics.jsonl").write_text("mine")
    assert "is no run's folder" in refused(capsys, 2, "finetune", DEMO, *flags)
    (out / "config.json").write_text('{"mine": 1}')
    assert "is not the folder of a run" in refused(capsys, 4, "finetune", DEMO, *flags)
    assert (out / "config.json").read_text() == '{"mine": 1}'


def test_no_command_overwrites_unasked(clip, tmp_path, capsys):
    target = tmp_path / "ours.safetensors"
    target.write_text("mine")
    for command in (("convert", "ViT-B-16.openai", clip, target), ("export", clip, target)):
        assert "exists; pass --force" in refused(capsys, 2, *command)
        assert target.read_text() == "mine"
    features = tmp_path / "x.npz"
    features.write_text("mine")
    assert "exists; pass --force" in refused(capsys, 2, "embed", DEMO, "--out", features)
    assert features.read_text() == "mine"
    assert main(["convert", "ViT-B-16.openai", str(clip), str(target), "--force"]) == 0
    assert load_file(target)


def test_a_suffix_that_is_not_what_is_written_is_refused_and_none_is_changed(
    clip, tmp_path, capsys
):
    for name in ("t1.pth", "t1.bin", "t1.h5", "t1"):
        text = refused(capsys, 2, "export", clip, tmp_path / name, "--model", "ViT-B-16.openai")
        assert "must end in .safetensors" in text
        assert "must end in .safetensors" in refused(
            capsys, 2, "convert", "ViT-B-16.openai", clip, tmp_path / name
        )
    for name in ("demo.csv", "feats.v1", "feats"):
        assert "must end in .npz" in refused(capsys, 2, "embed", DEMO, "--out", tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [clip.name]


def test_a_place_that_cannot_be_written_is_said_before_the_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "fmjax.programs.features.extract", lambda *_: pytest.fail("it began to compute")
    )
    monkeypatch.setattr(
        "fmjax.programs.convert.read", lambda *_, **__: pytest.fail("it began to read")
    )
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "cannot be written" in refused(
        capsys, 5, "embed", DEMO, "--out", blocked / "deep" / "x.npz"
    )
    target = blocked / "x.safetensors"
    assert "cannot be written" in refused(capsys, 5, "convert", "ViT-B-16.openai", "source", target)


def test_a_folder_is_no_target(tmp_path):
    (tmp_path / "x.npz").mkdir()
    with pytest.raises(UsageError, match=r"is a folder; name a file that ends in \.npz"):
        check_target(tmp_path / "x.npz", ".npz", flag="--out")


def test_a_read_only_place_is_named_with_its_reason(tmp_path, monkeypatch):
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("fmjax.targets.tempfile.TemporaryFile", refuse)
    with pytest.raises(FilesError, match="Read-only file system"):
        check_writable(tmp_path)


def test_looking_makes_nothing(tmp_path):
    check_target(tmp_path / "a" / "b" / "x.npz", ".npz", flag="--out")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_before_the_first_byte(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(100, 90, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    tensors = {"w": in_memory(np.zeros(1000, np.float32))}
    with pytest.raises(
        OSError, match=r"No space left on device: 4,\d\d\d bytes are needed, 10 are free"
    ):
        write_safetensors(tmp_path / "x.safetensors", tensors)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / "x.npz"
    path.write_text("old")
    with pytest.raises(TypeError), whole(path) as file:
        file.write("not bytes")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_error_has_a_code_of_its_own_and_no_traceback(
    clip, tmp_path, capsys, monkeypatch
):
    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "x.safetensors"))

    monkeypatch.setattr("fmjax.programs.convert.write_safetensors", fail)
    text = refused(capsys, 5, "convert", "ViT-B-16.openai", clip, tmp_path / "x.safetensors")
    assert text == f"fmjax: {tmp_path}/x.safetensors: No space left on device\n"


TERMINATED = """
import sys, time
from fmjax import cli
from weights_conversion.writer import whole
from pathlib import Path

def slow(args):
    with whole(Path(args[0])) as file:
        file.write(b"half")
        file.flush()
        print("writing", flush=True)
        time.sleep(60)

cli.COMMANDS["slow"] = cli.Command("", "", slow)
sys.exit(cli.main(["slow", sys.argv[1]]))
"""


def test_a_terminated_command_leaves_no_part(tmp_path):
    command = [sys.executable, "-c", TERMINATED, str(tmp_path / "x.safetensors")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "writing\n"
        assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors.part"]
        process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        assert process.wait(20) == 143
        assert time.monotonic() - start < 10
        assert process.stderr.read() == "fmjax: terminated\n"
    assert list(tmp_path.iterdir()) == []
