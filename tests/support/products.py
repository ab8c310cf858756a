"""Floating-point operations as they are traced."""

from __future__ import annotations

from typing import Any

import numpy as np


def products(jaxpr: Any) -> int:
    """Floating-point operations of all matrix products of a program, those of a loop's body once a round."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            depth = np.prod([equation.invars[0].aval.shape[axis] for axis in contracted], dtype=int)
            total += 2 * int(depth) * int(np.prod(equation.outvars[0].aval.shape))
        rounds = equation.params.get("length", 1)
        inner = [equation.params[key] for key in ("jaxpr", "call_jaxpr") if key in equation.params]
        total += rounds * sum(products(getattr(found, "jaxpr", found)) for found in inner)
    return total
