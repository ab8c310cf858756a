"""Where labelled images come from: random access, nothing decoded before it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.config.data import ImagesConfig
from fmjax.data.folders import Found, LeftOut, class_folders, few, folded, images, parts, same_folder
from fmjax.data.images import Picture
from fmjax.errors import DataError, escaped


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
    left_out: tuple[LeftOut, ...] = ()  # what of the source is not used, and why
    notes: tuple[str, ...] = ()  # what a person should know of how it was read

    def both(self, fraction: float, seed: int) -> tuple[Source, Source]:
        """(train, val), val taken from train, the same part of every class, where there is none."""
        return (self.train, self.val) if self.val is not None else stratified(self.train, fraction, seed)


def open_source(config: ImagesConfig, classes: Sequence[str] | None = None) -> Splits:
    """The images behind `--data.source`. Raises DataError, with the fix, for what cannot be trained on.

    classes: those that a model tells apart, in its order; a folder may then hold fewer of them, but no others.
    """
    kind, _, rest = config.source.partition(":")
    if kind == "digits":
        return Splits(digits(), None)
    if kind == "folder":
        return image_folder(Path(rest).expanduser(), classes)
    return tensorflow_dataset(rest, config.data_dir)


def stratified(source: Source, fraction: float, seed: int) -> tuple[Source, Source]:
    """Two disjoint parts with the same share of every class; the second has `fraction` of the images."""
    from sklearn.model_selection import train_test_split

    counts = np.bincount(source.labels, minlength=len(source.classes))
    rare = [name for name, count in zip(source.classes, counts, strict=True) if count < 2]
    if rare:
        raise DataError(
            f"a split needs two images of every class; {few(rare)} has fewer; add some, or make a val/ folder"
        )
    # each part needs an image of every class at least
    most = len(source) - len(source.classes)
    count = min(max(round(len(source) * fraction), len(source.classes)), most)
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


def image_folder(root: Path, classes: Sequence[str] | None = None) -> Splits:
    """DIR/<class>/<image>, or DIR/train/<class>/<image> and DIR/val/<class>/<image>.

    `valid` and `validation` are val, in any letter case. A test part is left out: no run may look at it by accident.
    """
    found = Found(root)
    folders = parts(root, found)
    if set(folders) == {""}:
        train = _classes(root, found, classes)
        return Splits(train, None, found.left_out(), _notes(found, None))
    train, val = _classes(folders["train"], found, classes), None
    if "val" in folders:
        if same_folder(folders["train"], folders["val"]):
            raise DataError(f"{escaped(str(folders['val']))} is {folders['train'].name}/ itself, by a link; remove it")
        val = _classes(folders["val"], found, train.classes)
    return Splits(train, val, found.left_out(), _notes(found, folders.get("test")))


def _notes(found: Found, test: Path | None) -> tuple[str, ...]:
    notes = []
    if test is not None:
        notes.append(f"{escaped(test.name)}/ is left out; to score a run on it, name it: folder:{escaped(str(test))}")
    if found.nested:
        example = escaped(str(Path(found.nested[0]).relative_to(found.root)))
        notes.append(f"{len(found.nested):,} images in folders below a class folder count for the class ({example})")
    return tuple(notes)


def _classes(root: Path, found: Found, known: Sequence[str] | None) -> Source:
    """The images of a folder's class folders; known: the classes that there may be, of a model or of train/."""
    folders = class_folders(root, found)
    names = tuple(known or (folder.name for folder in folders))
    _check_known(root, [folder.name for folder in folders], names)
    by_class = {folder.name: images(folder, found) for folder in folders}
    empty = [name for name, paths in by_class.items() if not paths]
    if empty:
        raise DataError(
            f"{escaped(str(root))} has classes without images: {few(empty)}; add images or remove the folders"
        )
    if len(names) < 2:
        raise DataError(f"{escaped(str(root))} has one class, {few(names)}; classification needs two or more")
    paths = [path for row in by_class.values() for path in row]
    label = {name: number for number, name in enumerate(names)}
    labels = np.repeat([label[name] for name in by_class], [len(row) for row in by_class.values()]).astype(np.int32)
    return Source(lambda i: paths[i], labels, names, lambda i: str(paths[i]), paths)


def _check_known(root: Path, names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if name not in known]
    if not unknown:
        return
    near = {folded(name): name for name in known}
    meant = [f"{escaped(name)} for {escaped(near[folded(name)])}" for name in unknown if folded(name) in near]
    hint = f" ({', '.join(meant[:3])}?)" if meant else ""
    raise DataError(
        f"{escaped(str(root))} has classes that the training set has not: {few(unknown)}{hint}; rename or remove them"
    )


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
    if held_out is None:
        return Splits(train, None)
    notes = (f"tfds:{name} has no validation split; val is its {held_out} split",) if held_out == "test" else ()
    return Splits(train, _tfds_split(builder, held_out, classes), notes=notes)


def _tfds_split(builder: Any, split: str, classes: tuple[str, ...]) -> Source:
    import tensorflow_datasets as tfds

    rows = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    labels = np.asarray([row["label"] for row in rows], np.int32)
    return Source(lambda i: rows[i]["image"], labels, classes, lambda i: f"{builder.name} {split} {i}")
