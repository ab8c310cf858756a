"""What of a net is not trained, and the stacks of blocks that are split for it.

Blocks whose every parameter is frozen, from the first one on, become a stack of their own (`frozen_blocks`) while a run
trains: they cost no gradient and no optimiser memory. On disk, and outside of training, all blocks lie in one stack.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var

from fmjax.errors import UsageError
from fmjax.trees import Params, first_match, flat, leaf_paths, nested

Shapes = Mapping[str, tuple[int, ...]]
Table = Sequence[tuple[str, float]]
# a parameter of stacked blocks: the part, which of its stacks, and the path inside a block
STACK = re.compile(r"(?P<part>\w+)\.(?P<stack>blocks|frozen_blocks)\.(?P<rest>.+)")


@dataclass(frozen=True)
class Freeze:
    """What is not trained: of each part so many leading blocks, and these parameters (paths after the split)."""

    blocks: Mapping[str, int]
    paths: frozenset[str]


def names(path: str, shape: Sequence[int], blocks: Mapping[str, int] | None = None) -> list[str]:
    """The names by which tables know a parameter: one for each block of a stacked one, backbone.blocks.3.norm1.scale.

    blocks: how many leading blocks of a part lie in a stack of their own, before this one.
    """
    found = STACK.fullmatch(path)
    if not found:
        return [path]
    # frozen_blocks are the first ones; blocks go on where those end
    part, stack, rest = found.groups()
    start = (blocks or {}).get(part, 0) if stack == "blocks" else 0
    return [f"{part}.blocks.{start + index}.{rest}" for index in range(shape[0])]


def rate(name: str, rates: Table) -> float:
    """The learning rate of a parameter in units of the recipe's: 0 is not trained."""
    # what no row names learns at the recipe's own rate
    return first_match(name, (*rates, (r".*", 1.0)))


def frozen(
    shapes: Shapes, rates: Table, unused: frozenset[str] = frozenset(), *, said: str = ""
) -> Freeze:
    """Resolves a table of rates, and what the loss does not depend on, against a net's parameters.

    said: the flags that the table comes from, where they are not the table's own.

    Leading blocks may be frozen as a whole, and a parameter may be frozen in all other blocks. Raises UsageError for
    any other partial freeze, for a pattern that matches nothing, and where nothing would be left to train.
    """
    _check_patterns(shapes, rates)
    still = {path: _still(path, shape, rates, unused) for path, shape in shapes.items()}
    depths = tower_depths(shapes)
    leading = {part: _leading(still, part) for part in depths}

    # behind the leading blocks a parameter is frozen in every block or in none; of a head there is but one
    paths: set[str] = set()
    for path, flags in still.items():
        start = leading.get(_part(path), 0)
        if all(flags[start:]):
            paths.add(path)
        elif any(flags[start:]):
            raise UsageError(_partial(path, flags, start))
    if paths == set(shapes):
        flags = said or f"--recipe.rates {shown(rates)}"
        how = f"{flags} leaves nothing to train; loosen a pattern"
        raise UsageError(
            how if rates else "the loss depends on no parameter, so there is nothing to train"
        )

    # all blocks frozen: one stack, left out of the gradient as a whole
    split = {part: count for part, count in leading.items() if 0 < count < depths[part]}
    stacks = [path for path in shapes if _part(path) in split]
    return Freeze(
        split,
        frozenset(paths | {path.replace(".blocks.", ".frozen_blocks.", 1) for path in stacks}),
    )


def _part(path: str) -> str:
    """The part whose stacked blocks a parameter belongs to; "" for all others."""
    found = STACK.fullmatch(path)
    return found["part"] if found else ""


def _still(path: str, shape: Sequence[int], rates: Table, unused: frozenset[str]) -> list[bool]:
    """Whether a parameter is not trained, for each block of a stacked one."""
    return [path in unused or rate(name, rates) == 0 for name in names(path, shape)]


def _partial(path: str, flags: Sequence[bool], start: int) -> str:
    which = [index for index, flag in enumerate(flags) if flag and index >= start]
    return (
        f"{path} would be frozen in blocks {which} only; freeze all parameters of the first blocks, or one parameter "
        f"in every block (--recipe.rates)"
    )


def tower_depths(shapes: Shapes) -> dict[str, int]:
    """How many blocks each part has; heads, which have none, are left out."""
    return {
        found["part"]: shape[0]
        for path, shape in shapes.items()
        if (found := STACK.fullmatch(path))
    }


def unused(loss: Callable[..., Any], params: Params, *rest: Any) -> frozenset[str]:
    """The paths of parameters that a function does not depend on: a projection, say, below a classifier that sees the
    tokens before it. Training would only let them decay.

    All arguments may be shapes. What one operation takes, as a scan over blocks does, is used as a whole.
    """
    jaxpr = jax.make_jaxpr(loss)(params, *rest).jaxpr
    # backwards from the output: what is needed, and what that is computed of
    needed = set(filter(_is_variable, jaxpr.outvars))
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            needed.update(filter(_is_variable, equation.invars))
    paths = leaf_paths(params)
    return frozenset(
        path for path, variable in zip(paths, jaxpr.invars, strict=False) if variable not in needed
    )


def _is_variable(atom: Any) -> bool:
    return isinstance(atom, Var)  # a literal cannot be hashed


def _leading(still: Mapping[str, Sequence[bool]], part: str) -> int:
    """How many of a part's blocks, from the first on, have no parameter that is trained."""
    stacks = [flags for path, flags in still.items() if path.startswith(f"{part}.blocks.")]
    # the first False is the first block that is trained; one is put behind the last, in case there is none
    return int(np.argmin([*np.all(stacks, 0), False]))


def _check_patterns(shapes: Shapes, rates: Table) -> None:
    # a pattern that matches nothing is a slip, and would train what was to be left alone
    known = [name for path, shape in shapes.items() for name in names(path, shape)]
    for pattern, _ in rates:
        if not any(re.fullmatch(pattern, name) for name in known):
            raise UsageError(
                f"--recipe.rates {pattern!r} matches no parameter; names are like {known[0]}, {known[-1]}"
            )


def shown(rates: Table) -> str:
    """A table as it is typed."""
    return " ".join(f"{pattern} {factor:g}" for pattern, factor in rates)


def partition(params: Params, freeze: Freeze) -> tuple[Params, Params]:
    """(trained, frozen), two nested dicts."""
    leaves = flat(params)
    trained = {path: leaf for path, leaf in leaves.items() if path not in freeze.paths}
    return nested(trained), nested(
        {path: leaf for path, leaf in leaves.items() if path in freeze.paths}
    )


def merge(trained: Params, rest: Params) -> Params:
    """Undoes `partition`."""
    return nested(flat(trained) | flat(rest))


def with_average(params: Params, average: Params) -> Params:
    """The parameters as they lie on disk, with the average in the place of what it is of: of leading blocks that are
    not trained there is none."""

    def whole(path: str, leaf: Any) -> Any:
        left = leaves[path].shape[0] - leaf.shape[0] if STACK.fullmatch(path) else 0
        return jnp.concatenate([leaves[path][:left], leaf]) if left else leaf

    leaves = flat(params)
    return nested(leaves | {path: whole(path, leaf) for path, leaf in flat(average).items()})


def split_stacks(params: Params, blocks: Mapping[str, int]) -> Params:
    """The leading blocks of some parts in a stack of their own, `frozen_blocks`."""
    # shallow copies: only the two stacks are new
    out = dict(params)
    for part, count in blocks.items():
        inner = dict(params[part])
        inner["frozen_blocks"] = jax.tree.map(lambda leaf, n=count: leaf[:n], inner["blocks"])
        inner["blocks"] = jax.tree.map(lambda leaf, n=count: leaf[n:], inner["blocks"])
        out[part] = inner
    return out


def join_stacks(params: Params) -> Params:
    """Undoes `split_stacks`: the layout on disk, whatever was frozen."""
    out: dict[str, Any] = {}
    for part, inner in params.items():
        rest = dict(inner)
        # the leading blocks first, in the order of depth
        leading = rest.pop("frozen_blocks", None)
        if leading is not None:
            rest["blocks"] = jax.tree.map(
                lambda a, b: jnp.concatenate([a, b]), leading, rest["blocks"]
            )
        out[part] = rest
    return out
