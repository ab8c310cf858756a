"""Millions of names in little memory: their bytes in one piece, and where each ends."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# names of files need not be text: what is no UTF-8 comes back as it was, and so do a JSON text's lone surrogates
CODING = ("utf-8", "surrogatepass")
PIECE = 1 << 12  # names that are looked at together


class Strings(Sequence[str]):
    """An immutable sequence of strings: a name of 40 letters takes 48 bytes instead of about 100.

    blob: uint8, all of them one behind the other; ends: int64 [N], where each ends.
    """

    def __init__(self, blob: np.ndarray, ends: np.ndarray) -> None:
        self.blob, self.ends = blob, ends

    @classmethod
    def of(cls, strings: Iterable[str]) -> Strings:
        """The strings, which may come one by one and are not gathered."""
        growing = Growing()
        for string in strings:
            growing.add(string)
        return growing.done()

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: Any) -> Any:
        """One string; of a slice or an array of indices, a sequence of them."""
        if isinstance(index, slice | np.ndarray):
            return self.take(np.arange(len(self))[index])
        place = range(len(self))[index]
        start = int(self.ends[place - 1]) if place else 0
        return self.blob[start : int(self.ends[place])].tobytes().decode(*CODING)

    def __iter__(self) -> Iterator[str]:
        # a piece at a time: indexing an array costs more than slicing bytes
        for first in range(0, len(self), PIECE):
            start = int(self.ends[first - 1]) if first else 0
            ends = (self.ends[first : first + PIECE] - start).tolist()
            piece = self.blob[start : start + ends[-1]].tobytes()
            for begin, end in zip([0, *ends], ends, strict=False):
                yield piece[begin:end].decode(*CODING)

    def __add__(self, other: Strings) -> Strings:
        """Those of both, one behind the other."""
        ends = np.concatenate([self.ends, other.ends + len(self.blob)])
        return Strings(np.concatenate([self.blob, other.blob]), ends)

    def take(self, indices: np.ndarray) -> Strings:
        """Those of some indices, in their order."""
        starts = np.concatenate([np.zeros(1, np.int64), self.ends])[indices]
        lengths = self.ends[indices] - starts
        ends = np.cumsum(lengths, dtype=np.int64)
        # the place of each byte in the old blob: its own, moved by as much as its string was
        moved = np.repeat(starts - (ends - lengths), lengths)
        return Strings(self.blob[moved + np.arange(len(moved))], ends)


def repeated(names: Strings) -> list[tuple[int, int]]:
    """(place of the first, place of a later one) of names that are there more than once, by the later one."""
    # equal names have equal hashes: only those are compared, without a table of all names
    hashes = np.fromiter(map(hash, names), np.int64, len(names))
    order = np.argsort(hashes, kind="stable")
    alike = np.flatnonzero(np.diff(hashes[order]) == 0)
    first: dict[str, int] = {}
    found = []
    for place in alike:
        earlier, later = (int(one) for one in order[place : place + 2])
        first.setdefault(names[earlier], earlier)
        # where the names differ all the same, the later one may be another's first
        one = first.setdefault(names[later], later)
        if one != later:
            found.append((one, later))
    return sorted(found, key=lambda pair: pair[1])


class Growing:
    """Strings that come one by one, beside other things."""

    def __init__(self) -> None:
        self.blob, self.ends = bytearray(), array("q")

    def add(self, string: str) -> None:
        self.blob += string.encode(*CODING)
        self.ends.append(len(self.blob))

    def done(self) -> Strings:
        return Strings(np.frombuffer(self.blob, np.uint8), np.frombuffer(self.ends, np.int64))


class Paths(Sequence[Path]):
    """Files by their names below a folder, made one at a time."""

    def __init__(self, root: Path, names: Strings) -> None:
        self.root, self.names = root, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        found = self.names[index]
        if isinstance(found, str):
            return self.root / found
        return Paths(self.root, found)

    def __iter__(self) -> Iterator[Path]:
        return (self.root / name for name in self.names)

    def take(self, indices: np.ndarray) -> Paths:
        return Paths(self.root, self.names.take(indices))
