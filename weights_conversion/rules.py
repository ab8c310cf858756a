"""Reading a dialect's table in both directions, strictly."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from weights_conversion.dialect import Dialect, Rule, Shapes
from weights_conversion.errors import CheckpointError, quoted
from weights_conversion.kinds import check_kinds, not_finite
from weights_conversion.report import Misfits
from weights_conversion.tensors import CHUNK_BYTES, Index, LazyTensor, in_memory, outline, transfer, transfer_finite
from weights_conversion.transforms import ShapedTransform, Transform

MAX_FACT_BYTES = 4096  # of an extra that decides something: a few indices, or the periods of a head


@dataclass(frozen=True)
class Step:
    """One rule at one block."""

    keys: tuple[str, ...]
    paths: tuple[str, ...]
    block: int | None
    transform: Transform

    def torch_shapes(self, shapes: Shapes) -> list[tuple[int, ...]]:
        """What the file's tensors must look like for parameters of these shapes."""
        lead = 0 if self.block is None else 1
        return [a.shape for a in self.transform.undo(tuple(outline(shapes[p][lead:]) for p in self.paths))]


def steps(dialect: Dialect, shapes: Shapes, heads: int = 0) -> Iterator[Step]:
    """Every active rule of a dialect, at every block, for a model with parameters of these shapes."""
    for rule in dialect.rules:
        if not rule.active(shapes):
            continue
        for block in range(shapes[rule.paths[0]][0]) if rule.stacked else [None]:
            names = tuple(dialect.start + key.replace("{i}", str(block)) for key in rule.keys)
            yield Step(names, rule.paths, block, _for_model(rule, shapes, heads))


def _for_model(rule: Rule, shapes: Shapes, heads: int) -> Transform:
    if isinstance(rule.transform, Transform):
        return rule.transform
    if isinstance(rule.transform, ShapedTransform):
        return rule.transform.for_shapes(tuple(shapes[path] for path in rule.paths))
    if heads < 1:
        raise ValueError(f"{rule.torch}: {rule.transform.name} needs the number of heads; pass heads")
    return rule.transform.for_heads(heads)


def reads_alike(one: Dialect, other: Dialect, shapes: Shapes, heads: int = 0) -> bool:
    """Whether two dialects make the same parameters of the same tensors, where those have these shapes."""
    ours, theirs = (
        {(step.keys, step.paths, step.block, step.transform.name) for step in steps(dialect, shapes, heads)}
        for dialect in (one, other)
    )
    return ours == theirs and (one.respell, one.constants) == (other.respell, other.constants)


def lossy_keys(dialect: Dialect, shapes: Shapes, heads: int = 0) -> dict[str, str]:
    """The tensors of a file that may come back with other values, and why."""
    return {
        key: step.transform.lossy for step in steps(dialect, shapes, heads) for key in step.keys if step.transform.lossy
    }


@dataclass(frozen=True)
class Conversion:
    """A checkpoint seen as fmjax parameters: nothing has been read yet."""

    params: dict[str, LazyTensor]
    extras: dict[str, LazyTensor]
    dropped: dict[str, str]
    tensors: int  # how many of the file's tensors became parameters
    facts: dict[str, Any] = field(default_factory=dict)  # fields of the spec that the file's extras decide


def to_jax(
    file: Mapping[str, LazyTensor], dialect: Dialect, shapes: Shapes, dtype: np.dtype | None = None, *, heads: int = 0
) -> Conversion:
    """The parameters of the given paths and shapes out of a file's tensors, in `dtype` (None: as stored).

    Every tensor of the file must be used, an extra, a constant or declared as dropped, and every parameter filled;
    otherwise MisfitError names all that does not fit at once. What becomes a parameter must be of a float kind, and
    finite; extras may be of any. Values are read later, slice by slice, and CheckpointError is raised then where one is
    not finite in `dtype`. `heads` is asked for by dialects that keep attention heads as an axis.
    """
    file = dialect.spelled(file)
    for key in file:
        if why := dialect.refused(key):
            raise CheckpointError(f"the file has {quoted(key)}: {why}")
    plan = list(steps(dialect, shapes, heads))
    constants = _constants(dialect, shapes, {key for step in plan for key in step.keys})
    expected = {key: shape for step in plan for key, shape in zip(step.keys, step.torch_shapes(shapes), strict=True)}
    expected |= {key: array.shape for key, array in constants.items()}
    check_kinds(file, expected)
    extras = {k: t for k, t in file.items() if k not in expected and dialect.carries(k)}
    dropped = {k: why for k in file if k not in expected and k not in extras and (why := dialect.dropped(k))}
    misfits = Misfits(dialect.name)
    misfits.compare({k: t.shape for k, t in file.items() if k not in extras and k not in dropped}, expected)
    misfits.unfilled = sorted(set(shapes) - {path for step in plan for path in step.paths})
    misfits.raise_if_any()
    for key, value in constants.items():
        if (file[key].read(()) != value).any():
            found = "all zeros" if not value.any() else "what the original makes it"
            raise CheckpointError(
                f"{key} must be {found} in the {dialect.name} dialect, and is not; name another --dialect"
            )
    told = _told(file, dialect)
    params = {path: _parameter(path, plan, file, shapes, dtype) for path in shapes}
    return Conversion(params, extras, dropped, len(file) - len(extras) - len(dropped), told)


def _told(file: Mapping[str, LazyTensor], dialect: Dialect) -> dict[str, Any]:
    """What the extras say of the spec. Raises CheckpointError for values that say nothing."""
    told: dict[str, Any] = {}
    # a training checkpoint may keep them outside of what its wrapper put before the parameters
    facts = {lead + key: tell for key, tell in dialect.facts.items() for lead in ("", dialect.lead)}
    for key, tell in facts.items():
        tensor = file.get(key)
        if tensor is None:
            continue
        try:
            if tensor.nbytes > MAX_FACT_BYTES or tensor.dtype.kind == "c":
                raise ValueError(f"it is {tensor.nbytes:,} bytes of {tensor.dtype.name}")
            with np.errstate(over="ignore", invalid="ignore"):
                told |= tell(tensor.read(()))
        except CheckpointError:
            raise
        except (ValueError, TypeError, OverflowError) as error:
            raise CheckpointError(f"{key} holds nothing that it can: {error}") from error
    return told


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
    homeless = sorted(set(shapes) - {path for step in plan for path in step.paths})
    if homeless:
        raise CheckpointError(
            f"the {dialect.name} dialect has no place for {', '.join(homeless)}; export to another dialect, or "
            f"without the classifier (--no-classifier)"
        )
    out = {key: tensor for step in plan for key, tensor in _tensors(step, params, shapes)}
    for key, array in _constants(dialect, shapes, set(out)).items():
        out[key] = in_memory(array.astype(next(iter(params.values())).dtype))
    return out | {key: t for key, t in (extras or {}).items() if key not in out}


def native(shapes: Shapes) -> Dialect:
    """fmjax's own names: every array as it is, extras under `extras.`."""
    rules = tuple(Rule(path, path) for path in shapes)
    return Dialect(name="fmjax", rules=rules, extras={"extras.*": "carried from the original file"})


def _constants(dialect: Dialect, shapes: Shapes, written: set[str]) -> dict[str, np.ndarray]:
    out = {}
    for template, constant in dialect.constants.items():
        if constant.like not in shapes:
            continue
        for block in range(shapes[constant.like][0]) if "{i}" in template else [0]:
            key = dialect.start + template.replace("{i}", str(block))
            out |= {} if key in written else {key: constant.values(shapes)}
    return out


def _parameter(
    path: str, plan: list[Step], file: Mapping[str, LazyTensor], shapes: Shapes, dtype: np.dtype | None
) -> LazyTensor:
    own = [step for step in plan if path in step.paths]
    wanted = _common(file[key].dtype for step in own for key in step.keys) if dtype is None else np.dtype(dtype)

    def copy(step: Step, index: Index, out: np.ndarray | None = None) -> np.ndarray:
        """A part of what a step makes, in `out`; looked through for what is no number on the way."""
        values = step.transform.do(tuple(file[key].read(()) for key in step.keys))[step.paths.index(path)][index]
        out = np.empty(values.shape, wanted) if out is None else out
        if not transfer_finite(out, values):
            raise not_finite(file, step.keys, wanted)
        return out

    def read(index: Index) -> np.ndarray:
        if own[0].block is None:
            return copy(own[0], index)
        blocks = range(shapes[path][0])[index[0] if index else slice(None)]
        rest = index[1:]
        out = np.empty((len(blocks), *outline(shapes[path][1:])[rest].shape), wanted)

        def fill(row: int) -> None:
            copy(own[blocks[row]], rest, out[row])

        if out.nbytes <= CHUNK_BYTES:
            for row in range(len(blocks)):
                fill(row)
        else:  # copies of numpy run beside each other
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                list(pool.map(fill, range(len(blocks))))
        return out

    return LazyTensor(tuple(shapes[path]), wanted, read)


def _common(dtypes: Iterable[np.dtype]) -> np.dtype:
    """The type that holds all of them: float32 for float16 beside bfloat16, which have none in numpy."""
    found = set(dtypes)
    try:
        return np.result_type(*found)
    except TypeError:
        return np.dtype(np.float32)


def _tensors(step: Step, params: Mapping[str, LazyTensor], shapes: Shapes) -> Iterator[tuple[str, LazyTensor]]:
    index = () if step.block is None else (slice(step.block, step.block + 1),)
    lead = 0 if step.block is None else 1

    def read_all() -> tuple[np.ndarray, ...]:
        arrays = tuple(params[path].read(index) for path in step.paths)
        return step.transform.undo(tuple(a[0] for a in arrays) if lead else arrays)

    def read_one(position: int, part: Index) -> np.ndarray:
        value = read_all()[position][part]
        out = np.empty(value.shape, value.dtype)
        transfer(out, value)
        return out

    dtype = params[step.paths[0]].dtype
    for position, (key, shape) in enumerate(zip(step.keys, step.torch_shapes(shapes), strict=True)):
        yield key, LazyTensor(shape, dtype, partial(read_one, position))
