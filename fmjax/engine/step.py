"""One step of any task, and the pure function that its evaluation runs, compiled for a mesh."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from fmjax.engine.compiler import Options, asked
from fmjax.engine.determinism import of_same_bits
from fmjax.engine.freeze import merge, partition
from fmjax.engine.guard import after, all_finite, kept, told
from fmjax.engine.plan import Learner, Plan, prepared
from fmjax.engine.state import State, places
from fmjax.errors import UsageError
from fmjax.sharding import batch_sharding, replicated
from fmjax.tasks.task import AVERAGES, Batch, Logs, Now, Rows
from fmjax.trees import Params, flat, nested

MOMENTUM = 0.9  # share of the old in a running average, as PyTorch's BatchNorm has it
LossPart = Callable[[Params, Batch, "Int[Array, ''] | int"], tuple[Array, Logs]]
Outputs = Callable[[Params, Batch], tuple[Rows, Array]]  # and the weight of each row


@dataclass(frozen=True)
class Compiled:
    """The two functions of a plan, jitted with the places of what they take and give."""

    step: Any  # jax's own type, which can be lowered
    outputs: Outputs


def compiled(plan: Plan, mesh: Mesh) -> Compiled:
    """Nothing is compiled before the first call."""
    where = places(plan, mesh)
    options = asked(plan.compiler_options)
    if plan.deterministic:
        options |= of_same_bits(mesh)
    # the old state is given up: its memory becomes that of the new one
    step = jax.jit(
        partial(train_step, plan=plan, mesh=mesh),
        in_shardings=(where, batch_sharding(mesh)),
        out_shardings=(where, replicated(mesh)),
        donate_argnums=0,
        compiler_options=options or None,
    )
    return Compiled(step, compiled_outputs(plan, mesh, options))


def compiled_outputs(learner: Learner, mesh: Mesh, options: Options | None = None) -> Outputs:
    """What evaluation runs; its rows are whole on every device, so that each host can take them, and with them the
    weights of the rows that another host has read."""

    def outputs(params: Params, batch: Batch) -> tuple[Rows, Array]:
        return learner.outputs(params, batch), batch["weight"]

    return jax.jit(outputs, out_shardings=replicated(mesh), compiler_options=options or None)


def train_step(state: State, batch: Batch, *, plan: Plan, mesh: Mesh) -> tuple[State, Logs]:
    """One optimiser step; the batch is computed in `plan.accumulate` parts whose gradients add up in float32.

    A step whose numbers are not finite changes nothing but its own number, the schedule's and the guard, on all devices
    alike.
    """
    # frozen parameters are no argument of the loss: they cost no gradient
    trained, fixed = partition(state.params, plan.freeze)
    teacher = plan.bound(merge(state.ema, fixed)) if plan.ema else None
    # the key of a step depends on its number alone, so that a resumed run draws the same
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    batch = plan.task.mixed(batch, key)
    now = Now(state.step, plan.task.count(batch), key, teacher)
    scale = state.guard.scale

    def loss(trained: Params, part: Batch, index: Int[Array, ""] | int) -> tuple[Array, Logs]:
        net = plan.bound(merge(trained, fixed))
        value, logs = plan.task.loss(net, prepared(part, plan.images), now.for_part(index))
        return value * scale if plan.scales_loss else value, {"loss": value, **logs}

    grads, logs = summed(loss, trained, batch, plan.accumulate, mesh)
    if plan.scales_loss:
        grads = jax.tree.map(lambda gradient: gradient / scale, grads)
    # of the gradient before clipping, which would hide how it grows
    averages, norm = logs.pop(AVERAGES, {}), optax.tree.norm(grads)
    updates, opt = plan.tx.update(grads, state.opt, trained)
    moved: Any = optax.apply_updates(trained, updates)

    # nothing of this enters the state unless all of it is finite
    finite = all_finite(logs["loss"], norm, averages)
    new = (moved, averaged(fixed, averages, plan.accumulate), opt)
    moved, fixed, opt = kept(finite, new, (trained, fixed, state.opt))
    # of what is trained: what is frozen is its own average
    new_share = 1 - old_share(plan, state.step)
    ema: Any = optax.incremental_update(moved, state.ema, new_share) if plan.ema else {}
    ema = kept(finite, ema, state.ema)
    guard = after(state.guard, finite, logs["loss"], scales=plan.scales_loss)
    logs |= {"grad_norm": norm, **told(guard, scales=plan.scales_loss)}
    return State(state.step + 1, merge(moved, fixed), ema, opt, state.key, guard), logs


def old_share(plan: Plan, done: Int[Array, ""]) -> Any:
    """The share of the old average of the parameters in the new one, after so many steps."""
    # At first it is small (tf.train.ExponentialMovingAverage's num_updates): of 200 steps with a share of 0.999 four
    # fifths of the average would be the parameters before them, a head of zeros among them
    return jnp.minimum(plan.ema, (1 + done) / (10 + done)) if plan.ema_warmup else plan.ema


def averaged(fixed: Params, values: Mapping[str, Array], parts: int) -> Params:
    """Parameters that are running averages, one step on. values: their sums over the parts of a batch."""
    leaves = flat(fixed)
    unknown = [path for path in values if path not in leaves]
    if unknown:
        raise UsageError(
            f"the loss gives an average for {unknown[0]!r}, which is no parameter that it leaves alone"
        )
    # each part of a batch gave its own statistics; parts are equally large, so their mean is taken
    news = {
        path: MOMENTUM * leaves[path] + (1 - MOMENTUM) * value / parts
        for path, value in values.items()
    }
    return nested(leaves | news)


def summed(
    loss: LossPart, trained: Params, batch: Batch, parts: int, mesh: Mesh
) -> tuple[Params, Logs]:
    """The sum over the parts of a batch of a loss's gradient and logs; the parts are computed one after the other."""
    # parts are divided by the count of the whole batch already: they add up, and are not averaged
    gradient = jax.grad(loss, has_aux=True)
    if parts == 1:
        return gradient(trained, batch, 0)

    def add(total: Any, inputs: tuple[Array, Batch]) -> tuple[Any, None]:
        index, part = inputs
        return jax.tree.map(jnp.add, total, gradient(trained, part, index)), None

    # the sum has the shapes of the first part's gradient, which is only traced
    split = in_parts(batch, parts, mesh)
    first = jax.tree.map(lambda x: x[0], split)
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, trained, first, 0)
    )
    return jax.lax.scan(add, zeros, (jnp.arange(parts), split))[0]


def in_parts(batch: Batch, parts: int, mesh: Mesh) -> Batch:
    """[B ...] -> [parts B/parts ...], every device keeping the images that it has."""

    def split(x: Array) -> Array:
        # every parts-th image goes into one part: contiguous parts would move images between devices
        split = jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)
        spec = PartitionSpec(None, *batch_sharding(mesh).spec)
        return jax.lax.with_sharding_constraint(split, NamedSharding(mesh, spec))

    return jax.tree.map(split, batch)
