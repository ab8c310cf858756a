"""The smallest model of every family in every dialect of it, against its reference; `python -m weights_conversion
parity` compares all of them, and at another square size too."""

from __future__ import annotations

import pytest

import weights_conversion as wc
from tests.parity.bounds import BFLOAT16_COSINE, BFLOAT16_RATIO, FORWARD, GRADIENT
from tests.parity.cases import CASES, sample
from tests.parity.measure import Result, measure


@pytest.fixture(scope="module", params=sample(), ids=lambda case: case.id)
def results(request, quick_compiler) -> list[Result]:
    # what follows another size does so to one that is not square, too; of the widest its smaller sibling has shown it
    widest = request.param.spec.width > 2048
    return measure(request.param, ("native",) if widest else ("native", "wide"))


def test_all_tokens_and_pooled_output_equal_the_reference(results):
    assert {r.size: r.relative for r in results if not r.relative < FORWARD} == {}


def test_gradient_of_the_image_equals_the_reference(results):
    assert {r.size: r.image_gradient for r in results if not r.image_gradient < FORWARD} == {}


def test_gradients_of_all_parameters_equal_the_reference(results):
    found = {(r.size, r.worst_parameter): r.parameter_gradient for r in results}
    assert {where: value for where, value in found.items() if not value < GRADIENT} == {}


def test_bfloat16_is_as_close_as_the_reference_in_bfloat16(results):
    native = results[0]
    assert native.bfloat16_cosine > BFLOAT16_COSINE
    assert native.bfloat16 < BFLOAT16_RATIO * native.reference_bfloat16


def test_every_model_and_every_dialect_has_a_case():
    import fmjax

    assert {case.model for case in CASES} == set(fmjax.list_models()) - {"demo_vit_ti4"}
    assert {case.dialect for case in CASES} == set(wc.dialects())
    assert {case.dialect for case in sample()} == set(wc.dialects())
