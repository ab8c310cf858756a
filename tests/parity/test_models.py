"""Every family and dialect against its reference: all tokens, pooled output, gradients, native and other sizes."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weights_conversion as wc
from fmjax.factory import param_shapes
from fmjax.models.vit import Features, ViT
from fmjax.params import flat, functional
from fmjax.weights import fill
from tests.parity.references import CASES, Case, tensors_of
from tests.support import torch_reference

# The reference's own float32 is about 1e-6 of the largest value away from its float64; a deeper sum adds a few of
# these.
FORWARD_TOLERANCE = 2e-5
# Parameter gradients sum over every token and image on top of that.
GRADIENT_TOLERANCE = 5e-5


def error(found: np.ndarray, expected: np.ndarray, scale: float | None = None) -> float:
    """Largest absolute difference, relative to the largest expected value."""
    return float(np.abs(found - expected).max() / (scale or np.abs(expected).max()))


def all_tokens(out: Features, spec) -> jax.Array:
    """[class, registers, patches], the order of every reference."""
    parts = [out.cls[:, None], out.registers, out.patches.reshape(out.patches.shape[0], -1, spec.width)]
    return jnp.concatenate([p for p in parts if p is not None], 1)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.id)
def case(request) -> Case:
    return request.param


@pytest.fixture(scope="module")
def reference(case: Case, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    model, run_at = case.build(case, folder)
    return model, run_at, tensors_of(case, model, folder)


@pytest.fixture(scope="module")
def ours(case: Case, reference) -> ViT:
    conversion = wc.to_jax(wc.in_memory_tree(reference[2]), wc.DIALECTS[case.dialect], param_shapes(case.spec))
    return fill(case.spec, conversion.params)


@pytest.fixture(scope="module", params=["native", "other"])
def both(request, case: Case, reference, ours: ViT):
    """The reference's answer and ours, at one size, with the weights of the differentiated sum."""
    model, run_at, _ = reference
    size = case.spec.image_size if request.param == "native" else case.other_size
    rng = np.random.default_rng(0)
    images = rng.standard_normal((1, 3, *size), np.float32)
    grid = [n // case.spec.patch_size for n in size]
    tokens = 1 + case.spec.num_registers + grid[0] * grid[1]
    weights = (
        rng.standard_normal((1, tokens, case.spec.width), np.float32),
        rng.standard_normal((1, case.spec.embed_dim or case.spec.width), np.float32),
    )
    expected = torch_reference.run(run_at(size), model, images, weights)
    return expected, answer(ours, images.transpose(0, 2, 3, 1), weights)


def answer(model: ViT, images: np.ndarray, weights):
    apply, params = functional(model)

    @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def objective(params, images):
        out = apply(params, images)
        tokens = all_tokens(out, model.spec)
        return (tokens * weights[0]).sum() + (out.pooled * weights[1]).sum(), (tokens, out.pooled)

    with jax.default_matmul_precision("highest"):
        (_, (tokens, pooled)), gradients = jax.jit(objective)(params, images)
    return jax.tree.map(np.asarray, (tokens, pooled, *gradients))


def test_all_tokens_and_pooled_output_equal_the_reference(both, record_property):
    expected, (tokens, pooled, _, _) = both
    errors = error(tokens, expected.tokens), error(pooled, expected.pooled)
    record_property("forward", max(errors))
    assert max(errors) < FORWARD_TOLERANCE


def test_gradient_of_the_image_equals_the_reference(both, record_property):
    expected, (_, _, _, image_gradient) = both
    found = error(image_gradient.transpose(0, 3, 1, 2), expected.image_gradient)
    record_property("image_gradient", found)
    assert found < FORWARD_TOLERANCE


def test_gradients_of_all_parameters_equal_the_reference(both, case: Case, record_property):
    expected, (_, _, gradients, _) = both
    ours = flat(gradients)
    theirs = reference_gradients(expected, case)
    assert set(theirs) == set(ours)
    errors = {}
    for path, gradient in theirs.items():
        found = ours[path]
        if path == "pos_embed" and case.folded:  # the reference has no class position of its own
            found, gradient = found[1:], gradient[1:]
        # the softmax does not see a constant added to every key: the true gradient of the k bias is zero
        scale = np.abs(theirs["blocks.attn.q.bias"]).max() if path == "blocks.attn.k.bias" else None
        errors[path] = error(found, gradient, scale)
    record_property("parameter_gradient", max(errors.values()))
    assert {path: value for path, value in errors.items() if not value < GRADIENT_TOLERANCE} == {}


def reference_gradients(expected: torch_reference.Reference, case: Case) -> dict[str, np.ndarray]:
    """The reference's gradients in our layout: every transform is a permutation, so it holds for gradients too."""
    named = case.gradient_names(expected.gradients)
    if case.spec.embed_dim and not case.spec.proj_bias:
        named.pop("head.bias", None)  # a constant of the dialect: no parameter of ours
    shapes = param_shapes(case.spec)
    constant = {k: np.zeros_like(v) for k, v in case.gradient_names(expected.tensors).items()}
    converted = wc.to_jax(wc.in_memory_tree(constant | named), wc.DIALECTS[case.dialect], shapes)
    return {path: tensor.read(()) for path, tensor in converted.params.items()}
