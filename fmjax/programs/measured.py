"""What was measured of a backbone against the code of others, as it ships inside the package. Imports no jax."""

from __future__ import annotations

import importlib.resources
import json
from functools import cache
from typing import Any

from fmjax.specs import Weights

FILE = "zoo/files/parity.json"


@cache
def stored() -> dict[str, Any]:
    """The packaged results: date and versions, errors of every backbone in every dialect, comparisons with the authors'
    own code."""
    return json.loads((importlib.resources.files("fmjax") / FILE).read_text())


def by_dialect(model: str, rows: list[Weights]) -> dict[str, dict[str, float]]:
    """The errors of an architecture in the dialects that its weights are published in; none for a backbone that was
    compared with nothing."""
    found = stored()["models"].get(model, {})
    # other dialects of the same graph are no statement about these files
    named = {source.dialect for weights in rows for source in weights.sources}
    return {dialect: errors for dialect, errors in found.items() if dialect in named}


def worst(model: str, rows: list[Weights]) -> float | None:
    """The largest relative error of tokens and pooled output over these dialects."""
    return max((row["relative"] for row in by_dialect(model, rows).values()), default=None)


def beside_authors(name: str) -> dict[str, Any] | None:
    """The comparison of published weights' graph with their authors' own code; None where there is none."""
    return stored()["authors"].get(name)
