"""All that a run saves, beside its place in the data; and where it lies on a mesh."""

from __future__ import annotations

import typing
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Int, UInt32

from fmjax.engine.freeze import join_stacks, merge, partition, split_stacks
from fmjax.engine.guard import Guard, fresh
from fmjax.engine.plan import Plan
from fmjax.sharding import param_shardings, replicated
from fmjax.trees import Params, flat, nested


@typing.no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """What a step takes and gives back. Params are nested dicts whose first level are the parts of the net."""

    step: Int[Array, ""]  # how many have been done
    params: Params
    ema: Params  # the average of what is trained; {} where the recipe keeps none
    opt: Any
    key: UInt32[Array, ...]  # the key's data; each step folds its number in
    guard: Guard = field(default_factory=fresh)


def begin(plan: Plan, params: Params, mesh: Mesh) -> State:
    """The state before the first step. params: on the mesh, in the layout of the disk."""
    where = places(plan, mesh)
    params = in_training(plan, params, where)
    # the moments are made where their parameters lie, as compiled code: no device holds all of them
    trained, _ = partition(params, plan.freeze)
    key = jax.random.key_data(jax.random.key(stream_seed(plan.seed, "model")))
    return State(
        step=jax.device_put(jnp.zeros((), jnp.int32), where.step),
        params=params,
        # the average is a copy, as a step gives its state's memory up, and none can be given up twice
        ema=jax.tree.map(jnp.copy, trained) if plan.ema else {},
        opt=jax.jit(plan.tx.init, out_shardings=where.opt)(trained),
        key=jax.device_put(key, where.key),
        guard=jax.device_put(fresh(), where.guard),
    )


def size(plan: Plan) -> int:
    """Bytes of a state, which are those of a checkpoint."""

    def made(params: Params) -> Any:
        trained, _ = partition(params, plan.freeze)
        return params, plan.tx.init(trained), trained if plan.ema else {}

    leaves = jax.tree.leaves(jax.eval_shape(made, plan.params))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def in_training(plan: Plan, params: Params, where: State) -> Params:
    """Parameters as they lie on disk -> as they lie in training: leading frozen blocks in a stack of their own."""
    return (
        # placed again: slices of a stack lie as the compiler leaves them
        jax.device_put(split_stacks(params, plan.freeze.blocks), where.params)
        if plan.freeze.blocks
        else params
    )


def places(plan: Plan, mesh: Mesh) -> State:
    """A state of shardings. The moments of a parameter lie where it does, where they have its shape."""
    shapes = {path: leaf.shape for path, leaf in flat(plan.params).items()}
    params = nested(net_shardings(shapes, mesh))
    trained = partition(params, plan.freeze)[0]
    like = partition(plan.params, plan.freeze)[0]
    everywhere: Any = replicated(mesh)

    def place(moment: Any, where: Any, param: Any) -> Any:
        # another optimiser of the same run has the moments of what is left out here
        if isinstance(moment, optax.MaskedNode):
            return moment
        return where if moment.shape == param.shape else everywhere

    # optax knows which leaves of its state are of parameters; counts are everywhere, and so are the rows and columns
    # that Adafactor has in the place of a moment, which are small
    opt = optax.tree_utils.tree_map_params(
        plan.tx,
        place,
        jax.eval_shape(plan.tx.init, like),
        trained,
        like,
        transform_non_params=lambda _: everywhere,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )
    return State(
        step=everywhere,
        params=params,
        ema=trained if plan.ema else {},
        opt=opt,
        key=everywhere,
        guard=jax.tree.map(lambda _: everywhere, fresh()),
    )


def net_shardings(shapes: dict[str, tuple[int, ...]], mesh: Mesh) -> dict[str, NamedSharding]:
    """Path -> sharding for the parts of a net: the layout table knows a tower's own paths, without the part's name."""
    # part by part: "head.kernel" is the "kernel" of a head
    out: dict[str, NamedSharding] = {}
    for part in dict.fromkeys(path.partition(".")[0] for path in shapes):
        inner = {
            path.partition(".")[2]: shape
            for path, shape in shapes.items()
            if path.startswith(f"{part}.")
        }
        out |= {f"{part}.{path}": place for path, place in param_shardings(inner, mesh).items()}
    return {path: out[path] for path in shapes}


def emptied(state: State) -> State:
    """The shapes and places of a state, whose memory is given back: what is restored must fit beside nothing."""
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    jax.tree.map(lambda x: x.delete(), state)
    return shapes


def handed_out(plan: Plan, state: State) -> Params:
    """The parameters that are scored and exported, as they lie in training: the average of what is trained, where the
    recipe keeps one for that."""
    if not plan.averages:
        return state.params
    return merge(state.ema, partition(state.params, plan.freeze)[1])


def to_disk(state: State) -> State:
    """The state with every tower's blocks in one stack, whatever is frozen."""
    return replace(state, params=join_stacks(state.params))


def stream_seed(seed: int, stream: str) -> int:
    """Independent randomness for the data and the model out of one seed."""
    # the name joins the seed, so that two streams of one seed share no number
    return int(np.random.SeedSequence([seed, *stream.encode()]).generate_state(1)[0])
