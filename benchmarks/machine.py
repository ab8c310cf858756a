"""What a benchmark on a CPU was measured on."""

from __future__ import annotations

from pathlib import Path


def processor() -> str:
    """Its name, and whether it has vectors of 512 bits: which library's products are the faster is a matter of it."""
    facts = Path("/proc/cpuinfo").read_text()
    name = facts.partition("model name")[2].partition("\n")[0].strip("\t :")
    return f"{name}, AVX-512" if "avx512f" in facts else name
