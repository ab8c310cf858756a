"""`folder:DIR`: a folder of images for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fmjax.config.data import ImagesConfig
from fmjax.data.example import Examples, Splits
from fmjax.data.folders import (
    Found,
    check_apart,
    class_folders,
    few,
    folded,
    images,
    parts,
    test_note,
)
from fmjax.errors import DataError, escaped


def open_examples(
    place: str,
    config: ImagesConfig,
    *,
    classes: Sequence[str] | None = None,
) -> Splits:
    """The image folder at a path. classes: those that there may be, in their order."""
    return image_folder(Path(place).expanduser(), classes)


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
        check_apart(folders["train"], folders["val"])
        # numbered as in train, whatever val alone would give: a label means one class
        val = _classes(folders["val"], found, train.classes)
    return Splits(train, val, found.left_out(), _notes(found, folders.get("test")))


def _notes(found: Found, test: Path | None) -> tuple[str, ...]:
    notes = []
    if test is not None:
        notes.append(test_note(test, scheme="folder"))
    if found.nested:
        example = escaped(str(Path(found.nested[0]).relative_to(found.root)))
        notes.append(
            f"{len(found.nested):,} images in folders below a class folder count for the class ({example})"
        )
    return tuple(notes)


def _classes(root: Path, found: Found, known: Sequence[str] | None) -> Examples:
    """The images of a folder's class folders; known: the classes that there may be, of a model or of train/."""
    # the classes that there may be number the labels; without any, the folders do, in the order of their names
    folders = class_folders(root, found)
    names = tuple(known or (folder.name for folder in folders))
    _check_known(root, [folder.name for folder in folders], names)
    by_class = {folder.name: images(folder, found) for folder in folders}
    # a class without images would be an output of the network that nothing ever asks for
    empty = [name for name, paths in by_class.items() if not paths]
    if empty:
        raise DataError(
            f"{escaped(str(root))} has classes without images: {few(empty)}; add images or remove the folders"
        )
    if len(names) < 2:
        raise DataError(
            f"{escaped(str(root))} has one class, {few(names)}; classification needs two or more"
        )
    paths = [path for row in by_class.values() for path in row]
    label = {name: number for number, name in enumerate(names)}
    counts = [len(row) for row in by_class.values()]
    labels = np.repeat([label[name] for name in by_class], counts).astype(np.int32)
    return Examples(
        fields={"image": lambda i: paths[i]},
        labels=labels,
        classes=names,
        names=lambda i: str(paths[i]),
        files=paths,
    )


def _check_known(root: Path, names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if name not in known]
    if not unknown:
        return
    # Cat for cat: what a copy to another file system does to a name
    near = {folded(name): name for name in known}
    meant = [
        f"{escaped(name)} for {escaped(near[folded(name)])}"
        for name in unknown
        if folded(name) in near
    ]
    hint = f" ({', '.join(meant[:3])}?)" if meant else ""
    raise DataError(
        f"{escaped(str(root))} has classes that the training set has not: {few(unknown)}{hint}; rename or remove them"
    )
