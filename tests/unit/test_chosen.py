"""By what the blocks of a model compute on a mesh."""

from __future__ import annotations

import pytest

import fmjax
from fmjax.kernels import activation, attention, norm
from fmjax.models import kernels
from fmjax.models.kernels import Asked, chosen
from fmjax.sharding import make_mesh
from tests.unit.test_kernels import H100

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
    for each in (attention, norm, activation):
        monkeypatch.setattr(each, "unfit", lambda *_, **__: "")
    mesh, spec = make_mesh(*sizes), fmjax.get_spec("EVA02-L-14")
    found = chosen(ASKED, spec, mesh, dtype="bfloat16", images=8, tokens=257)
    assert found.fork is norm.fork(mesh)
    assert found.activate is activation.activate(mesh)
    assert found.attention.attend is attention.over(mesh)
    assert found.fork_heads is (found.fork if heads else None)
    assert found.folded is folded
    # a CPU's products end by nothing
    assert not found.joined


@pytest.mark.parametrize(
    ("sizes", "images", "joined"),
    [((8, 1, 1), 8, True), ((1, 8, 1), 8, True), ((8, 1, 1), 7, False), ((4, 1, 2), 8, False)],
)
def test_residuals_end_products_that_a_device_has_whole(sizes, images, joined, monkeypatch):
    mesh, spec = make_mesh(*sizes), fmjax.get_spec("ViT-B-16")
    monkeypatch.setattr(kernels, "first_device", lambda mesh: H100)
    found = chosen(
        Asked("xla", "xla", "xla"), spec, mesh, dtype="bfloat16", images=images, tokens=197
    )
    assert found.joined is joined


def test_no_image_has_no_kernel(monkeypatch):
    """Which go over some rows."""
    for each in (attention, norm, activation):
        monkeypatch.setattr(each, "unfit", lambda *_, **__: "")
    mesh, spec = make_mesh(8), fmjax.get_spec("ViT-B-16")
    assert chosen(ASKED, spec, mesh, dtype="bfloat16", images=0, tokens=197) == kernels.BY_XLA
