"""A set in several files of one kind: which file is of which part."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TypeVar

from fmjax.data.folders import HIDDEN, ROLES, SUFFIX, Found, entries, few, left_out
from fmjax.errors import DataError, escaped

# train-00000-of-00002.parquet, imagenet-val-000.tar, validation.tar: a word of the name
WORD = re.compile(r"[a-z]+")
AnyPath = TypeVar("AnyPath", bound=PurePath)  # on this machine, or in a repository


def files_by_part(
    path: Path, suffixes: Sequence[str], *, scheme: str
) -> tuple[dict[str, list[Path]], Found]:
    """(the files of each part by name, or those of "" where no name tells a part; what is left out).

    path: one file, or a folder with files in it or in folders of their part. Raises DataError where there is none, or
    where only some tell their part.
    """
    found = Found(path if path.is_dir() else path.parent)
    if not path.is_dir():
        if not path.exists():
            raise DataError(
                f"no file or folder {escaped(str(path))}; pass {scheme}:PATH with *{suffixes[0]} files"
            )
        return {"": [path]}, found
    # a name that tells no part beside one that does would be an image in no part, or in the wrong one
    files = _listed(path, suffixes, found)
    if not files:
        raise DataError(
            f"{escaped(str(path))} has no *{suffixes[0]} files; pass {scheme}:PATH with some"
        )
    return by_part(path, files), found


def by_part(root: AnyPath, files: Sequence[AnyPath]) -> dict[str, list[AnyPath]]:
    """The files of each part by name, those of "" where no name tells a part. Raises DataError where some do not."""
    parts: dict[str, list[AnyPath]] = {}
    for file in files:
        parts.setdefault(_role(file, root), []).append(file)
    if "" in parts and len(parts) > 1:
        raise DataError(
            f"{escaped(str(root))} has files whose name tells their part and {few(file.name for file in parts[''])}; "
            f"put train, val or test into the name of each, or into that of none"
        )
    return parts


def _listed(path: Path, suffixes: Sequence[str], found: Found) -> list[Path]:
    """The files of the kind in a folder and in the folders right in it."""
    out, waiting = [], [path]
    while waiting:
        here = waiting.pop(0)
        for entry in entries(here):
            reason = left_out(entry)
            if entry.name.endswith(tuple(suffixes)) and reason != HIDDEN:
                out.append(here / entry.name)
            elif reason == "folder" and here == path:
                waiting.append(here / entry.name)
            else:
                found.skip(reason or SUFFIX, entry.path)
    return out


def _role(file: PurePath, root: PurePath) -> str:
    """The part that a file is of, by its name or by that of its folder; "" for none."""
    names = [file.name, file.parent.name] if file.parent != root else [file.name]
    words = [word for name in names for word in WORD.findall(name.lower())]
    return next((ROLES[word] for word in words if word in ROLES), "")


def below(root: Path, file: Path) -> str:
    """A file's name below the set's path, as examples are named by it."""
    top = root if root.is_dir() else root.parent
    return file.relative_to(top).as_posix()
