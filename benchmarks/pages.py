"""Tables of the pages that scripts here make."""

from __future__ import annotations

from pathlib import Path


def put(page: Path, start: str, end: str, table: str) -> None:
    """Writes a table between two marks of a page, in the place of what was there."""
    before, _, rest = page.read_text().partition(start)
    after = rest.partition(end)[2]
    page.write_text(f"{before}{start}\n{table}\n{end}{after}")
