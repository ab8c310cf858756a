"""Tables of the pages that scripts here make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path


def put(page: Path, start: str, end: str, table: str) -> None:
    """Writes a table between two marks of a page, in the place of what was there."""
    before, _, rest = page.read_text().partition(start)
    after = rest.partition(end)[2]
    page.write_text(f"{before}{start}\n{table}\n{end}{after}")


def line(*cells: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def header(*titles: str) -> Iterator[str]:
    """The rows above a table: the names of its columns."""
    yield line(*titles)
    yield "|---" * len(titles) + "|"


def part(title: str, columns: int) -> str:
    """The row above a part of a table, beside whose title so many columns are empty."""
    return f"| **{title}** |" + " |" * columns


def compiled_by(versions: Mapping[str, str]) -> Iterator[str]:
    """The line above a table of what was compiled."""
    yield f"Compiled by {', '.join(f'{name} {version}' for name, version in versions.items())}:"
    yield ""
