"""Transforms are pairs; a kernel is transposed or says why not."""

from __future__ import annotations

import numpy as np
import pytest

import weights_conversion as wc
from weights_conversion import transforms as t

SHAPES = {
    t.IDENTITY: [(5,)],
    t.IN_OUT: [(5, 7)],
    t.LINEAR: [(5, 7)],
    t.CONV: [(6, 3, 4, 4)],
    t.LEAD_1: [(1, 4, 6)],
    t.LEAD_2: [(1, 1, 6)],
    t.SPLIT[2]: [(8,)],
    t.SPLIT[3]: [(9,)],
    t.LINEAR_SPLIT[2]: [(8, 5)],
    t.LINEAR_SPLIT[3]: [(9, 5)],
    t.FOLDED_CLASS: [(1, 1, 6), (1, 4, 6)],
    t.HWIO: [(4, 4, 3, 6)],
    t.PATCH_LINEAR: [(6, 48)],
    t.rows(1, 3, 4): [(8, 6)],
    t.HEADS_OUT.for_heads(3): [(2, 6, 3, 4)],
    t.HEADS_IN.for_heads(3): [(2, 3, 4, 6)],
}
# a kernel that is stored (in, out) already
JAX_LAYOUT = {t.IN_OUT, t.HWIO, t.HEADS_IN, t.HEADS_OUT}


@pytest.mark.parametrize("transform", SHAPES, ids=lambda x: x.name)
def test_undo_returns_the_bits(transform):
    rng = np.random.default_rng(0)
    tensors = tuple(rng.standard_normal(shape).astype(np.float16) for shape in SHAPES[transform])
    back = transform.undo(transform.do(tensors))
    assert all(np.array_equal(a, b) for a, b in zip(tensors, back, strict=True))


@pytest.mark.parametrize("transform", [x for x in SHAPES if not x.lossy], ids=lambda x: x.name)
def test_do_returns_the_bits(transform):
    arrays = transform.do(
        tuple(np.random.default_rng(0).standard_normal(shape) for shape in SHAPES[transform])
    )
    assert all(
        np.array_equal(a, b)
        for a, b in zip(arrays, transform.do(transform.undo(arrays)), strict=True)
    )


@pytest.mark.parametrize("dialect", wc.dialects().values(), ids=lambda d: d.name)
def test_every_kernel_is_transposed_or_says_that_it_is_stored_so(dialect):
    kernels = [
        rule for rule in dialect.rules if any(path.endswith(".kernel") for path in rule.paths)
    ]
    assert kernels
    allowed = {t.LINEAR, t.CONV, t.PATCH_LINEAR, *t.LINEAR_SPLIT.values()}
    if dialect.name.endswith("_npz") and dialect.name != "tips_npz":
        allowed = JAX_LAYOUT
    stored = {
        rule.torch for rule in kernels if rule.transform == t.IN_OUT and allowed != JAX_LAYOUT
    }
    assert {rule.transform for rule in kernels if rule.torch not in stored} <= allowed
    assert stored <= {"proj"}


def test_the_masked_bias_comes_back_as_zeros():
    q, v = t.MASKED_K.do((np.arange(9.0),))
    assert np.array_equal(q, [0, 1, 2])
    assert np.array_equal(v, [6, 7, 8])
    assert np.array_equal(t.MASKED_K.undo((q, v))[0], [0, 1, 2, 0, 0, 0, 6, 7, 8])
