"""The modules whose functions say the shapes of arrays. Imports nothing of them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("fmjax", "weights_conversion")


def modules() -> list[str]:
    """Their names."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in files
        if "from jaxtyping import" in path.read_text()
    ]
