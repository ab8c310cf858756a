"""A dialect is a table; this module reads it in both directions, strictly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial

import numpy as np

from weights_conversion.errors import CheckpointError
from weights_conversion.report import Misfits
from weights_conversion.tensors import Index, LazyTensor, in_memory, outline, transfer
from weights_conversion.transforms import IDENTITY, Transform

Shapes = Mapping[str, tuple[int, ...]]
Names = str | tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """Torch names <-> fmjax paths. `{i}` is the block: part of the torch name, a slice of the stacked fmjax array."""

    torch: Names
    jax: Names
    transform: Transform = IDENTITY
    when: str = ""  # active only if the model has this parameter
    unless: Names = ()  # active only if it has none of these

    @property
    def keys(self) -> tuple[str, ...]:
        return _names(self.torch)

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of the arrays, the block index taken out."""
        return tuple(name.replace(".{i}.", ".") for name in _names(self.jax))

    @property
    def stacked(self) -> bool:
        return any("{i}" in key for key in self.keys)

    def active(self, shapes: Shapes) -> bool:
        """Whether the rule speaks of a model with these parameters."""
        present = all(path in shapes for path in self.paths) and (not self.when or self.when in shapes)
        return present and not any(path in shapes for path in _names(self.unless))


@dataclass(frozen=True)
class Zeros:
    """A tensor of zeros: as long as the last axis of the parameter `like`."""

    like: str


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How one family of checkpoints names and lays out its tensors."""

    name: str
    rules: tuple[Rule, ...]
    prefix: str = ""  # stands before every name of rules, constants and drop
    extras: Mapping[str, str] = field(default_factory=dict)  # pattern -> what it is; carried along byte for byte
    constants: Mapping[str, Zeros] = field(default_factory=dict)  # asserted on reading, made again on writing
    drop: Mapping[str, str] = field(default_factory=dict)  # pattern -> why it is left out
    requires: tuple[str, ...] = ()  # a file of this dialect has all of these keys ...
    forbids: tuple[str, ...] = ()  # ... and none that matches one of these patterns

    def matches(self, keys: set[str]) -> bool:
        """Whether a file with these keys can be of this dialect."""
        return keys.issuperset(self.requires) and not any(fnmatchcase(k, f) for f in self.forbids for k in keys)

    def carried(self, original: Mapping[str, LazyTensor], written: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
        """What an exported file takes from the original: its extras and what was left out.

        Raises CheckpointError if the original has anything else, for then it is not the original.
        """
        others = {key: tensor for key, tensor in original.items() if key not in written}
        unknown = [k for k in others if not _match(k, self.extras) and not _match(k, self.drop, self.prefix)]
        if unknown:
            raise CheckpointError(
                f"the base is no {self.name} file of this model: it also has {', '.join(unknown[:5])}"
            )
        return others


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


def steps(dialect: Dialect, shapes: Shapes) -> Iterator[Step]:
    """Every active rule of a dialect, at every block, for a model with parameters of these shapes."""
    for rule in dialect.rules:
        if not rule.active(shapes):
            continue
        for block in range(shapes[rule.paths[0]][0]) if rule.stacked else [None]:
            names = tuple(dialect.prefix + key.replace("{i}", str(block)) for key in rule.keys)
            yield Step(names, rule.paths, block, rule.transform)


@dataclass(frozen=True)
class Conversion:
    """A checkpoint seen as fmjax parameters: nothing has been read yet."""

    params: dict[str, LazyTensor]
    extras: dict[str, LazyTensor]
    dropped: dict[str, str]
    tensors: int  # how many of the file's tensors became parameters


def to_jax(
    file: Mapping[str, LazyTensor], dialect: Dialect, shapes: Shapes, dtype: np.dtype | None = None
) -> Conversion:
    """The parameters of the given paths and shapes out of a file's tensors, in `dtype` (None: as stored).

    Every tensor of the file must be used, an extra, a constant or declared as dropped, and every parameter filled;
    otherwise MisfitError names all that does not fit at once. Values are read later, slice by slice.
    """
    plan = list(steps(dialect, shapes))
    constants = _constants(dialect, shapes, {key for step in plan for key in step.keys})
    extras = {k: t for k, t in file.items() if _match(k, dialect.extras)}
    dropped = {k: why for k in file if (why := _match(k, dialect.drop, dialect.prefix))}
    misfits = Misfits(dialect.name)
    expected = {key: shape for step in plan for key, shape in zip(step.keys, step.torch_shapes(shapes), strict=True)}
    expected |= {key: array.shape for key, array in constants.items()}
    misfits.compare({k: t.shape for k, t in file.items() if k not in extras and k not in dropped}, expected)
    misfits.unfilled = sorted(set(shapes) - {path for step in plan for path in step.paths})
    misfits.raise_if_any()
    for key, value in constants.items():
        if (file[key].read(()) != value).any():
            raise CheckpointError(
                f"{key} must be all zeros in the {dialect.name} dialect, and is not; name another --dialect"
            )
    params = {path: _parameter(path, plan, file, shapes, dtype) for path in shapes}
    return Conversion(params, extras, dropped, len(file) - len(extras) - len(dropped))


def to_torch(
    params: Mapping[str, LazyTensor],
    dialect: Dialect,
    *,
    extras: Mapping[str, LazyTensor] | None = None,
    leave_out: frozenset[str] = frozenset(),
) -> dict[str, LazyTensor]:
    """The tensors of a checkpoint of this dialect; `extras` are added as they are. Raises CheckpointError for a
    parameter that the dialect has no place for, unless it is in `leave_out`."""
    shapes = {path: tensor.shape for path, tensor in params.items() if path not in leave_out}
    plan = list(steps(dialect, shapes))
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


def _names(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _match(key: str, patterns: Mapping[str, str], prefix: str = "") -> str:
    return next((reason for pattern, reason in patterns.items() if fnmatchcase(key, prefix + pattern)), "")


def _constants(dialect: Dialect, shapes: Shapes, written: set[str]) -> dict[str, np.ndarray]:
    named = {dialect.prefix + key: zeros for key, zeros in dialect.constants.items()}
    return {
        k: np.zeros(shapes[z.like][-1:], np.float32) for k, z in named.items() if z.like in shapes and k not in written
    }


def _parameter(
    path: str, plan: list[Step], file: Mapping[str, LazyTensor], shapes: Shapes, dtype: np.dtype | None
) -> LazyTensor:
    own = [step for step in plan if path in step.paths]
    stored = np.result_type(*{file[key].dtype for step in own for key in step.keys})
    wanted = stored if dtype is None else np.dtype(dtype)

    def read_step(step: Step) -> np.ndarray:
        return step.transform.do(tuple(file[key].read(()) for key in step.keys))[step.paths.index(path)]

    def read(index: Index) -> np.ndarray:
        if own[0].block is None:
            return np.array(read_step(own[0])[index], wanted)
        blocks = range(shapes[path][0])[index[0] if index else slice(None)]
        rest = index[1:]
        out = np.empty((len(blocks), *outline(shapes[path][1:])[rest].shape), wanted)
        for row, block in enumerate(blocks):
            transfer(out[row], read_step(own[block])[rest])
        return out

    return LazyTensor(tuple(shapes[path]), wanted, read)


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
