"""`fmjax data pack`: the packed set is the set, in a few files, whole or not there."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fmjax.cli import main
from fmjax.config.data import DataConfig, ImagesConfig
from fmjax.config.sets import DataPackConfig
from fmjax.data import packed as layout
from fmjax.data.batches import eval_batches, train_batches
from fmjax.data.example import Examples
from fmjax.data.images import Unreadable, read
from fmjax.data.records import decode
from fmjax.data.sources import open_source
from fmjax.data.transforms import Views
from fmjax.errors import DataError, FilesError, Stopped, UsageError
from fmjax.preprocessing import preprocess_config
from fmjax.programs import data_pack
from tests.support.planted import clean, picture, saved


def asked(source: str, out: Path, **options: Any) -> DataPackConfig:
    return DataPackConfig(data=ImagesConfig(source=source, **options), out=str(out))


def opened(folder: Path) -> dict[str, Examples]:
    """The parts of a packed set, by nothing but its files."""
    contents = layout.read_contents(folder)
    return {part.name: _opened(folder, part, contents) for part in contents.parts}


def _opened(folder: Path, part: layout.Part, contents: layout.Contents) -> Examples:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    rows = ArrayRecordDataSource([str(folder / shard.file) for shard in part.shards])
    index = layout.read_index(folder / part.index, part=part, classes=len(contents.classes))
    # the index tells names and labels, and every record its own
    for number in range(len(rows)):
        name, example = decode(rows[number])
        assert name == index.names[number]
        assert example.get("label", 0) == index.labels[number]

    def field(name: str) -> Any:
        return lambda i: decode(rows[i])[1][name]

    pictures = [name for name in contents.fields if name in ("image", "mask")]
    return Examples(
        fields={name: field(name) for name in pictures},
        labels=index.labels,
        classes=contents.classes,
        names=lambda i: index.names[i],
        labelled="label" in contents.fields,
    )


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    assert set(ours) == set(theirs)
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_a_run_gets_the_same_batches_bit_by_bit(tmp_path):
    clean(tmp_path / "set")
    (tmp_path / "set/train/cat/broken.png").write_bytes(b"no picture")
    saved(picture(50), tmp_path / "set/train/dog/photo.jpg", quality=80)
    out = data_pack.main(asked(f"folder:{tmp_path}/set", tmp_path / "packed"))
    config = DataConfig(source=f"folder:{tmp_path}/set")
    splits, found = open_source(config), opened(out)
    view = Views(preprocess_config("demo_vit_ti4.fashion_mnist"), crop_scale=0.35, flip=0.5)
    # training: three rounds of the set, with crops and an unreadable image; then validation, padded
    batches = [
        itertools.islice(train_batches(part, view, config, batch_size=5, seed=3), 9)
        for part in (splits.train, found["train"])
    ]
    assert all(itertools.starmap(same, zip(*batches, strict=True)))
    assert splits.val is not None
    rows = [eval_batches(part, view, config, batch_size=5) for part in (splits.val, found["val"])]
    assert all(itertools.starmap(same, zip(*rows, strict=True)))


def test_pictures_are_the_bytes_of_their_files(tmp_path):
    clean(tmp_path / "set")
    out = data_pack.main(asked(f"folder:{tmp_path}/set", tmp_path / "packed"))
    for role, examples in opened(out).items():
        assert len(examples) == 12
        for i in range(len(examples)):
            # names are those below the folder, so that both can be moved
            name = examples.names(i)
            assert name.startswith(f"{role}/{examples.classes[examples.labels[i]]}/")
            assert examples.read(i)["image"] == (tmp_path / "set" / name).read_bytes()


def test_masks_and_arrays_are_packed_too(tmp_path):
    for number in range(3):
        saved(picture(number), tmp_path / f"set/images/{number}.png")
        values = np.full((48, 48), number % 2, np.uint8)
        saved(Image.fromarray(values), tmp_path / f"set/masks/{number}.png")
    (tmp_path / "set/classes.txt").write_text("road\nsky\n")
    found = opened(data_pack.main(asked(f"masks:{tmp_path}/set", tmp_path / "packed")))["train"]
    assert (found.classes, found.labelled, len(found)) == (("road", "sky"), False, 3)
    assert found.read(1)["mask"] == (tmp_path / "set/masks/1.png").read_bytes()
    digits = opened(data_pack.main(asked("digits", tmp_path / "digits")))["train"]
    source = open_source(ImagesConfig(source="digits")).train
    assert len(digits) == len(source)
    assert digits.labels.tolist() == source.labels.tolist()


def shrunk_to(edge: int, source: str, out: Path, **options: Any) -> DataPackConfig:
    return replace(asked(source, out, **options), short_edge=edge)


def test_shrunk_pixels_are_evaluated_as_the_pictures_are(tmp_path):
    clean(tmp_path / "set")
    saved(picture(50, 90, 60), tmp_path / "set/val/dog/wide.jpg", quality=80)
    saved(picture(51, 40, 70, mode="L"), tmp_path / "set/val/fox/grey.png")
    saved(picture(52, 20, 24), tmp_path / "set/val/fox/small.png")
    (tmp_path / "set/val/cat/broken.png").write_bytes(b"no picture")
    source = f"folder:{tmp_path}/set"
    folder = data_pack.main(shrunk_to(32, source, tmp_path / "packed"))
    found = open_source(ImagesConfig(source=f"arrayrecord:{folder}"))
    parts = (open_source(ImagesConfig(source=source)).val, found.val)
    demo = preprocess_config("demo_vit_ti4.fashion_mnist")
    # the shorter side is scaled to 32 pixels, which it has already where it is packed
    look = replace(demo, crop_pct=0.875, interpolation="bicubic", resize_mode="shortest")
    read = [_rows(part, Views(look)) for part in parts if part is not None]
    assert set(read[1]) == set(read[0])
    assert len(read[1]) == 15
    assert all(np.array_equal(read[0][name], read[1][name]) for name in read[0])
    # nothing is enlarged, and what is grey has one byte a pixel
    assert found.val is not None
    assert found.val.sizes is not None
    sizes = dict(zip(map(found.val.names, range(15)), found.val.sizes, strict=True))
    head = len(b"P6\n32 32\n255\n")
    assert sizes["val/fox/small.png"] == head + 3 * 20 * 24
    assert sizes["val/fox/grey.png"] == head + 32 * 56
    assert sizes["val/dog/wide.jpg"] == head + 3 * 48 * 32


def _rows(part: Examples, view: Views) -> dict[str, np.ndarray]:
    """What a network is fed of each example that can be read, by the end of its name."""
    found = {}
    for i in range(len(part)):
        with contextlib.suppress(Unreadable):
            example = {**part.read(i), "image": read(part.read(i)["image"])}
            found["/".join(Path(part.names(i)).parts[-2:])] = view(example, None)["image"]
    return found


def test_a_run_trains_on_shrunk_pixels(tmp_path):
    clean(tmp_path / "set")
    folder = data_pack.main(shrunk_to(32, f"folder:{tmp_path}/set", tmp_path / "packed"))
    part = opened(folder)["train"]
    view = Views(preprocess_config("demo_vit_ti4.fashion_mnist"), crop_scale=0.35, flip=0.5)
    config = DataConfig(source=f"arrayrecord:{folder}")
    for batch in itertools.islice(train_batches(part, view, config, batch_size=6, seed=3), 4):
        assert batch["weight"].sum() == 6
        # blocks of all colours, not a flat or a shifted picture
        assert batch["image"].shape == (6, 28, 28, 3)
        assert batch["image"].std() > 20


def test_masks_are_not_shrunk_and_a_long_way_off_is_told_before_it(tmp_path, monkeypatch):
    saved(picture(0), tmp_path / "set/images/0.png")
    saved(Image.fromarray(np.zeros((48, 48), np.uint8)), tmp_path / "set/masks/0.png")
    (tmp_path / "set/classes.txt").write_text("road\nsky\n")
    with pytest.raises(UsageError, match=r"--short-edge is 32, and the set has masks"):
        data_pack.main(shrunk_to(32, f"masks:{tmp_path}/set", tmp_path / "packed"))
    with pytest.raises(UsageError, match=r"--data\.max-pixels"):
        asked("digits", tmp_path / "packed", max_pixels=100)
    with pytest.raises(UsageError, match=r"--short-edge is -1; it must be 0, or pixels up to"):
        shrunk_to(-1, "digits", tmp_path / "packed")
    clean(tmp_path / "pets")
    config = shrunk_to(32, f"folder:{tmp_path}/pets", tmp_path / "packed")
    usage = namedtuple("usage", "total used free")
    # 24 pictures of 32 x 32 x 3 bytes and their heads, beside which a record takes 256
    need = 24 * (32 * 32 * 3 + len(b"P6\n32 32\n255\n") + 256)
    for free in (need - 1, need):
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path, free=free: usage(10**9, 10**9, free))
            refused = pytest.raises(FilesError, match=r"would take 80\.2 kB, and the disk has")
            with refused if free < need else contextlib.nullcontext():
                data_pack.main(config)
    assert left(tmp_path) == ["packed", "pets", "set"]


def test_a_small_shard_makes_more_files_of_the_same_set(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for number in range(4):
            values = rng.integers(0, 256, (400, 400, 3), np.uint8)
            saved(Image.fromarray(values), tmp_path / f"set/{name}/{number}.png")
    config = DataPackConfig(
        data=ImagesConfig(source=f"folder:{tmp_path}/set"), out=str(tmp_path / "small"), shard_mb=1
    )
    small = data_pack.main(config)
    large = data_pack.main(asked(f"folder:{tmp_path}/set", tmp_path / "large"))
    files = [len(list(folder.glob("*.array_record"))) for folder in (small, large)]
    assert files == [4, 1]
    ours, theirs = (opened(folder)["train"] for folder in (small, large))
    assert [ours.read(i) for i in range(8)] == [theirs.read(i) for i in range(8)]


def test_a_file_that_cannot_be_opened_is_named_and_left_out_up_to_the_bound(
    tmp_path, capsys, monkeypatch
):
    clean(tmp_path / "set")
    whole = data_pack.encode

    def encode(example: Any, *, name: str, **options: Any) -> bytes:
        if name == "train/dog/1.png":
            os.remove(tmp_path / "set" / name)
        return whole(example, name=name, **options)

    monkeypatch.setattr(data_pack, "encode", encode)
    out = data_pack.main(asked(f"folder:{tmp_path}/set", tmp_path / "packed"))
    assert (
        "unreadable image left out: train/dog/1.png: it cannot be opened" in capsys.readouterr().out
    )
    assert len(opened(out)["train"]) == 11
    clean(tmp_path / "set")
    with pytest.raises(DataError, match=r"more than --data\.max-bad 0"):
        data_pack.main(asked(f"folder:{tmp_path}/set", tmp_path / "other", max_bad=0))
    assert left(tmp_path) == ["packed", "set"]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    clean(tmp_path / "set")
    config = asked(f"folder:{tmp_path}/set", tmp_path / "packed")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("fmjax.data.records.write_index", full)
        with pytest.raises(
            FilesError, match="cannot be written: No space left on device; nothing of it is left"
        ):
            data_pack.main(config)
    assert left(tmp_path) == ["set"]
    # and where it can be known before, it is
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(FilesError, match=r"would take .* and the disk has 1 kB; make room"):
        data_pack.main(config)
    assert left(tmp_path) == ["set"]


def test_ctrl_c_leaves_nothing(tmp_path, monkeypatch):
    clean(tmp_path / "set")

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(data_pack, "write_contents", stopped)
    with pytest.raises(Stopped, match="stopped, having written nothing"):
        data_pack.main(asked(f"folder:{tmp_path}/set", tmp_path / "packed"))
    assert left(tmp_path) == ["set"]


def test_a_folder_that_is_there_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "packed").mkdir()
    with pytest.raises(UsageError, match="exists, and a packed set is written anew"):
        data_pack.main(asked(f"folder:{tmp_path}/nowhere", tmp_path / "packed"))


def test_the_command_packs_and_says_how_to_use_it(tmp_path, capsys):
    clean(tmp_path / "set")
    out = tmp_path / "deep/packed"
    assert main(["data", "pack", f"folder:{tmp_path}/set", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "packed    12 train, 12 val, " in said
    assert f"--data.source arrayrecord:{out}" in said
    assert left(out) == [
        "dataset.json",
        "train-00000.array_record",
        "train.npz",
        "val-00000.array_record",
        "val.npz",
    ]
    assert out.stat().st_mode & 0o777 == 0o777 & ~data_pack._umask()
    assert main(["data", "pack", "--shard-mb", "1"]) == 2
    assert "fmjax data pack needs a source" in capsys.readouterr().err
