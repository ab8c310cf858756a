"""One report of everything in which a checkpoint and a model differ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from weights_conversion.errors import CheckpointError


class MisfitError(CheckpointError):
    """A checkpoint and a model that do not fit. `misfits` has the details; nothing was loaded."""

    def __init__(self, misfits: Misfits, closest: str = "") -> None:
        self.misfits = misfits
        super().__init__(misfits.text(closest))


@dataclass
class Misfits:
    """Keys are the file's; paths are fmjax's."""

    dialect: str
    missing: list[str] = field(default_factory=list)
    unmapped: list[str] = field(default_factory=list)
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(
        default_factory=dict
    )  # key -> (found, expected)
    unfilled: list[str] = field(default_factory=list)

    def compare(self, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
        self.missing = [key for key in expected if key not in found]
        self.unmapped = [key for key in found if key not in expected]
        both = [key for key in expected if key in found and tuple(found[key]) != tuple(expected[key])]
        self.misshapen = {key: (tuple(found[key]), tuple(expected[key])) for key in both}

    @property
    def count(self) -> int:
        return len(self.missing) + len(self.unmapped) + len(self.misshapen) + len(self.unfilled)

    def raise_if_any(self) -> None:
        if self.count:
            raise MisfitError(self)

    def text(self, closest: str) -> str:
        lines = [
            f"the checkpoint does not fit the model as {self.dialect}: {self.count} misfits, nothing was "
            f"loaded{closest}"
        ]
        if self.missing:
            lines.append(f"  missing from the file ({len(self.missing)}):")
            lines += [f"    {line}{_hint(line, self.unmapped)}" for line in collapse(self.missing)]
        if self.unmapped:
            lines.append(f"  in the file, but not in the model ({len(self.unmapped)}):")
            lines += [f"    {line}" for line in collapse(self.unmapped)]
        if self.misshapen:
            lines.append(f"  of another shape ({len(self.misshapen)}):")
            lines += [
                f"    {line}" for line in collapse([f"{k} {a}, expected {b}" for k, (a, b) in self.misshapen.items()])
            ]
        if self.unfilled:
            lines.append(f"  parameters that the dialect cannot fill: {', '.join(self.unfilled)}")
        return "\n".join(lines)


def collapse(keys: list[str]) -> list[str]:
    """Names that differ only in the block number, on one line: blocks.{0-11}.norm1.weight."""
    groups: dict[str, list[int]] = {}
    for key in keys:
        number = re.search(r"\.(\d+)\.", key)
        template = key[: number.start(1)] + "{}" + key[number.end(1) :] if number else key
        groups.setdefault(template, []).append(int(number.group(1)) if number else -1)
    return [_numbered(template, numbers) for template, numbers in groups.items()]


def _numbered(template: str, numbers: list[int]) -> str:
    if numbers == [-1]:
        return template
    low, high = min(numbers), max(numbers)
    run = sorted(numbers) == list(range(low, high + 1))
    listed = f"{low}-{high}" if run and low < high else ",".join(map(str, sorted(numbers)))
    return template.replace("{}", listed if low == high else "{" + listed + "}", 1)


def _hint(line: str, unmapped: list[str]) -> str:
    close = get_close_matches(line, collapse(unmapped), n=1, cutoff=0.8)
    return f" (the file has {close[0]})" if close else ""
