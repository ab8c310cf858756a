"""fmjax beside its originals: `pytest tests/parity --authors DIR`, with checkouts of the authors' code in DIR."""

from __future__ import annotations

import pytest

from tests.parity.authors.compare import Comparison, available, compare
from tests.parity.bounds import FORWARD


def pytest_generate_tests(metafunc):
    directory = metafunc.config.getoption("authors")
    if directory is None:
        pytest.fail("this file needs --authors DIR, checkouts of the authors' code", pytrace=False)
    originals = available(directory)
    names = [row.name for row in originals]
    metafunc.parametrize("comparison", originals, ids=names, indirect=True, scope="module")


@pytest.fixture(scope="module")
def comparison(request) -> Comparison:
    return compare(request.param, request.config.getoption("authors"))


def test_all_tokens_equal_the_authors(comparison):
    assert comparison.tokens < FORWARD


def test_pooled_output_equals_the_authors(comparison):
    assert comparison.pooled < FORWARD


def test_gradient_of_the_image_equals_the_authors(comparison):
    assert comparison.image_gradient < FORWARD
