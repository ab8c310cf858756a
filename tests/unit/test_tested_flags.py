"""No flag is without a test of what it changes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from fmjax import config

ROOT = Path(__file__).parents[1]
# what a flag may be, and that it is read, says nothing of what it changes
LEFT_OUT = {"test_config.py", "test_flags.py", Path(__file__).name}


def flags() -> list[tuple[str, str]]:
    """(class, field) of everything that a program can be told."""
    kinds = [kind for kind in vars(config).values() if isinstance(kind, type)]
    found = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    return [
        (kind.__name__, name) for kind in found for name in vars(kind).get("__annotations__", {})
    ]


@pytest.fixture(scope="module")
def tests() -> str:
    paths = [path for path in sorted(ROOT.rglob("*.py")) if path.name not in LEFT_OUT]
    return "\n".join(path.read_text() for path in paths)


@pytest.mark.parametrize(("kind", "name"), flags())
def test_a_flag_is_in_a_test_of_what_it_changes(kind, name, tests):
    # on a command line, as an argument, or in a table of fields
    flag = rf"--([\w.-]*[.-])?{name.replace('_', '-')}\b"
    assert re.search(rf'{flag}|\b{name}=|"{name}"', tests), f"{kind}.{name}"
