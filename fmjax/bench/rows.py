"""A row of what was timed, and the figures that follow from it. Imports no jax."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fmjax.bench.timing import Timing


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing that was timed; None is what is not known, or what it has not."""

    kind: str
    what: str  # in words
    timing: Timing | None = None
    images: int | None = None  # of a step
    flops: int | None = None  # of a step, by the formulas: nothing that is computed twice
    memory_bytes: int | None = None  # of the device, as the compiler plans it
    lowering_s: float | None = None
    compiling_s: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # of this kind alone
    failed: str = ""  # why there are no figures


@dataclass(frozen=True)
class Limits:
    """What the device could do at most, operations a second; None where that is not known."""

    nominal: float | None = None  # by its maker's sheet
    product: float | None = None  # the fastest product of matrices of this call


@dataclass(frozen=True)
class Figures:
    """What follows from a row's seconds; None where it does not follow."""

    images_per_s: float | None = None
    flops_per_s: float | None = None
    mfu: float | None = None  # of the maker's figure (arXiv:2204.02311, app. B)
    of_product: float | None = None


def figures(row: Row, limits: Limits) -> Figures:
    """The figures of a row, by the median of its rounds."""
    if row.timing is None:
        return Figures()
    rate = _over(row.flops, row.timing.median)
    return Figures(
        images_per_s=_over(row.images, row.timing.median),
        flops_per_s=rate,
        mfu=_over(rate, limits.nominal),
        of_product=_over(rate, limits.product),
    )


def _over(part: int | float | None, whole: float | None) -> float | None:
    return part / whole if part and whole else None


def limits_of(rows: list[Row], nominal: float | None) -> Limits:
    """The maker's figure, and the fastest product among the rows."""
    found = [figures(row, Limits()).flops_per_s for row in rows if row.kind == "product"]
    return Limits(nominal, max(filter(None, found), default=None))


def recorded(row: Row, limits: Limits) -> dict[str, Any]:
    """A row with its figures, for machines."""
    return asdict(row) | asdict(figures(row, limits))
