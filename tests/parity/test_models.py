"""The smallest model of every family in every dialect of it, against its reference; `python -m weights_conversion
parity` compares all of them, and at another square size too."""

from __future__ import annotations

import pytest

import weights_conversion as wc
from tests.parity.bounds import BFLOAT16_COSINE, BFLOAT16_RATIO, FORWARD, GRADIENT
from tests.parity.cases import CASES, Case, native_size, sample
from tests.parity.measure import Result, measure

SAMPLE = sample()
WIDE, LONG = 1000, 1000  # numbers of a token, and tokens, of what takes longest
WIDEST = 2048  # of what a smaller sibling has at both sizes


@pytest.fixture(scope="module", params=SAMPLE, ids=lambda case: case.id)
def results(request, quick_compiler) -> list[Result]:
    return measure(request.param, sizes(request.param))


def sizes(case: Case) -> tuple[str, ...]:
    """Those that say something new of a case: what follows another size does so to one that is not square, too."""
    height, width = (side // case.spec.patch_size for side in native_size(case.model))
    # smaller siblings have both sizes, and of one that is not square there are fewer tokens
    if case.spec.width > WIDE and height * width > LONG:
        return ("wide",)
    # names are all in which another dialect of the same graph differs
    known = any(other.spec == case.spec for other in SAMPLE[: SAMPLE.index(case)])
    return ("native",) if known or case.spec.width > WIDEST else ("native", "wide")


def test_all_tokens_and_pooled_output_equal_the_reference(results):
    assert {r.size: r.relative for r in results if not r.relative < FORWARD} == {}


def test_gradient_of_the_image_equals_the_reference(results):
    assert {r.size: r.image_gradient for r in results if not r.image_gradient < FORWARD} == {}


def test_gradients_of_all_parameters_equal_the_reference(results):
    found = {(r.size, r.worst_parameter): r.parameter_gradient for r in results}
    assert {where: value for where, value in found.items() if not value < GRADIENT} == {}


def test_bfloat16_is_as_close_as_the_reference_in_bfloat16(results):
    first = results[0]
    assert first.bfloat16_cosine > BFLOAT16_COSINE
    assert first.bfloat16 < BFLOAT16_RATIO * first.reference_bfloat16


def test_every_model_and_every_dialect_has_a_case():
    import fmjax

    assert {case.model for case in CASES} == set(fmjax.list_models()) - {"demo_vit_ti4"}
    assert {case.dialect for case in CASES} == set(wc.dialects())
    assert {case.dialect for case in SAMPLE} == set(wc.dialects())
