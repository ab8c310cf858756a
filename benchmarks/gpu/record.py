"""The file of the results, written anew after each row. Imports neither jax nor torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fmjax.models.peaks import peak

# FLOP/s of an H100 SXM and of an H200 in bfloat16, dense
NOMINAL: Any = peak("NVIDIA H100 80GB HBM3", "bfloat16")


def begun(path: Path, header: dict[str, Any]) -> None:
    """Starts the file."""
    _write(path, {**header, "rows": []})


def rows(path: Path) -> list[dict[str, Any]]:
    """Those that are there."""
    return json.loads(path.read_text())["rows"]


def add(path: Path, row: dict[str, Any]) -> None:
    """One row more; on disk when this returns."""
    found = json.loads(path.read_text())
    found["rows"].append(row)
    _write(path, found)


def _write(path: Path, found: dict[str, Any]) -> None:
    # a whole file whenever it is read: the process may be ended at any time
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(found, indent=1) + "\n")
    os.replace(beside, path)


def measured_product(path: Path) -> float | None:
    """FLOP/s of the fastest product of matrices that this run has measured."""
    found = [product["flops"] for row in rows(path) for product in row.get("products", ())]
    return max(found, default=None)


def rates(path: Path, *, images: int, seconds: float, flops: int) -> dict[str, float]:
    """What follows from the seconds of a step. flops: of one image."""
    per_s = images / seconds
    out = {
        "images_per_s": round(per_s, 1),
        "ms": round(seconds * 1e3, 3),
        "tflops": round(per_s * flops / 1e12, 1),
        "mfu": round(per_s * flops / NOMINAL, 4),
    }
    product = measured_product(path)
    if product:
        out["of_measured_product"] = round(per_s * flops / product, 4)
    return out
