"""What a row says of its size is what the network is."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import optax
import pytest

from fmjax.models.build import abstract
from fmjax.models.flops import embedding_flops, flops
from fmjax.models.memory import estimate
from fmjax.names import get_weights, list_models
from fmjax.programs import catalogue, listing
from fmjax.trees import flat, nested
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
    # of its class tokens alone where those are pooled, without what the last block would make of patches
    traced = products(jax.make_jaxpr(lambda m, x: m.embedding(x))(model, images).jaxpr)
    assert embedding_flops(spec).forward == pytest.approx(traced, rel=0.01)


def test_a_record_of_an_architecture_lists_its_tags_and_doubts():
    found = catalogue.record("C-RADIOv3-B")
    assert "nvidia" in found["tags"]
    assert not found["verified"]
    cells = {column.title: column.cells for column in listing.table([found])}
    assert cells[""] == ["?"]


def test_scores_of_an_architecture_are_the_best_of_its_weights():
    tags = [get_weights(name) for name in list_models("ViT-B-16.*", pretrained=True)]
    scores = [row.accuracy["imagenet1k_zeroshot"] for row in tags if row.accuracy]
    assert catalogue.record("ViT-B-16")["accuracy"]["imagenet1k_zeroshot"] == max(scores)
    assert len(set(scores)) > 3


def test_a_page_says_what_a_record_says():
    rows = dict(catalogue.page("dinov2_vits14.lvd142m"))
    facts = catalogue.full_record("dinov2_vits14.lvd142m")
    assert f"{facts['memory_bytes']['finetune'] / 1e6:.0f} MB" in rows["fine-tuning"]
    assert f"dinov2 {facts['parity_by_dialect']['dinov2']['relative']:.1e}" in rows["parity"]
    assert "facebookresearch/dinov2" in rows["authors"]
    assert rows["source 1"].startswith("url https://dl.fbaipublicfiles.com/")
    assert facts["evaluated_gflops"] < facts["gflops"]
    assert (
        rows["accuracy"] == "ImageNet-1k nearest neighbours 79 %, ImageNet-1k linear probe 81.1 %"
    )
    assert rows["outputs"].endswith(", 1 class token")
    # a backbone that was compared with nothing says nothing of it
    assert "parity" not in dict(catalogue.page("demo_vit_ti4"))
    assert catalogue.record("demo_vit_ti4")["parity"] is None


def test_every_published_score_is_spoken_of_in_words():
    rows = [get_weights(name) for name in list_models(pretrained=True)]
    assert {score for row in rows for score in row.accuracy} == set(catalogue.TESTS)


def test_what_fine_tuning_keeps_is_what_the_optimiser_holds():
    spec = small("ViT-B-16")
    params = nested(flat(abstract(spec)))
    moments = jax.eval_shape(optax.adamw(1e-3).init, params)
    kept = [*jax.tree.leaves(params), *jax.tree.leaves(params), *jax.tree.leaves(moments)]
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in kept)
    # but for the counter of steps
    assert held == estimate(spec).finetune + 4
    assert estimate(spec).forward * 4 == estimate(spec).finetune


def test_a_step_takes_the_estimated_activations_and_little_more():
    spec = replace(small("ViT-B-16"), depth=8)
    model = abstract(spec, remat="full")

    def taken(images: int) -> int:
        batch = jax.ShapeDtypeStruct((images, *spec.image_size, 3), jnp.float32)
        gradient = jax.jit(jax.grad(lambda m, x: jnp.sum(m(x).pooled ** 2)))
        return gradient.lower(model, batch).compile().memory_analysis().temp_size_in_bytes

    # of each image more; beside the blocks' inputs stands what one block computes again, some 40 arrays of its width
    each, least = (taken(9) - taken(1)) / 8, estimate(spec).image_least
    assert least < each < least * (1 + 60 / spec.depth)
