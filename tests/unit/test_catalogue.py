"""What a row says of its size is what the network is."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.models.build import abstract
from fmjax.programs import catalogue
from tests.support.checkpoints import small

MODELS = (
    "ViT-B-16",
    "dinov2_vitg14_reg",
    "ViT-B-16-SigLIP",
    "EVA02-L-14",
    "dinov3_vits16",
    "mae_vit_base_patch16",
)


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


@pytest.mark.parametrize("name", MODELS)
def test_flops_are_those_of_the_traced_products(name):
    spec = small(name)
    model = abstract(spec)
    images = jax.ShapeDtypeStruct((1, *spec.image_size, 3), jnp.float32)
    traced = products(jax.make_jaxpr(lambda m, x: m(x))(model, images).jaxpr)
    assert catalogue.flops(spec) == pytest.approx(traced, rel=0.01)


def test_a_record_of_an_architecture_lists_its_tags_and_doubts():
    found = catalogue.record("C-RADIOv3-B")
    assert "nvidia" in found["tags"]
    assert not found["verified"]
    assert catalogue.line(found).endswith("(not all verified)")
