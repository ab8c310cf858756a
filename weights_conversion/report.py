"""One report of everything in which a checkpoint and a model differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice

from weights_conversion.errors import CheckpointError, quoted

MAX_LINES = 30  # of each kind of misfit; blocks of a model that differ alike share one
MAX_NUMBERS = 12  # of blocks that are no run
MAX_NAME = 120  # characters of a name of the file
MAX_CANDIDATES = 200  # names of the file that a missing one is compared with
NUMBER = re.compile(r"\.(0|[1-9][0-9]{0,8})\.")  # the block in a name


class MisfitError(CheckpointError):
    """A checkpoint and a model that do not fit. `misfits` has the details; nothing was loaded."""

    def __init__(self, misfits: Misfits, closest: str = "") -> None:
        super().__init__(misfits, closest)
        self.misfits, self.closest = misfits, closest

    def __str__(self) -> str:
        """The report, written when it is asked for: many are only counted."""
        return self.misfits.text(self.closest)


@dataclass
class Misfits:
    """Keys are the file's; paths are fmjax's."""

    dialect: str
    missing: list[str] = field(default_factory=list)
    unmapped: list[str] = field(default_factory=list)
    # key -> (found, expected)
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    unfilled: list[str] = field(default_factory=list)

    def compare(
        self, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
    ) -> None:
        self.missing = [key for key in expected if key not in found]
        self.unmapped = [key for key in found if key not in expected]
        both = [key for key in expected if key in found]
        shapes = {key: (tuple(found[key]), tuple(expected[key])) for key in both}
        self.misshapen = {key: (has, wants) for key, (has, wants) in shapes.items() if has != wants}

    @property
    def count(self) -> int:
        kinds = (self.missing, self.unmapped, self.misshapen, self.unfilled)
        return sum(map(len, kinds))

    def raise_if_any(self) -> None:
        if self.count:
            raise MisfitError(self)

    def text(self, closest: str) -> str:
        """A line for each thing that differs, as many as a person reads. Names that only the file has are quoted; the
        others are those of our tables."""
        head = f"the checkpoint does not fit the model as {self.dialect}: "
        head += f"{self.count:,} misfits, nothing was loaded"
        # a missing name is most often there in another spelling, which the hints look for
        strange = collapse(self.unmapped)
        shapes = [
            f"{key} {found}, expected {wanted}" for key, (found, wanted) in self.misshapen.items()
        ]
        lines = [head + closest]

        def near(line: str) -> str:
            return line + _hint(line, strange)

        def short(line: str) -> str:
            return quoted(line, MAX_NAME)

        lines += _part("missing from the file", self.missing, near)
        lines += _part("in the file, but not in the model", self.unmapped, short)
        lines += _part("of another shape", shapes, str)
        if self.unfilled:
            lines.append(f"  parameters that the dialect cannot fill: {', '.join(self.unfilled)}")
        return "\n".join(lines)


def _part(title: str, keys: Sequence[str], shown: Callable[[str], str]) -> list[str]:
    """The title with the number of keys, and a line for those that differ in the block number only."""
    if not keys:
        return []
    lines = cut(collapse(keys), shown)
    return [f"  {title} ({len(keys):,}):", *(f"    {line}" for line in lines)]


def cut(lines: Sequence[str], shown: Callable[[str], str] = str) -> list[str]:
    """The first MAX_LINES of them as they are shown, and how many more there are."""
    first = [shown(line) for line in islice(lines, MAX_LINES)]
    more = len(lines) - MAX_LINES
    return [*first, f"... and {more:,} more"] if more > 0 else first


def collapse(keys: Iterable[str]) -> list[str]:
    """Names that differ only in the block number, on one line: blocks.{0-11}.norm1.weight."""
    groups: dict[tuple[str, str], list[int]] = {}
    for key in keys:
        number = NUMBER.search(key)
        if number is None:
            groups.setdefault((key, ""), [])
            continue
        around = key[: number.start(1)], key[number.end(1) :]
        groups.setdefault(around, []).append(int(number[1]))
    return [f"{before}{_numbers(found)}{after}" for (before, after), found in groups.items()]


def _numbers(found: list[int]) -> str:
    """Block numbers as a person writes them. A file may name any, so none between them is counted."""
    if len(found) < 2:
        return "".join(map(str, found))
    low, high = min(found), max(found)
    if len(set(found)) == len(found) == high - low + 1:
        return f"{{{low}-{high}}}"
    first = ",".join(map(str, sorted(found)[:MAX_NUMBERS]))
    return f"{{{first},...}}" if len(found) > MAX_NUMBERS else f"{{{first}}}"


def _hint(line: str, strange: list[str]) -> str:
    close = get_close_matches(line, strange[:MAX_CANDIDATES], n=1, cutoff=0.8)
    return f" (the file has {quoted(close[0], MAX_NAME)})" if close else ""
