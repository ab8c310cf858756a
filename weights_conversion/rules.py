"""Reading a dialect's table in both directions, strictly."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from weights_conversion.dialect import Dialect, Fact, Rule, Shapes
from weights_conversion.errors import CheckpointError, quoted
from weights_conversion.kinds import check_kinds, not_finite
from weights_conversion.report import Misfits
from weights_conversion.tensors import (
    CHUNK_BYTES,
    Index,
    LazyTensor,
    in_memory,
    outline,
    transfer,
    transfer_finite,
)
from weights_conversion.transforms import ShapedTransform, Transform

MAX_FACT_BYTES = 4096  # of an extra that decides something: a few indices, or the periods of a head


@dataclass(frozen=True)
class Step:
    """One rule at one block; block is None for what is no stack."""

    keys: tuple[str, ...]
    paths: tuple[str, ...]
    block: int | None
    transform: Transform

    def torch_shapes(self, shapes: Shapes) -> list[tuple[int, ...]]:
        """What the file's tensors must look like for parameters of these shapes."""
        stacked = 0 if self.block is None else 1  # the depth axis, which no file has
        # undone on arrays of one byte: what it does to their shapes is what it does to any
        outlines = tuple(outline(shapes[path][stacked:]) for path in self.paths)
        return [tensor.shape for tensor in self.transform.undo(outlines)]


def steps(dialect: Dialect, shapes: Shapes, heads: int = 0) -> Iterator[Step]:
    """Every active rule of a dialect, at every block, for a model with parameters of these shapes."""
    for rule in dialect.rules:
        if not rule.active(shapes):
            continue
        transform = _for_model(rule, shapes, heads)
        if not rule.stacked:
            yield Step(_file_keys(rule, dialect, 0), rule.paths, None, transform)
            continue
        for block in range(shapes[rule.paths[0]][0]):
            yield Step(_file_keys(rule, dialect, block), rule.paths, block, transform)


def _file_keys(rule: Rule, dialect: Dialect, block: int) -> tuple[str, ...]:
    """The names that a rule's tensors have in a file, at one block."""
    return tuple(dialect.full_prefix + key.replace("{i}", str(block)) for key in rule.keys)


def _for_model(rule: Rule, shapes: Shapes, heads: int) -> Transform:
    # most transforms are the same for every model; the others are made for this one
    if isinstance(rule.transform, Transform):
        return rule.transform
    if isinstance(rule.transform, ShapedTransform):
        return rule.transform.for_shapes(tuple(shapes[path] for path in rule.paths))
    if heads < 1:
        raise ValueError(
            f"{rule.torch}: {rule.transform.name} needs the number of heads; pass heads"
        )
    return rule.transform.for_heads(heads)


def reads_alike(one: Dialect, other: Dialect, shapes: Shapes, heads: int = 0) -> bool:
    """Whether two dialects make the same parameters of the same tensors, where those have these shapes."""
    # cheap to tell, before both plans are made
    if (one.renames, one.constants) != (other.renames, other.constants):
        return False
    return _signatures(one, shapes, heads) == _signatures(other, shapes, heads)


def _signatures(dialect: Dialect, shapes: Shapes, heads: int) -> set[tuple[object, ...]]:
    plan = steps(dialect, shapes, heads)
    return {(step.keys, step.paths, step.block, step.transform.name) for step in plan}


def lossy_keys(dialect: Dialect, shapes: Shapes, heads: int = 0) -> dict[str, str]:
    """The tensors of a file that may come back with other values, and why."""
    lossy = [step for step in steps(dialect, shapes, heads) if step.transform.lossy]
    return {key: step.transform.lossy for step in lossy for key in step.keys}


@dataclass(frozen=True)
class Conversion:
    """A checkpoint seen as fmjax parameters: nothing has been read yet."""

    params: dict[str, LazyTensor]
    extras: dict[str, LazyTensor]
    dropped: dict[str, str]
    tensors: int  # how many of the file's tensors became parameters
    # fields of the spec that the file's extras decide
    facts: dict[str, Any] = field(default_factory=dict)


def to_jax(
    file: Mapping[str, LazyTensor],
    dialect: Dialect,
    shapes: Shapes,
    dtype: np.dtype | None = None,
    *,
    heads: int = 0,
) -> Conversion:
    """The parameters of the given paths and shapes out of a file's tensors, in `dtype` (None: as stored).

    Every tensor of the file must be used, an extra, a constant or declared as dropped, and every parameter filled;
    otherwise MisfitError names all that does not fit at once. What becomes a parameter must be of a float kind, and
    finite; extras may be of any. Values are read later, slice by slice, and CheckpointError is raised then where one is
    not finite in `dtype`. `heads` is asked for by dialects that keep attention heads as an axis.
    """
    file = dialect.renamed(file)
    _check_refused(file, dialect)
    plan = list(steps(dialect, shapes, heads))
    constants = _constants(dialect, shapes, _keys(plan))
    expected = _expected(plan, constants, shapes)
    check_kinds(file, expected)
    # every key falls into exactly one class: expected, an extra, left out for a reason, or a misfit
    others = [key for key in file if key not in expected]
    extras = {key: file[key] for key in others if dialect.extra_kind(key)}
    reasons = {key: dialect.dropped(key) for key in others if key not in extras}
    dropped = {key: why for key, why in reasons.items() if why}
    beside = extras.keys() | dropped.keys()
    used = {key: tensor for key, tensor in file.items() if key not in beside}
    _check_fit(used, expected, plan, shapes, dialect)
    _check_constants(file, constants, dialect)
    facts = _facts_in(file, dialect)
    params = {path: _parameter(path, plan, file, shapes, dtype) for path in shapes}
    return Conversion(params, extras, dropped, len(used), facts)


def _check_refused(file: Mapping[str, LazyTensor], dialect: Dialect) -> None:
    """Raises CheckpointError for a tensor with which the model would be another one."""
    for key in file:
        if why := dialect.refusal(key):
            raise CheckpointError(f"the file has {quoted(key)}: {why}")


def _keys(plan: list[Step]) -> set[str]:
    return {key for step in plan for key in step.keys}


def _expected(
    plan: list[Step], constants: Mapping[str, np.ndarray], shapes: Shapes
) -> dict[str, tuple[int, ...]]:
    """The names and shapes of all tensors that a file of such a model has."""
    expected: dict[str, tuple[int, ...]] = {}
    for step in plan:
        expected |= zip(step.keys, step.torch_shapes(shapes), strict=True)
    return expected | {key: array.shape for key, array in constants.items()}


def _check_fit(
    used: Mapping[str, LazyTensor],
    expected: Mapping[str, tuple[int, ...]],
    plan: list[Step],
    shapes: Shapes,
    dialect: Dialect,
) -> None:
    """Raises MisfitError with all that does not fit: names, shapes, and parameters that nothing fills."""
    # all of it at once: who mends a table or a file wants to see more than the first
    misfits = Misfits(dialect.name)
    misfits.compare({key: tensor.shape for key, tensor in used.items()}, expected)
    misfits.unfilled = _homeless(plan, shapes)
    misfits.raise_if_any()


def _homeless(plan: list[Step], shapes: Shapes) -> list[str]:
    """The parameters that no step has a place for."""
    return sorted(set(shapes) - {path for step in plan for path in step.paths})


def _check_constants(
    file: Mapping[str, LazyTensor], constants: Mapping[str, np.ndarray], dialect: Dialect
) -> None:
    """Raises CheckpointError where a tensor that is left out of the model is not what it always is."""
    for key, value in constants.items():
        if (file[key].read(()) != value).any():
            wanted = "what the original makes it" if value.any() else "all zeros"
            raise CheckpointError(
                f"{key} must be {wanted} in the {dialect.name} dialect, and is not; name another --dialect"
            )


def _facts_in(file: Mapping[str, LazyTensor], dialect: Dialect) -> dict[str, Any]:
    """What the extras say of the spec. Raises CheckpointError for values that say nothing."""
    facts: dict[str, Any] = {}
    # a training checkpoint may keep them outside of what its wrapper put before the parameters
    for key, fact in dialect.facts.items():
        for place in dict.fromkeys((key, dialect.container + key)):
            if place in file:
                facts |= _fact(place, file[place], fact)
    return facts


def _fact(key: str, tensor: LazyTensor, fact: Fact) -> Mapping[str, Any]:
    """What one extra says. Its values are anybody's, so whatever a table's function trips over is the file's fault."""
    try:
        if tensor.nbytes > MAX_FACT_BYTES or tensor.dtype.kind == "c":
            raise ValueError(f"it is {tensor.nbytes:,} bytes of {tensor.dtype.name}")
        with np.errstate(over="ignore", invalid="ignore"):
            return fact(tensor.read(()))
    except CheckpointError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{key} holds nothing that it can: {error}") from error


def to_torch(
    params: Mapping[str, LazyTensor],
    dialect: Dialect,
    *,
    extras: Mapping[str, LazyTensor] | None = None,
    leave_out: frozenset[str] = frozenset(),
    heads: int = 0,
) -> dict[str, LazyTensor]:
    """The tensors of a checkpoint of this dialect; `extras` are added as they are. Raises CheckpointError for a
    parameter that the dialect has no place for, unless it is in `leave_out`."""
    shapes = {path: tensor.shape for path, tensor in params.items() if path not in leave_out}
    plan = list(steps(dialect, shapes, heads))
    homeless = _homeless(plan, shapes)
    if homeless:
        raise CheckpointError(
            f"the {dialect.name} dialect has no place for {', '.join(homeless)}; export to another dialect, or "
            f"without the classifier (--no-classifier)"
        )
    out = {key: tensor for step in plan for key, tensor in _tensors(step, params, shapes)}
    # constants are made again in the type that the file has
    dtype = next(iter(params.values())).dtype
    for key, array in _constants(dialect, shapes, set(out)).items():
        out[key] = in_memory(array.astype(dtype))
    more = {key: tensor for key, tensor in (extras or {}).items() if key not in out}
    return out | more


def native(shapes: Shapes) -> Dialect:
    """fmjax's own names: every array as it is, extras under `extras.`."""
    rules = tuple(Rule(path, path) for path in shapes)
    return Dialect(name="fmjax", rules=rules, extras={"extras.*": "carried from the original file"})


def _constants(dialect: Dialect, shapes: Shapes, written: set[str]) -> dict[str, np.ndarray]:
    """The constants of a model of these shapes, but those whose names its own parameters have."""
    out: dict[str, np.ndarray] = {}
    for template, constant in dialect.constants.items():
        if constant.like not in shapes:
            continue
        # a template with a block in it stands for one tensor a block
        blocks = shapes[constant.like][0] if "{i}" in template else 1
        for block in range(blocks):
            key = dialect.full_prefix + template.replace("{i}", str(block))
            if key not in written:
                out[key] = constant.values(shapes)
    return out


def _parameter(
    path: str,
    plan: list[Step],
    file: Mapping[str, LazyTensor],
    shapes: Shapes,
    dtype: np.dtype | None,
) -> LazyTensor:
    """A parameter as what reads it out of the file: block by block where it is a stack."""
    # a stack is filled by one step a block, which the plan has in order
    own = [step for step in plan if path in step.paths]
    if dtype is None:
        dtype = _common(file[key].dtype for step in own for key in step.keys)
    origin = _Origin(path, own, file, np.dtype(dtype), tuple(shapes[path]))
    return LazyTensor(origin.shape, origin.dtype, origin.read)


@dataclass(frozen=True)
class _Origin:
    """Where one parameter comes from: one step, or one a block."""

    path: str
    steps: list[Step]
    file: Mapping[str, LazyTensor]
    dtype: np.dtype
    shape: tuple[int, ...]

    def read(self, index: Index) -> np.ndarray:
        """A part of the parameter."""
        if self.steps[0].block is None:
            return self._made(self.steps[0], index)
        # the first slice chooses blocks, the others a part of each
        depth = index[0] if index else slice(None)
        chosen, rest = self.steps[depth], index[1:]
        part = outline(self.shape[1:])[rest].shape
        out = np.empty((len(chosen), *part), self.dtype)
        if out.nbytes <= CHUNK_BYTES:
            for row, step in enumerate(chosen):
                self._copy(step, rest, out[row])
        else:  # copies of numpy run beside each other
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                list(pool.map(self._copy, chosen, itertools.repeat(rest), out))
        return out

    def _made(self, step: Step, index: Index) -> np.ndarray:
        values = self._values(step, index)
        out = np.empty(values.shape, self.dtype)
        self._checked_copy(step, values, out)
        return out

    def _copy(self, step: Step, index: Index, out: np.ndarray) -> None:
        self._checked_copy(step, self._values(step, index), out)

    def _values(self, step: Step, index: Index) -> np.ndarray:
        """A part of what a step makes, as the file has it: most often a view."""
        tensors = tuple(self.file[key].read(()) for key in step.keys)
        return step.transform.do(tensors)[step.paths.index(self.path)][index]

    def _checked_copy(self, step: Step, values: np.ndarray, out: np.ndarray) -> None:
        """Into `out`, in its type; looked through for what is no number on the way."""
        if not transfer_finite(out, values):
            raise not_finite(self.file, step.keys, self.dtype)


def _common(dtypes: Iterable[np.dtype]) -> np.dtype:
    """The type that holds all of them: float32 for float16 beside bfloat16, which have none in numpy."""
    found = set(dtypes)
    try:
        return np.result_type(*found)
    except TypeError:
        return np.dtype(np.float32)


def _tensors(
    step: Step, params: Mapping[str, LazyTensor], shapes: Shapes
) -> Iterator[tuple[str, LazyTensor]]:
    """The tensors that a step writes, with their names in the file."""

    def read_one(position: int, part: Index) -> np.ndarray:
        # a rule that joins parameters makes its tensor of all of them, even for a part
        value = step.transform.undo(_arrays(step, params))[position][part]
        out = np.empty(value.shape, value.dtype)
        transfer(out, value)
        return out

    dtype = params[step.paths[0]].dtype
    for position, (key, shape) in enumerate(zip(step.keys, step.torch_shapes(shapes), strict=True)):
        yield key, LazyTensor(shape, dtype, partial(read_one, position))


def _arrays(step: Step, params: Mapping[str, LazyTensor]) -> tuple[np.ndarray, ...]:
    """The parameters of a step, at its block."""
    if step.block is None:
        return tuple(params[path].read(()) for path in step.paths)
    # a slice of one, since parameters are read by slices
    block = slice(step.block, step.block + 1)
    return tuple(params[path].read((block,))[0] for path in step.paths)
