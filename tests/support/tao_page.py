"""The tables of docs/from_tao.md: `python -m tests.support.tao_page` writes them into the page anew."""

from __future__ import annotations

import re
from pathlib import Path

from fmjax.programs.tao.fields import BACKBONES, RELEASE_5, RELEASE_6, Field

PAGE = Path(__file__).parents[2] / "docs" / "from_tao.md"
MARK = "<!-- {} -->\n"


def tables() -> dict[str, list[str]]:
    """The name of each table in the page -> its lines."""
    return {
        "fields 6": _fields([row for row in RELEASE_6 if not row.ignored]),
        "ignored 6": _ignored([row for row in RELEASE_6 if row.ignored]),
        "fields 5": _fields([row for row in RELEASE_5 if not row.ignored]),
        "ignored 5": _ignored([row for row in RELEASE_5 if row.ignored]),
        "backbones": ["| TAO | fmjax |", "|---|---|", *(f"| `{a}` | `{b}` |" for a, b in BACKBONES.items())],
    }  # fmt: skip


def _fields(rows: list[Field]) -> list[str]:
    lines = [
        f"| `{row.path}` | {row.ours if row.mapped else f'none: {row.ours}'} |" for row in rows
    ]
    return ["| field of the spec | here |", "|---|---|", *lines]


def _ignored(rows: list[Field]) -> list[str]:
    lines = [f"| `{row.path}` | `{row.ignored}` | {row.ours} |" for row in rows]
    return ["| accepted and never read | where it would be read | |", "|---|---|---|", *lines]


def filled(page: str) -> str:
    """The page with its tables as they are in the code."""
    for name, lines in tables().items():
        start, end = MARK.format(name), MARK.format(f"end of {name}")
        table = "\n".join(lines)
        # as a function: a table may have backslashes
        page = re.sub(f"{start}.*?{end}", lambda _: f"{start}{table}\n{end}", page, flags=re.DOTALL)  # noqa: B023
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
