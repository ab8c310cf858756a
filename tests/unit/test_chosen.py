"""By what the blocks of a model compute on a mesh."""

from __future__ import annotations

import pytest

import fmjax
from fmjax.kernels import activation, attention, norm
from fmjax.models.kernels import Asked, chosen
from fmjax.sharding import make_mesh

ASKED = Asked("pallas", "pallas", "pallas")


@pytest.mark.parametrize(
    ("sizes", "heads", "folded"),
    [
        ((8, 1, 1), True, True),
        # devices that share the parameters would gather no kernel before its factors
        ((1, 8, 1), True, False),
        # no device has all heads of a token
        ((4, 1, 2), False, True),
    ],
)
def test_a_mesh_decides_where_kernels_have_whole_rows(sizes, heads, folded, monkeypatch):
    for kernels in (attention, norm, activation):
        monkeypatch.setattr(kernels, "unfit", lambda *_, **__: "")
    mesh, spec = make_mesh(*sizes), fmjax.get_spec("EVA02-L-14")
    found = chosen(ASKED, spec, mesh, dtype="bfloat16", images=8, tokens=257)
    assert found.fork is norm.fork(mesh)
    assert found.activate is activation.activate(mesh)
    assert found.attend is attention.over(mesh)
    assert found.fork_heads is (found.fork if heads else None)
    assert found.folded is folded
