"""Floating-point operations of a row, by the formulas of fmjax/models/flops.py, and how fast a device does them.
Imports neither jax nor torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from benchmarks.gpu.cases import CLASSES, Model, length_of, products_of, spec_of
from fmjax.bench.timing import SHORT_S, timed
from fmjax.models.flops import flops


def forward_flops(model: Model, *, patches: bool = True) -> int:
    """Of one image to its embedding. patches: whether the last block computes them, as timm's does."""
    return flops(spec_of(model), patches=patches).forward


def training_flops(model: Model, *, patches: bool = True) -> int:
    """Of one image in a step that trains all parameters, with a classifier in the place of the projection."""
    return flops(replace(spec_of(model), embed_dim=CLASSES), patches=patches).training()


def products(
    ready: Callable[[int, int, int], Callable[[int], None]], *, tiny: bool
) -> dict[str, Any]:
    """The row of products of matrices. ready: m x k times k x n -> what computes it so many times."""
    found = []
    for m, k, n in products_of(tiny=tiny):
        timing = timed(ready(m, k, n), **length_of(tiny=tiny, seconds=SHORT_S))
        found.append({"shape": [m, k, n], "flops": 2 * m * k * n / timing.median, **asdict(timing)})
    return {"products": found}
