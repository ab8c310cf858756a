"""Embeddings on disk: the parts of a command that may be stopped, and the file that they become.

No more than a part is in memory, whatever the file: a .npz has features [N E], names, split, and labels and classes
where there are any; a .parquet a row an image; a .safetensors has names as the bytes of all, and where each ends.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.config.model import ModelConfig
from fmjax.data.example import Examples
from fmjax.data.split import part_of
from fmjax.engine.reruns import differences
from fmjax.errors import FilesError, UsageError, amount, escaped
from fmjax.models.vit import ViT
from fmjax.programs.answers import text_of
from fmjax.programs.embedded import KEY, Record
from fmjax.serial import write_atomically
from weights_conversion.writer import NAMES, whole

ENDINGS = (".npz", ".parquet", ".safetensors")
MANIFEST = "manifest.json"
FORMAT = 1
Column = tuple[
    np.dtype, tuple[int, ...], Iterable[Any]
]  # of a file: type, shape, and its rows in chunks


def model_record(config: ModelConfig, model: ViT) -> Record:
    """What tells a network from others: its name, its graph, its dtype and the file that it was read from."""
    known = {"name": config.name, "init": config.init, "dialect": config.dialect}
    file = _stamp(config.checkpoint) if config.checkpoint else ""
    spec = json.loads(json.dumps(asdict(model.spec)))
    return {**known, "checkpoint": file, "dtype": str(model.dtype), "spec": spec}


def _stamp(path: str) -> str:
    """A file by its place, size and time: another one under the same name is other weights."""
    status = os.stat(Path(path).expanduser())
    return f"{Path(path).expanduser().resolve()} {status.st_size} {status.st_mtime_ns}"


def images_record(examples: Examples, source: str) -> Record:
    """A set by the names, sizes and labels of its images, in their order."""
    # each name with its length before it, so that no two lists run together to the same bytes
    part, digest = part_of(examples, source), hashlib.sha256()
    for name in part.names:
        content = name.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little") + content)
    for array in (part.sizes, part.labels):
        digest.update(np.ascontiguousarray(array).tobytes())
    return {"count": len(part), "digest": digest.hexdigest()}


@dataclass(frozen=True)
class Parts:
    """The folder of what a command has computed so far: a manifest of what it is of, and files ROLE-START-STOP.npz,
    each of which is there whole or not at all."""

    folder: Path

    def begin(self, record: Record, *, force: bool) -> list[str]:
        """Makes the folder, or goes on with it, and returns what is to be said of that.

        Raises UsageError, with what differs, where it holds the parts of something else.
        """
        # as JSON has it, in which tuples are lists: what is compared is what was written
        wanted = json.loads(json.dumps({"format": FORMAT, **record}))
        # a folder without a manifest is of nobody, and is made anew
        there = self._manifest()
        changed = [] if there is None else differences(there, wanted)
        if changed and not force:
            raise UsageError(
                f"{self.folder} holds the parts of a stopped `fmjax embed` with other settings or images "
                f"({escaped('; '.join(changed[:3]), 300)}); run that command to its end, name another --out, or pass "
                f"--force to start over"
            )
        if changed or there is None:
            self.remove()
        if there is not None and not changed:
            count = len(list(self.folder.glob("*.npz")))
            return [
                f"note    going on with {amount(count, 'part')} of a stopped command in {self.folder}"
            ]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / MANIFEST, json.dumps(wanted, indent=2) + "\n")
        return []

    def _manifest(self) -> Record | None:
        """None where there is none, or a damaged one: then nobody knows what the parts are of."""
        try:
            found = json.loads((self.folder / MANIFEST).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def add(self, role: str, start: int, stop: int, rows: Mapping[str, np.ndarray]) -> None:
        with whole(self.folder / f"{role}-{start:012}-{stop:012}.npz") as file:
            columns: dict[str, Any] = dict(rows)
            np.savez(file, **columns)

    def done(self, role: str) -> tuple[int, list[int]]:
        """(how many images of a set the parts are of, which of them could not be read)."""
        at, bad = 0, []
        for path, start, stop in self._files(role):
            # a part that somebody has taken away is computed again, and all behind it
            if start != at:
                path.unlink()
                continue
            there = self.read(path, "index")
            bad += np.setdiff1d(np.arange(start, stop), there).tolist()
            at = stop
        return at, bad

    def _files(self, role: str) -> list[tuple[Path, int, int]]:
        paths = sorted(self.folder.glob(f"{role}-*-*.npz"))
        places = [path.stem.split("-")[1:] for path in paths]
        return [(path, int(a), int(b)) for path, (a, b) in zip(paths, places, strict=True)]

    def read(self, path: Path, name: str) -> np.ndarray:
        try:
            # numpy leaves a file open that is none of its own
            with path.open("rb") as file, np.load(file) as found:
                return found[name]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise FilesError(f"{path} is damaged; delete it, and run the same command") from error

    def paths(self, role: str) -> list[Path]:
        return [path for path, _, _ in self._files(role)]

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Table:
    """All that the file will have, a part at a time: count, width, and whether the images have labels."""

    parts: Parts
    sets: Mapping[str, Examples]
    count: int
    width: int

    @classmethod
    def of(cls, parts: Parts, sets: Mapping[str, Examples]) -> Table:
        # places and widths alone: the numbers stay on disk until they are written
        counts = [len(parts.read(path, "index")) for role in sets for path in parts.paths(role)]
        first = next(path for role in sets for path in parts.paths(role))
        return cls(parts, sets, sum(counts), parts.read(first, "features").shape[1])

    @property
    def labelled(self) -> bool:
        return next(iter(self.sets.values())).labelled

    @property
    def classes(self) -> tuple[str, ...]:
        return next(iter(self.sets.values())).classes

    def features(self) -> Iterator[np.ndarray]:
        return self._column("features")

    def labels(self) -> Iterator[np.ndarray]:
        return self._column("label")

    def splits(self) -> Iterator[tuple[str, int]]:
        """(part of the set, how many rows of it follow)."""
        for role, path in self._paths():
            yield role, len(self.parts.read(path, "index"))

    def names(self) -> Iterator[list[str]]:
        for role, path in self._paths():
            examples = self.sets[role]
            yield [examples.names(int(i)) for i in self.parts.read(path, "index")]

    def _column(self, name: str) -> Iterator[np.ndarray]:
        for _, path in self._paths():
            yield self.parts.read(path, name)

    def _paths(self) -> Iterator[tuple[str, Path]]:
        for role in self.sets:
            for path in self.parts.paths(role):
                yield role, path


def write(
    path: Path, parts: Parts, sets: Mapping[str, Examples], record: Record
) -> tuple[int, int]:
    """Writes the file of the parts, and returns how many embeddings it has and how wide they are; none is written
    where there are none."""
    table = Table.of(parts, sets)
    if table.count:
        WRITERS[path.suffix](path, table, record)
    return table.count, table.width


def _npz(path: Path, table: Table, record: Record) -> None:
    # what numpy.savez writes, but for the arrays being in memory
    longest = max(len(name) for names in table.names() for name in names)
    roles = max(map(len, table.sets))
    with whole(path) as file, zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        # the place for what the file is of: a member would be an array among the others
        archive.comment = json.dumps(record).encode()
        shape = (table.count, table.width)
        _array(archive, "features", np.dtype(np.float32), shape, table.features())
        if table.labelled:
            _array(archive, "labels", np.dtype(np.int32), shape[:1], table.labels())
            classes = np.asarray(table.classes)
            _array(archive, "classes", classes.dtype, classes.shape, [classes])
        _array(archive, "names", np.dtype(f"<U{longest}"), shape[:1], table.names())
        splits = ([role] * count for role, count in table.splits())
        _array(archive, "split", np.dtype(f"<U{roles}"), shape[:1], splits)


def _array(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype,
    shape: tuple[int, ...],
    chunks: Iterable[Any],
) -> None:
    # a member of unknown length, of which numpy's header says what it will be
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chunks:
            file.write(np.asarray(chunk, dtype).tobytes())


def _parquet(path: Path, table: Table, record: Record) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # a row group a part: a reader of a million rows reads what it needs
    label = [("label", pa.string())] if table.labelled else []
    kind = pa.list_(pa.float32(), table.width)
    schema = pa.schema(
        [("file", pa.string()), ("split", pa.string()), *label, ("embedding", kind)],
        metadata={KEY: json.dumps(record), "classes": json.dumps(table.classes)},
    )
    labels = table.labels() if table.labelled else iter(())
    with whole(path) as file, pq.ParquetWriter(file, schema) as writer:
        rows = zip(table.names(), table.splits(), table.features(), strict=True)
        for names, (role, count), features in rows:
            columns = {
                "file": [text_of(name) for name in names],
                "split": [role] * count,
                "embedding": pa.FixedSizeListArray.from_arrays(features.ravel(), table.width),
            }
            if table.labelled:
                columns["label"] = [text_of(table.classes[i]) for i in next(labels)]
            writer.write_table(pa.table(columns, schema=schema))


def _safetensors(path: Path, table: Table, record: Record) -> None:
    # texts have no type there: their bytes in one piece, and where each ends
    ends = np.cumsum([len(_octets(name)) for names in table.names() for name in names])
    roles = list(table.sets)
    numbers = ([roles.index(role)] * count for role, count in table.splits())
    # wide numbers first, so that each tensor starts on a multiple of its own width
    columns: dict[str, Column] = {
        "name_ends": (np.dtype(np.int64), (table.count,), [ends]),
        "features": (np.dtype(np.float32), (table.count, table.width), table.features()),
    }
    if table.labelled:
        columns["labels"] = (np.dtype(np.int32), (table.count,), table.labels())
    columns |= {
        "split": (np.dtype(np.uint8), (table.count,), numbers),
        "names": (np.dtype(np.uint8), (int(ends[-1]),), map(_blob, table.names())),
    }
    facts = {"splits": roles, "classes": table.classes, **record}
    with whole(path) as file:
        file.write(_header(columns, {name: json.dumps(value) for name, value in facts.items()}))
        for dtype, _, chunks in columns.values():
            for chunk in chunks:
                file.write(np.asarray(chunk, dtype).tobytes())


def _header(columns: Mapping[str, Column], metadata: Mapping[str, str]) -> bytes:
    """That of a safetensors file: its length, then JSON with the type, shape and place of each tensor."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    # one tensor behind the other, without a gap
    start = 0
    for name, (dtype, shape, _) in columns.items():
        stop = start + math.prod(shape) * dtype.itemsize
        entries[name] = {
            "dtype": NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # data starts on a multiple of 8
    return struct.pack("<Q", len(text)) + text


def _octets(name: str) -> bytes:
    """The bytes of a name as the system has them; of what no system has, as a record's text may, a mark."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogatepass")


def _blob(names: list[str]) -> np.ndarray:
    return np.frombuffer(b"".join(map(_octets, names)), np.uint8)


WRITERS = {".npz": _npz, ".parquet": _parquet, ".safetensors": _safetensors}
