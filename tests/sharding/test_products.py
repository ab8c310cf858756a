"""Every way to lay eight devices out as data x fsdp x tensor: one step is that of one device, and only weights and sums
travel."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

import fmjax
from fmjax.config.data import DataConfig
from fmjax.config.model import ModelConfig
from fmjax.config.recipe import Recipe
from fmjax.config.run import RunConfig
from fmjax.engine.costs import collectives
from fmjax.errors import UsageError
from fmjax.kernels import activation, attention, fused, norm, pallas_norm, platform
from fmjax.models import kernels as model_kernels
from fmjax.models.build import abstract, initialise
from fmjax.sharding import AXES, make_mesh
from fmjax.trees import flat
from tests.support.runs import Started, started

pytestmark = pytest.mark.usefixtures("quick_compiler")

PRODUCTS = [
    (data, fsdp, 8 // data // fsdp)
    for data in (1, 2, 4, 8)
    for fsdp in (1, 2, 4, 8)
    if data * fsdp <= 8
]
TOKENS = 50
CONFIG = RunConfig(
    model=ModelConfig(name="demo_vit_ti4.fashion_mnist", init="random", dtype="float32"),
    data=DataConfig(crop_scale=0.7, flip=0.0),
    recipe=Recipe(lr=1e-3, warmup_steps=0, clip_norm=0.0),
    export="none",
    drop_path=0.2,
    remat="full",
    steps=4,
    batch_size=16,
)
# heads that divide over eight devices, in three blocks, of which the last computes the class token alone
SPEC = replace(fmjax.get_spec("demo_vit_ti4"), num_heads=8, depth=3, embed_dim=0)


def on(*sizes: int, **options: Any) -> Started:
    mesh = make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    known = {"dtype": np.float32, "drop_path": CONFIG.drop_path, "remat": "full"}
    backbone = initialise(SPEC, None, mesh=mesh, **known | options)
    return started(CONFIG, mesh, backbone)


def stepped(run: Started) -> tuple[dict[str, np.ndarray], list[float], str]:
    """After one step the first moments, which are (1 - b1) times the gradients; the losses of three; the program."""
    batch = run.batch()
    program = run.functions.step.lower(run.state, batch).compile()
    state, logs = program(run.state, batch)
    moments = next(part.mu for part in state.opt if hasattr(part, "mu"))
    gradients = {path: np.asarray(leaf) for path, leaf in flat(moments).items()}
    losses = [float(logs["loss"])]
    for _ in range(2):
        state, logs = program(state, run.batch())
        losses.append(float(logs["loss"]))
    return gradients, losses, program.as_text()


@pytest.fixture(scope="module")
def one_device():
    return stepped(on(1, 1, 1))


@pytest.mark.parametrize("sizes", PRODUCTS, ids=lambda sizes: " x ".join(map(str, sizes)))
def test_a_step_on_any_product_of_eight_devices_is_that_of_one(sizes, one_device):
    gradients, losses, text = stepped(on(*sizes))
    check_step(gradients, losses, one_device)
    check_collectives(sizes, text)


@pytest.mark.parametrize(
    "sizes", [(8, 1, 1), (1, 8, 1), (2, 2, 2)], ids=lambda sizes: " x ".join(map(str, sizes))
)
def test_a_step_by_kernels_and_of_unrolled_blocks_is_that_of_one(sizes, one_device, monkeypatch):
    """As on GPUs. What they compute here is XLA's, divided over the devices as theirs is."""
    for kernels in (attention, norm, activation):
        monkeypatch.setattr(kernels, "unfit", lambda *_, **__: "")
    gpu = SimpleNamespace(platform="gpu")
    monkeypatch.setattr(model_kernels, "first_device", lambda mesh: gpu)
    chosen = dict.fromkeys(("attention", "norms", "activations"), "pallas")
    divided = []
    for owner in (fused, pallas_norm, platform):
        monkeypatch.setattr(owner, "by_device", partial(_told, divided, owner.by_device))
    gradients, losses, text = stepped(on(*sizes, unroll=True, remat="dots", **chosen))
    check_step(gradients, losses, one_device)
    # each block's two norms, its activation and, but in the last, its attention, forward and backward
    assert len(divided) >= 2 * (4 * SPEC.depth - 1)
    # nothing is exchanged in a loop, nor what a head sees of tokens at all
    rows = collectives(text, dict(zip(AXES, sizes, strict=True)))
    assert {row.trips for row in rows} == {1}
    assert "all-to-all" not in {row.kind for row in rows}


def _told(divided: list[Mesh], by_device: Any, *arrays: Any, mesh: Mesh, **places: Any) -> Any:
    divided.append(mesh)
    return by_device(*arrays, mesh=mesh, **places)


def check_step(gradients: Any, losses: list[float], one_device: Any) -> None:
    assert losses == pytest.approx(one_device[1], rel=1e-5)
    for path, expected in one_device[0].items():
        # the true gradient of a bias of k is zero: it is measured by that of q
        scale = np.abs(one_device[0][path.replace("k.bias", "q.bias")]).max()
        assert np.abs(gradients[path] - expected).max() <= 5e-5 * max(scale, 1e-6), path


def check_collectives(sizes: tuple[int, ...], text: str) -> None:
    """Between data and fsdp no tokens travel; over tensor their sums do, as each half of a block ends (Megatron)."""
    data, fsdp, tensor = sizes
    kinds = "all-gather|all-to-all|collective-permute|reduce-scatter"
    moved = re.findall(rf"= \w+\[([\d,]*)\][^=]*? (?:{kinds})(?:-start)?\(", text)
    assert not [
        shape for shape in moved if str(TOKENS) in shape.split(",") and shape.count(",") > 1
    ]

    rows = collectives(text, {"data": data, "fsdp": fsdp, "tensor": tensor})
    assert not [row for row in rows if row.kind == "all-to-all"]  # nor what a head sees of them
    layers = [row for row in rows if row.trips == SPEC.depth - 1]
    gathered = {row.axes for row in layers if row.kind == "all-gather"}
    assert gathered == ({("fsdp",)} if fsdp > 1 else set())
    summed = {axis for row in layers if row.kind == "all-reduce" for axis in row.axes}
    assert summed == {
        axis for axis, size in zip(("data", "fsdp", "tensor"), sizes, strict=True) if size > 1
    }


def test_heads_that_lie_on_two_devices_are_refused_with_the_sizes_that_fit():
    mesh = make_mesh(1, 1, 8)
    fitting = "set --mesh.tensor to 1, 2, 3, 4, 6 or 12"
    expected = f"12 heads, which do not divide over 8 devices of mesh axis 'tensor'; {fitting}"
    with pytest.raises(UsageError, match=expected):
        abstract(fmjax.get_spec("ViT-B-16"), mesh=mesh)
