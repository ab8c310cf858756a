"""Sources that may become another set under the same name: a dataset of the hub, and the commit that it is taken at."""

from __future__ import annotations

import re

HUB = "hf:"
# hf:OWNER/NAME:CONFIG@COMMIT#PART
PIN = re.compile(r"@([0-9a-f]{40})(?=(#\w+)?$)")


def unpinned(source: str) -> str:
    """A source without the commit that a dataset of the hub is taken at."""
    if not source.startswith(HUB):
        return source
    return PIN.sub("", source)


def commit_of(source: str) -> str:
    """The commit in a source; "" where it names none."""
    if not source.startswith(HUB):
        return ""
    found = PIN.search(source)
    return found[1] if found else ""


def as_recorded(source: str, recorded: str) -> str:
    """The recorded source where it is the same one, at the commit that was found for it; else the source itself."""
    if source == unpinned(recorded):
        return recorded
    return source
