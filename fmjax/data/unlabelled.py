"""Pictures without labels: files, folders, lists of them and web addresses. None is opened before it is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.data import masks
from fmjax.data.example import Example, Examples, Splits
from fmjax.data.folders import Found, LeftOut, few, image_paths
from fmjax.data.images import Broken, Picture, regular_file
from fmjax.data.strings import Growing, Strings
from fmjax.errors import DataError, FmjaxError, UsageError, escaped

STDIN, LIST = (
    "-",
    "@",
)  # in the place of a path: names from standard input, and from the file behind it
WEB = "://"
PICTURE_SIZE = "picture_size"  # the field of a seen picture that has its (width, height), upright
MOST = 1 << 26  # bytes of a picture from the web
LONGEST = 1 << 16  # bytes of a line in a list: a file that is none has no lines


def pictures(places: Sequence[str], *, stdin: Any = None) -> Splits:
    """The pictures at some places as one part, in their order, those of a folder by their paths.

    places: a file, a folder (and those below it), an http or https address, @FILE or - for a list of these but
    folders, one a line, or ended by a zero byte. A place that is not there is refused with a DataError, a line of a
    list is left to be found unreadable.
    """
    growing, left_out = Growing(), []
    for place in places:
        for name in _names(place, stdin, left_out):
            growing.add(name)
    names = growing.done()
    if not len(names):
        raise DataError(f"there are no pictures in {few(places)}; pass a file, a folder or a list")
    return Splits(of_names(names), None, tuple(left_out))


def of_names(names: Strings) -> Examples:
    """Pictures by their paths and addresses, as they are printed and recorded."""
    return Examples(
        fields={"image": Opened(names)},
        labels=np.zeros(len(names), np.int32),
        classes=(),
        names=names.__getitem__,
        labelled=False,
    )


@dataclass(frozen=True)
class Opened:
    """What gives a picture by its place: a path as it is, what is behind an address by its bytes."""

    names: Strings
    # hosts that gave no answer, and why: the next of their pictures is not waited for
    silent: dict[str, str] = field(default_factory=dict)

    def __call__(self, index: int) -> Picture:
        name = self.names[index]
        return self._fetched(name) if WEB in name else name

    def _fetched(self, address: str) -> Picture:
        # by the threads that decode, so that as many are on their way at once
        from fmjax.store import addresses, contents
        from fmjax.store.network import UnreachableError

        host = addresses.host(address)
        if host in self.silent:
            return Broken(self.silent[host])
        try:
            return contents.content(address, most=MOST)
        except UnreachableError as error:
            self.silent[host] = str(error)
            return Broken(str(error))
        except FmjaxError as error:
            return Broken(str(error))


def _names(place: str, stdin: Any, left_out: list[LeftOut]) -> Iterable[str]:
    if place == STDIN:
        return _piped(stdin or sys.stdin.buffer)
    if place.startswith(LIST):
        return _listed(Path(place.removeprefix(LIST)).expanduser())
    return _address(place) if WEB in place else _on_disk(place, left_out)


def _piped(stdin: Any) -> Iterator[str]:
    empty = True
    for line in lines(stdin, "standard input"):
        empty = False
        yield line
    if empty:
        raise DataError("standard input has no paths; pipe some, as in `find photos -type f |`")


def _address(place: str) -> Iterable[str]:
    from fmjax.store import addresses

    addresses.check(place, "the picture's address")
    return [place]


def _on_disk(place: str, left_out: list[LeftOut]) -> Iterable[str]:
    path = os.path.expanduser(place)
    # a link to nothing is there, and its picture is not
    if not os.path.lexists(path):
        raise DataError(f"no file or folder {escaped(place)!r}; check the path")
    if not os.path.isdir(path):
        return [path]
    found = Found(Path(path))
    paths = image_paths(Path(path), found, check=_any_level)
    if not paths:
        left = ", ".join(f"{row.count:,} {row.reason}" for row in found.left_out())
        lying = f", and {left} (as {few(row.example for row in found.left_out())})" if left else ""
        raise DataError(f"{escaped(place)} has no images in it{lying}; pass another folder")
    left_out += found.left_out()
    return paths


def _any_level(folder: Path, inside: Sequence[str]) -> None:
    """Folders in a folder of pictures are more pictures, whatever they are called."""


def _listed(path: Path) -> Sequence[str]:
    where = f"the list {escaped(str(path))}"
    try:
        with regular_file(path) as file:
            found = Strings.of(lines(file, where))
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror}") from error
    if not len(found):
        raise DataError(f"{where} is empty; write a path or address a line")
    return found


def lines(file: Any, where: str) -> Iterator[str]:
    """The lines of a list, names of files as the system has them, empty ones left out. where: as a sentence calls it.

    They end as `find` or `find -print0` end them. Raises DataError for what is no list.
    """
    rest, end, number = b"", b"\n", 0
    while block := file.read(1 << 20):
        # the first block tells: no name of a file has a zero byte in it
        if not number and not rest and b"\0" in block:
            end = b"\0"
        *whole, rest = (rest + block).split(end)
        for line in (*whole, rest):
            if len(line) > LONGEST:
                raise DataError(
                    f"{where} has a line of over {LONGEST:,} bytes, which is no path; pass a list of paths"
                )
        yield from _decoded(whole, end)
        number += len(whole)
    yield from _decoded([rest], end)


def _decoded(raw: Iterable[bytes], end: bytes) -> Iterator[str]:
    # a name need not be text: what is no UTF-8 comes back as it was when the file is opened
    for line in raw:
        name = os.fsdecode(line.rstrip(b"\r") if end == b"\n" else line)
        if name.strip():
            yield name


@dataclass(frozen=True)
class Unlabelled:
    """A task's view of a picture alone: blank values stand where its examples have the truth, which nobody knows here.

    view: the task's own. needs: its fields. classes: how many there are.
    """

    view: Callable[[Example, Any], Example]
    needs: tuple[str, ...]
    classes: int

    def __call__(self, example: Example, rng: Any = None) -> Example:
        width, height = example["image"].size
        blank = {name: self._blank(name, width, height) for name in self.needs if name != "image"}
        seen = self.view({**example, **blank}, None)
        return {**seen, PICTURE_SIZE: np.asarray((width, height), np.int32)}

    def _blank(self, name: str, width: int, height: int) -> Any:
        if name == "mask":
            return np.full((height, width), masks.IGNORED, masks.VALUE)
        return {"label": np.int32(0), "labels": np.zeros(self.classes, np.float32)}[name]


BLANK = ("image", "label", "labels", "mask")  # fields that a picture alone has, or can do without


def check_needs(needs: Sequence[str], task: str) -> None:
    """Raises UsageError for a task whose examples have more than a picture and its truth."""
    more = [name for name in needs if name not in BLANK]
    if more:
        raise UsageError(
            f"{task} needs the {few(more)} of each example, and a picture alone has none; score it with `fmjax eval`"
        )
