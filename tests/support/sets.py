"""One small set of images, written in every way that a source can read."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fmjax.config.data import DataConfig
from fmjax.data.example import Examples, Splits
from fmjax.data.packed import Contents, write_contents
from fmjax.data.records import fields_of, write_part
from fmjax.data.sources import open_source
from fmjax.data.strings import Paths
from tests.security.pictures import noise

CLASSES = ("cat", "dog", "eel")
COUNTS = {"train": 9, "val": 4}
HF = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def images(part: str) -> list[tuple[str, bytes, str]]:
    """(name, content, class) of each example of a part."""
    start = 10 if part == "train" else 40
    return [
        (f"{number:03}", noise(8, start + number, "PNG"), CLASSES[number % 3])
        for number in range(COUNTS[part])
    ]


def folder(root: Path) -> Path:
    for part in COUNTS:
        for name, content, label in images(part):
            path = root / part / label / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


def table(root: Path) -> Path:
    folder(root)
    lines = [
        f"{part}/{label}/{name}.png,{label},{part}"
        for part in COUNTS
        for name, _, label in images(part)
    ]
    path = root / "set.csv"
    path.write_text("\n".join(["path,label,split", *lines]) + "\n")
    return path


def packed(root: Path, source: Path) -> Path:
    """As `fmjax data pack` writes it, of an image folder."""
    splits = open_source(DataConfig(source=f"folder:{source}"))
    return pack(root, splits)


def pack(root: Path, splits: Splits) -> Path:
    root.mkdir(exist_ok=True)
    both: Mapping[str, Examples | None] = {"train": splits.train, "val": splits.val}
    named = {name: _below(part) for name, part in both.items() if part is not None}
    parts = [write_part(root, name, part, shard_bytes=2_000) for name, part in named.items()]
    fields = fields_of(splits.train)
    write_contents(root, Contents(classes=splits.train.classes, fields=fields, parts=tuple(parts)))
    return root


def _below(part: Examples) -> Examples:
    """With the names below the set's own folder."""
    return (
        replace(part, names=part.files.names.__getitem__) if isinstance(part.files, Paths) else part
    )


def tar(path: Path, members: Iterator[tuple[str, bytes]] | list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def tars(root: Path) -> Path:
    """Two files for train, one for val."""
    for part in COUNTS:
        rows = images(part)
        for number, some in enumerate((rows[:5], rows[5:]) if part == "train" else (rows,)):
            members = [
                (f"{name}.{kind}", content)
                for name, picture, label in some
                for kind, content in (("png", picture), ("cls", label.encode()))
            ]
            tar(root / f"{part}-{number:03}.tar", members)
    return root


def metadata(kind: str = "ClassLabel") -> dict[bytes, bytes]:
    features = {"image": {"_type": "Image"}, "label": {"names": CLASSES, "_type": kind}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def arrow(rows: list[tuple[str, bytes, str]]) -> Any:
    pictures = [{"bytes": content, "path": None} for _, content, _ in rows]
    labels = [CLASSES.index(label) for _, _, label in rows]
    schema = pa.schema([("image", HF), ("label", pa.int64())], metadata=metadata())
    return pa.table({"image": pictures, "label": labels}, schema=schema)


def parquets(root: Path) -> Path:
    root.mkdir(exist_ok=True)
    train = images("train")
    for number, some in enumerate((train[:4], train[4:])):
        pq.write_table(arrow(some), root / f"train-{number:05}-of-00002.parquet", row_group_size=3)
    pq.write_table(arrow(images("val")), root / "validation-00000-of-00001.parquet")
    return root


def saved_to_disk(root: Path) -> Path:
    """As `DatasetDict.save_to_disk` of Hugging Face's datasets writes it."""
    root.mkdir(exist_ok=True)
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation"]}))
    for part, name in (("train", "train"), ("val", "validation")):
        (root / name).mkdir()
        found, file = arrow(images(part)), "data-00000-of-00001.arrow"
        with (
            pa.OSFile(str(root / name / file), "wb") as sink,
            pa.ipc.new_stream(sink, found.schema) as out,
        ):
            out.write_table(found, max_chunksize=2)
        (root / name / "state.json").write_text(json.dumps({"_data_files": [{"filename": file}]}))
    return root


def contents(part: Examples) -> list[tuple[bytes, str]]:
    """(bytes of the picture, class) of each example."""
    found = [part.read(i) for i in range(len(part))]
    pictures = [example["image"] for example in found]
    read = [
        picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        for picture in pictures
    ]
    return [
        (content, part.classes[int(example["label"])])
        for content, example in zip(read, found, strict=True)
    ]
