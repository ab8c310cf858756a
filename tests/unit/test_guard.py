"""Steps whose numbers are none, and float16's scale: what they change of a state."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

import fmjax
from fmjax.config.data import DataConfig
from fmjax.config.model import ModelConfig
from fmjax.config.recipe import Recipe
from fmjax.config.run import RunConfig
from fmjax.engine import guard
from fmjax.engine.guard import Guard, after, fresh
from fmjax.engine.state import places
from fmjax.models.build import compute_dtype, initialise
from fmjax.sharding import make_mesh
from fmjax.trees import flat
from tests.support.faulty import FaultyConfig
from tests.support.runs import Started, started

pytestmark = pytest.mark.usefixtures("quick_compiler")

NAN, INF = float("nan"), float("inf")
DEVICES = jax.devices()
CONFIG = RunConfig(
    model=ModelConfig(name="demo_vit_ti4.fashion_mnist", dtype="float32"),
    data=DataConfig(crop_scale=1.0, flip=0.0),
    recipe=Recipe(lr=1e-3, warmup_steps=5, ema=0.9, accumulate=2),
    drop_path=0.1,
    steps=60,
    batch_size=32,
)


def begun(config: RunConfig, mesh: Mesh) -> Started:
    """A run of two blocks."""
    dtype = compute_dtype(config.model.dtype)
    spec = replace(fmjax.get_spec("demo_vit_ti4"), depth=2)
    backbone = initialise(spec, None, mesh=mesh, dtype=dtype, drop_path=config.drop_path)
    return started(config, mesh, backbone)


def stepped(run: Started) -> dict[str, float]:
    """One step on; its logs."""
    run.state, logs = run.functions.step(run.state, run.batch())
    return {name: float(value) for name, value in logs.items()}


def on_host(run: Started) -> dict[str, list[np.ndarray]]:
    """All that must not change in a step that is skipped, device by device: schedules, which follow the number of the
    step, apart."""
    opt = jax.tree.map(
        lambda node: () if is_schedule(node) else node, run.state.opt, is_leaf=is_schedule
    )
    trees = {"params": run.state.params, "ema": run.state.ema, "opt": opt}
    return {
        f"{name} {path}": [np.asarray(shard.data) for shard in leaf.addressable_shards]
        for name, tree in trees.items()
        for path, leaf in flat(tree).items()
    }


def is_schedule(node) -> bool:
    return isinstance(node, optax.ScaleByScheduleState)


def differ(one: dict, other: dict) -> set[str]:
    return {
        name
        for name, shards in one.items()
        if any(a.tobytes() != b.tobytes() for a, b in zip(shards, other[name], strict=True))
    }


FAULTS = ("loss", "gradient", "average")


def test_a_step_that_is_not_finite_changes_no_bit_of_what_is_learned_on_any_device():
    faults = tuple((fault, step, step) for step, fault in enumerate(FAULTS, start=2))
    run = begun(replace(CONFIG, task=FaultyConfig(faults=faults)), make_mesh(1, 2, 1, DEVICES[:2]))
    stepped(run)
    before = on_host(run)
    logs = {fault: stepped(run) for fault in FAULTS}
    assert differ(before, on_host(run)) == set()
    assert [row["skipped_in_row"] for row in logs.values()] == [1, 2, 3]
    wrong = {
        name: {fault for fault, row in logs.items() if not np.isfinite(row[name])}
        for name in ("loss", "grad_norm")
    }
    assert wrong == {"loss": {"loss"}, "grad_norm": {"loss", "gradient"}}

    # it goes on, with the rate and the key of the fifth step
    row = stepped(run)
    assert (row["skipped"], row["skipped_in_row"], int(run.state.step)) == (3, 0, 5)
    changed = differ(before, on_host(run))
    assert {"params head.kernel", "params seen.mean", "ema head.kernel"} <= changed
    nodes = jax.tree.leaves(run.state.opt, is_leaf=is_schedule)
    assert [int(node.count) for node in nodes if is_schedule(node)] == [5]


def replayed(*steps: tuple[float, float], start: Guard | None = None, scales: bool = True) -> Guard:
    """A guard after steps of a loss and a norm of the gradient."""
    found = fresh() if start is None else start
    for loss, norm in steps:
        finite = guard.all_finite(jnp.asarray(loss), jnp.asarray(norm), {})
        found = after(found, finite, jnp.asarray(loss), scales=scales)
    return found


def numbers(found: Guard) -> tuple[float, ...]:
    return tuple(float(value) for value in (found.skipped, found.row, found.scale, found.good))


def test_skipped_steps_are_counted_in_all_and_in_a_row():
    steps = [(1.0, NAN), (INF, 1.0), (1.0, 1.0), (NAN, INF)]
    assert numbers(replayed(*steps, scales=False)) == (3, 1, guard.FIRST_SCALE, 0)
    assert int(replayed(*steps[:2], scales=False).row) == 2


def test_an_overflow_halves_the_scale_and_is_not_counted_as_skipped():
    assert numbers(replayed((1.0, INF), (1.0, NAN))) == (0, 0, guard.FIRST_SCALE / 4, 0)


def test_a_loss_that_is_not_finite_is_no_matter_of_the_scale():
    assert numbers(replayed((NAN, NAN))) == (1, 1, guard.FIRST_SCALE, 0)


def test_what_a_scale_of_one_does_not_mend_is_skipped_so_that_a_run_of_it_ends():
    found = replayed(*[(1.0, NAN)] * 20)
    assert numbers(found) == (4, 4, 1.0, 0)  # 16 times halved before


def test_the_scale_is_doubled_after_2000_good_steps_up_to_a_bound():
    almost = replace(fresh(), good=jnp.asarray(guard.GOOD_STEPS - 1))
    assert numbers(replayed((1.0, 1.0), start=almost)) == (0, 0, 2 * guard.FIRST_SCALE, 0)
    # an overflow begins to count anew
    assert numbers(replayed((1.0, INF), start=almost))[2:] == (guard.FIRST_SCALE / 2, 0)
    top = replace(almost, scale=jnp.asarray(guard.LARGEST_SCALE))
    assert float(replayed((1.0, 1.0), start=top).scale) == guard.LARGEST_SCALE


def in_dtype(dtype: str, accumulate: int = 2) -> Started:
    recipe = replace(CONFIG.recipe, accumulate=accumulate)
    # each part of a batch drops other blocks, so none are dropped
    model = replace(CONFIG.model, dtype=dtype)
    config = replace(CONFIG, model=model, recipe=recipe, drop_path=0.0)
    return begun(config, make_mesh(devices=DEVICES[:1]))


@pytest.fixture(scope="module")
def half() -> Started:
    """A run in float16 that has learned something: at first the head, which is zero, gives the backbone no gradient."""
    run = in_dtype("float16")
    run.seen = run.losses(CONFIG.steps)
    return run


def scaled(run: Started, scale: float) -> None:
    placed = jax.device_put(np.float32(scale), run.state.guard.scale.sharding)
    run.state = replace(run.state, guard=replace(run.state.guard, scale=placed))


def test_float16_learns_what_float32_learns(half):
    # the same with its batches in one part
    losses = in_dtype("float32", accumulate=1).losses(CONFIG.steps)
    ends = [np.mean(found[-10:]) for found in (losses, half.seen)]
    assert max(ends) < 0.9 * losses[0]
    # at three times this rate runs of float32 that begin 1e-4 apart end 3 % apart; at this one below 0.1 %
    assert half.seen[:5] == pytest.approx(losses[:5], rel=1e-3)
    assert ends[1] == pytest.approx(ends[0], rel=0.03)


def test_an_overflow_of_float16_changes_no_bit_and_the_next_step_has_half_the_scale(half):
    scaled(half, 2.0**40)
    before = on_host(half)
    row = stepped(half)
    assert np.isfinite(row["loss"])
    assert not np.isfinite(row["grad_norm"])
    assert (row["loss_scale"], row["skipped"]) == (2.0**39, 0)
    assert differ(before, on_host(half)) == set()


def test_the_gradient_does_not_depend_on_the_scale(half):
    state, batch, norms = jax.tree.map(np.asarray, half.state), half.batch(), []
    for scale in (2.0**8, 2.0**12):
        half.state = jax.device_put(state, places(half.plan, half.mesh))
        scaled(half, scale)
        half.state, logs = half.functions.step(half.state, batch)
        norms.append(float(logs["grad_norm"]))
    # as a scale is a power of two, only what is too small for float16 differs
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


@pytest.mark.parametrize(
    ("dtype", "has"), [("float32", False), ("bfloat16", False), ("float16", True)]
)
def test_only_float16_has_a_scale(dtype, has):
    run = in_dtype(dtype)
    _, logs = jax.eval_shape(run.functions.step, run.state, run.batch())
    assert ("loss_scale" in logs) == has


MACHINES = {
    "CPU": ("cpu", None, "float32"),
    "P100": ("gpu", "6.0", "float32"),
    "V100": ("gpu", "7.0", "float16"),
    "T4": ("gpu", "7.5", "float16"),
    "A100": ("gpu", "8.0", "bfloat16"),
    "B200": ("gpu", "10.0", "bfloat16"),
    "MI300": ("gpu", "gfx942", "bfloat16"),
    "TPU": ("tpu", None, "bfloat16"),
}


@pytest.mark.parametrize("name", MACHINES)
def test_the_device_chooses_the_dtype(name, monkeypatch):
    platform, capability, expected = MACHINES[name]
    device = SimpleNamespace(platform=platform)
    if capability:
        device.compute_capability = capability
    monkeypatch.setattr(jax, "devices", lambda: [device])
    assert compute_dtype("auto") == jnp.dtype(expected)
    assert compute_dtype("float16") == jnp.dtype("float16")
