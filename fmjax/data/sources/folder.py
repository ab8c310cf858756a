"""`folder:DIR`: a folder of images for each class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fmjax.config.data import ImagesConfig
from fmjax.data.example import Examples, Splits
from fmjax.data.folders import (
    Found,
    check_apart,
    class_folders,
    few,
    image_paths,
    parts,
    test_note,
)
from fmjax.data.labels import check_known
from fmjax.data.strings import Paths, Strings
from fmjax.errors import DataError, amount, escaped


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
            f"{amount(len(found.nested), 'image')} in folders below a class folder, counted for the class ({example})"
        )
    return tuple(notes)


def _classes(root: Path, found: Found, known: Sequence[str] | None) -> Examples:
    """The images of a folder's class folders; known: the classes that there may be, of a model or of train/."""
    # the classes that there may be number the labels; without any, the folders do, in the order of their names
    folders = class_folders(root, found)
    names = tuple(known or (folder.name for folder in folders))
    check_known(escaped(str(root)), [folder.name for folder in folders], names)
    by_class = {folder.name: image_paths(folder, found) for folder in folders}
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
    counts = {name: len(row) for name, row in by_class.items()}
    # below the set's folder, which all of them lie in
    above = os.path.join(found.root, "")
    paths = (path.removeprefix(above) for row in by_class.values() for path in row)
    files = Paths(found.root, Strings.of(paths))
    return Examples.of_files(files, counts, names)
