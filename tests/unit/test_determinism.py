"""What XLA is told so that a GPU gives the same bits each time."""

from __future__ import annotations

import pytest

from fmjax.engine import determinism
from fmjax.engine.determinism import OPTIONS, chosen, compiler_options
from fmjax.errors import UsageError
from fmjax.sharding import make_mesh

UNKNOWN = {"xla_gpu_no_such_option": True}


def test_other_devices_are_told_nothing():
    assert compiler_options(make_mesh()) is None


def test_a_gpu_is_told_what_this_xla_knows():
    assert chosen("gpu") == OPTIONS[0]
    assert chosen("tpu") is None


@pytest.mark.parametrize("row", OPTIONS)
def test_every_row_is_known_to_this_xla(row):
    assert determinism._is_known(tuple(row.items()))


def test_an_option_that_xla_has_dropped_is_replaced_and_none_is_a_sentence(monkeypatch):
    monkeypatch.setattr(determinism, "OPTIONS", (UNKNOWN, OPTIONS[1]))
    assert chosen("gpu") == OPTIONS[1]
    monkeypatch.setattr(determinism, "OPTIONS", (UNKNOWN,))
    with pytest.raises(
        UsageError, match=r"^--deterministic needs an option of XLA that jaxlib \S+ does not know"
    ):
        chosen("gpu")
