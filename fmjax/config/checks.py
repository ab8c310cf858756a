"""What a flag may be: each check is one sentence with the flag, its value and what was expected."""

from __future__ import annotations

import re
from typing import Any

from fmjax.config.schemes import scheme_of
from fmjax.errors import UsageError

PILLOW_PIXELS = 89_478_485  # above which Pillow warns of a decompression bomb, and soon refuses
MAX_SEED = 2**32 - 1  # what numpy and scikit-learn take


def require(condition: bool, flag: str, value: Any, expected: str) -> None:
    if not condition:
        raise UsageError(f"{flag} is {value!r}; it must be {expected}")


def check_source(source: str) -> None:
    """Raises UsageError for what names no kind of data."""
    scheme_of(source)


def compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
