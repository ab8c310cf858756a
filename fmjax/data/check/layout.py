"""A folder with classes, read in spite of what a run would refuse in it: one look names all of its faults."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fmjax.data.check.kinds import LEFT_OUT, Finding, listed
from fmjax.data.example import Examples
from fmjax.data.folders import CLOSED, ROLES, Found, folded, images, parts, subfolders
from fmjax.errors import DataError, escaped

Rows = dict[str, list[str]]  # kind -> its rows
ORDER = ("train", "val", "test")


@dataclass
class Everything(Found):
    """As Found, and all of what is left out by its name."""

    names: Rows = field(default_factory=dict)

    def skip(self, reason: str, path: str | Path) -> None:
        super().skip(reason, path)
        name = escaped(os.path.relpath(path, self.root))
        self.names.setdefault(LEFT_OUT.get(reason, "left-out"), []).append(name)


@dataclass(frozen=True)
class Layout:
    """The examples of each part, test among them, and what is wrong with where they lie."""

    parts: dict[str, Examples]
    findings: list[Finding]


def read_layout(root: Path) -> Layout:
    """All images of a folder by part and class. Raises DataError for a folder that cannot be opened."""
    found, rows = Everything(root), Rows()
    folders = _parts(root, found, rows)
    # no run opens a test part that it is not given, so that nothing in it stops one
    told = {"test": Rows()}
    # class -> its images, in each part; a class is one by its name, whatever a run would say of its folder
    classes = {
        role: _classes(places, found, told.get(role, rows)) for role, places in folders.items()
    }
    names = tuple(dict.fromkeys(name for role in classes for name in sorted(classes[role])))
    _compare(classes, rows)
    rows["nested"] = [escaped(os.path.relpath(path, root)) for path in found.nested]
    parts = {role: _examples(by_class, names) for role, by_class in classes.items()}
    every = {**rows, **found.names}
    findings = [finding for kind, some in every.items() for finding in listed(kind, some)]
    return Layout(parts, findings)


def _parts(root: Path, found: Found, rows: Rows) -> dict[str, list[Path]]:
    """The folders of each part, in the order of training; the root itself where it is not split."""
    try:
        taken = {role or "train": [folder] for role, folder in parts(root, found).items()}
    except DataError:
        # two folders for a part, or none to train on: what there is, as it is named
        taken = _by_name(root, rows)
    return {role: taken[role] for role in ORDER if role in taken}


def _by_name(root: Path, rows: Rows) -> dict[str, list[Path]]:
    taken: dict[str, list[Path]] = {}
    for folder in subfolders(root, Found(root)):
        role = ROLES.get(folder.name.lower(), "")
        if role in taken:
            told = f"{escaped(folder.name)}/ is {role}, as is {escaped(taken[role][0].name)}/"
            rows.setdefault("two-folders-for-a-part", []).append(told)
        if role:
            taken.setdefault(role, []).append(folder)
    return taken


def _place(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _classes(places: Sequence[Path], found: Found, rows: Rows) -> dict[str, list[Path]]:
    """Class -> its images, in a part that may lie in several folders."""
    out: dict[str, list[Path]] = {}
    for root in places:
        # those above too: a link back to one of them would take in every other class
        seen = {_place(folder): folder.name for folder in (root, *root.absolute().parents)}
        for folder in subfolders(root, found):
            twin = seen.setdefault(_place(folder), folder.name)
            name = os.path.relpath(folder, found.root)
            if twin != folder.name:
                told = f"{escaped(name)} is {escaped(twin) or '/'}"
                rows.setdefault("class-by-link", []).append(told)
                continue
            out.setdefault(folder.name, []).extend(_images(folder, found))
            if not out[folder.name]:
                rows.setdefault("class-without-images", []).append(escaped(name))
    return out


def _images(folder: Path, found: Found) -> list[Path]:
    try:
        return images(folder, found, check=lambda folder, inside: None)
    except DataError:
        # one that cannot be opened is named like one that lies deeper
        found.skip(CLOSED, folder)
        return []


def _compare(classes: dict[str, dict[str, list[Path]]], rows: Rows) -> None:
    """What classes are to each other, within a part and between parts."""
    train = classes.get("train", {})
    # what a run opens
    for role in ("train", "val"):
        by_class = classes.get(role, {})
        seen: dict[str, str] = {}
        for name in sorted(by_class):
            twin = seen.setdefault(folded(name), name)
            if twin != name:
                told = f"{role}: {escaped(name)!r} and {escaped(twin)!r}"
                rows.setdefault("class-twins", []).append(told)
    unknown = [name for name in sorted(classes.get("val", {})) if name not in train]
    rows["class-not-in-train"] = [escaped(f"val/{name}") for name in unknown]
    if len(train) == 1:
        rows["one-class"] = [escaped(name) for name in train]


def _examples(by_class: dict[str, list[Path]], names: tuple[str, ...]) -> Examples:
    paths = [path for some in by_class.values() for path in some]
    counts = {name: len(some) for name, some in by_class.items()}
    return Examples.of_files(paths, counts, names)
