"""What a benchmark on a CPU was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any


def on_one_core() -> None:
    """This process, and all that it starts; before any library counts its threads."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def facts(*packages: str) -> dict[str, Any]:
    """What a record begins with: the processor, and the versions of Python and of some packages."""
    versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
    return {"processor": processor(), "versions": versions}


def processor() -> str:
    """Its name, and whether it has vectors of 512 bits: which library's products are the faster is a matter of it."""
    facts = Path("/proc/cpuinfo").read_text()
    name = facts.partition("model name")[2].partition("\n")[0].strip("\t :")
    return f"{name}, AVX-512" if "avx512f" in facts else name
