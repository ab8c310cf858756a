"""What a row says of its size is what the network is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from fmjax.models.build import abstract
from fmjax.models.flops import flops
from fmjax.programs import catalogue
from tests.support.checkpoints import small
from tests.support.products import products

MODELS = (
    "ViT-B-16",
    "dinov2_vitg14_reg",
    "ViT-B-16-SigLIP",
    "EVA02-L-14",
    "dinov3_vits16",
    "mae_vit_base_patch16",
)


@pytest.mark.parametrize("name", MODELS)
def test_flops_are_those_of_the_traced_products(name):
    spec = small(name)
    model = abstract(spec)
    images = jax.ShapeDtypeStruct((1, *spec.image_size, 3), jnp.float32)
    traced = products(jax.make_jaxpr(lambda m, x: m(x))(model, images).jaxpr)
    assert flops(spec).forward == pytest.approx(traced, rel=0.01)


def test_a_record_of_an_architecture_lists_its_tags_and_doubts():
    found = catalogue.record("C-RADIOv3-B")
    assert "nvidia" in found["tags"]
    assert not found["verified"]
    assert catalogue.line(found).endswith("(not all verified)")
