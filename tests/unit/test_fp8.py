"""Products in FP8, of which docs/speed.md says what they would gain: that they are products, and its table."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from benchmarks.fp8 import page
from benchmarks.fp8.product import product


def test_the_table_is_that_of_the_results():
    shown = page.PAGE.read_text().partition(page.START)[2].partition(page.END)[0]
    assert shown.strip() == page.table(), "run `python -m benchmarks.fp8 --table`"


@pytest.mark.parametrize("factors", ["own", "known"])
def test_they_are_the_products_of_rounded_numbers(factors):
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel, seed = (
        jax.random.normal(key, shape, jnp.bfloat16)
        for key, shape in zip(keys, [(3, 16, 32), (32, 48), (3, 16, 48)], strict=True)
    )

    def both(function):
        value, back = jax.vjp(function, x, kernel)
        return value, *back(seed)

    # three bits of a number are kept, of a gradient two
    within = (0.06, 0.1, 0.1)
    pairs = zip(both(product(factors)), both(jnp.matmul), within, strict=True)
    for found, expected, most in pairs:
        apart = jnp.linalg.norm((found - expected).astype(float)) / jnp.linalg.norm(
            expected.astype(float)
        )
        assert 0 < apart < most
