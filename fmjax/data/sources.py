"""Where labelled images come from: random access, nothing decoded before it is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.config import ImagesConfig
from fmjax.errors import DataError
from fmjax.preprocessing import Picture

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
IGNORED = frozenset({"__MACOSX"})


@dataclass(frozen=True)
class Source:
    """Labelled pictures. `read(i)` returns a path, file contents or an array; `labels[i]` indexes `classes`."""

    read: Callable[[int], Picture]
    labels: np.ndarray  # int32 [N]
    classes: tuple[str, ...]
    names: Callable[[int], str]
    files: Sequence[Path] = ()  # of each picture, where they are files

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> dict[str, Any]:
        return {"index": int(index), "label": self.labels[index]}

    def subset(self, indices: np.ndarray) -> Source:
        """The same pictures, fewer of them."""
        return Source(
            lambda i: self.read(int(indices[i])),
            self.labels[indices],
            self.classes,
            lambda i: self.names(int(indices[i])),
            [self.files[i] for i in indices] if self.files else (),
        )


@dataclass(frozen=True)
class Splits:
    """train and val share their classes; val is None where the source has no split of its own."""

    train: Source
    val: Source | None

    def both(self, fraction: float, seed: int) -> tuple[Source, Source]:
        """(train, val), val taken from train, the same part of every class, where there is none."""
        return (self.train, self.val) if self.val is not None else stratified(self.train, fraction, seed)


def open_source(config: ImagesConfig) -> Splits:
    """The images behind `--data.source`. Raises DataError, with the fix, for what cannot be trained on."""
    kind, _, rest = config.source.partition(":")
    if kind == "digits":
        return Splits(digits(), None)
    return image_folder(Path(rest).expanduser()) if kind == "folder" else tensorflow_dataset(rest, config.data_dir)


def stratified(source: Source, fraction: float, seed: int) -> tuple[Source, Source]:
    """Two disjoint parts with the same share of every class; the second has `fraction` of the images."""
    from sklearn.model_selection import train_test_split

    few = [name for label, name in enumerate(source.classes) if (source.labels == label).sum() < 2]
    if few:
        raise DataError(
            f"a split needs two images of every class; {', '.join(few)} has fewer; add some, or make a val/ folder"
        )
    count = max(round(len(source) * fraction), len(source.classes))
    train, val = train_test_split(np.arange(len(source)), test_size=count, stratify=source.labels, random_state=seed)
    return source.subset(np.sort(train)), source.subset(np.sort(val))


def digits() -> Source:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 (UCI ML repository, CC BY 4.0), as RGB."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    grey = np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    pictures = np.repeat(grey[..., None], 3, -1)
    return Source(
        lambda i: pictures[i], labels.astype(np.int32), tuple(str(n) for n in range(10)), lambda i: f"digit {i}"
    )


def image_folder(root: Path) -> Splits:
    """DIR/<class>/<image>, or DIR/train/<class>/<image> and DIR/val/<class>/<image>."""
    if not root.is_dir():
        raise DataError(
            f"no folder {root}; pass folder:DIR with a folder for each class in DIR, or in DIR/train and DIR/val"
        )
    train, val = root / "train", root / "val"
    if not train.is_dir():
        return Splits(_class_folders(root), None)
    source = _class_folders(train)
    if not val.is_dir():
        return Splits(source, None)
    unknown = sorted({folder.name for folder in _folders(val)} - set(source.classes))
    if unknown:
        raise DataError(
            f"{val} has classes that {train} has not: {', '.join(unknown)}; rename or remove them, or add "
            f"training images"
        )
    return Splits(source, _class_folders(val, source.classes))


def _folders(root: Path) -> list[Path]:
    return sorted(f for f in root.iterdir() if f.is_dir() and f.name not in IGNORED and not f.name.startswith("."))


def _class_folders(root: Path, classes: Sequence[str] | None = None) -> Source:
    folders = _folders(root)
    if not folders:
        raise DataError(f"{root} has no class folders; put the images of each class into a folder of its own")
    names = tuple(classes) if classes else tuple(folder.name for folder in folders)
    found = [(path, names.index(folder.name)) for folder in folders for path in _images(folder)]
    counts = Counter(label for _, label in found)
    empty = [folder.name for folder in folders if not counts[names.index(folder.name)]]
    if empty:
        raise DataError(f"{root} has classes without images: {', '.join(empty)}; add images or remove the folders")
    if len(names) < 2:
        raise DataError(f"{root} has one class, {', '.join(names)}; classification needs two or more")
    paths = [path for path, _ in found]
    labels = np.asarray([label for _, label in found], np.int32)
    return Source(lambda i: paths[i], labels, names, lambda i: str(paths[i]), paths)


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def tensorflow_dataset(name: str, data_dir: str = "") -> Splits:
    """A TFDS classification set, read from its ArrayRecord files without TensorFlow; it is prepared first if need
    be."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir or None, file_format="array_record")
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # tfds raises whatever its builders raise
        raise DataError(
            f"tfds:{name} cannot be prepared: {error}; prepare it elsewhere and pass --data.data-dir"
        ) from error
    features: Any = builder.info.features or {}
    missing = {"image", "label"} - set(features)
    if missing:
        raise DataError(
            f"tfds:{name} has no {' and no '.join(sorted(missing))} feature; only image classification sets fit"
        )
    classes = tuple(features["label"].names)
    splits = builder.info.splits
    held_out = next((split for split in ("validation", "test") if split in splits), None)
    train = _tfds_split(builder, "train", classes)
    return Splits(train, _tfds_split(builder, held_out, classes) if held_out else None)


def _tfds_split(builder: Any, split: str, classes: tuple[str, ...]) -> Source:
    import tensorflow_datasets as tfds

    rows = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    labels = np.asarray([row["label"] for row in rows], np.int32)
    return Source(lambda i: rows[i]["image"], labels, classes, lambda i: f"{builder.name} {split} {i}")
