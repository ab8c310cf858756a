"""The documentation as programs see it: its pages, and the commands and code that stand on them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.glob("*.md")])
SHELL = {"", "bash", "sh", "yaml"}  # a job of Kubernetes has a command, too
# what stands before the program's name in a line of a shell
BEFORE = re.compile(r"^(?:.*(?:&& |\bsrun [^|]*?|= ))?(?:[A-Z_]+=\S+ )*(?=fmjax )")


@dataclass(frozen=True)
class Block:
    """A fenced block: the language behind the fence, what stands in it, and the line that it begins at."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    text = page.read_text()
    found = re.finditer(r"^(?: *)```(\w*)\n(.*?)^(?: *)```$", text, re.M | re.S)
    return [Block(each[1], each[2], text.count("\n", 0, each.start()) + 1) for each in found]


def commands(block: Block) -> Iterator[list[str]]:
    """The words behind `fmjax` of each command in a block of shell."""
    if block.language not in SHELL:
        return
    joined = re.sub(r"\\\n\s*", " ", block.text)
    for line in joined.splitlines():
        line = BEFORE.sub("", line.strip().removeprefix("$ "))
        if line.startswith("fmjax "):
            # a # within a word is no comment: `#test` asks for a part of a set
            words = shlex.split(re.sub(r"\s#\s.*$", "", line).removesuffix("&"))[1:]
            # what goes into a file is no word of the command
            yield words[: words.index(">")] if ">" in words else words


def said_in_passing(page: Path) -> Iterator[list[str]]:
    """The words behind `fmjax` in sentences and tables, outside of blocks."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.M | re.S)
    for code in re.findall(r"(?<!`)`(?:eval \"\$\()?fmjax ([^`]+?)(?:\)\")?`(?!`)", text):
        yield shlex.split(code)


def nav() -> list[str]:
    """The pages of the site, in its order."""
    # the comments of the file say why, its values are plain
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    return list(_leaves(config["nav"]))


def _leaves(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        yield from _leaves(list(nav.values()))
    elif isinstance(nav, list):
        for each in nav:
            yield from _leaves(each)
