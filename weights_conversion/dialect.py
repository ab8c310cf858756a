"""What a dialect is: a table of rules, and how a file of it is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from weights_conversion.errors import CheckpointError, listed
from weights_conversion.tensors import LazyTensor
from weights_conversion.transforms import IDENTITY, HeadTransform, ShapedTransform, Transform

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Names = str | tuple[str, ...]
Fact = Callable[[np.ndarray], Mapping[str, Any]]


def as_tuple(given: Names) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given


@dataclass(frozen=True)
class Rule:
    """Torch names <-> fmjax paths. `{i}` is the block: part of the torch name, a slice of the stacked fmjax array."""

    torch: Names
    jax: Names
    transform: Transform | HeadTransform | ShapedTransform = IDENTITY
    when: Names = ()  # active only if the model has one of these parameters
    unless: Names = ()  # active only if it has none of these

    @property
    def keys(self) -> tuple[str, ...]:
        return as_tuple(self.torch)

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of the arrays, the block index taken out."""
        return tuple(name.replace(".{i}.", ".") for name in as_tuple(self.jax))

    @property
    def stacked(self) -> bool:
        return any("{i}" in key for key in self.keys)

    def under(self, parent: str) -> Rule:
        """The rule for files with something before its names."""
        if isinstance(self.torch, str):
            return replace(self, torch=parent + self.torch)
        return replace(self, torch=tuple(parent + key for key in self.torch))

    def active(self, parameters: Collection[str]) -> bool:
        """Whether the rule speaks of a model with these parameters."""
        if not all(path in parameters for path in self.paths):
            return False
        if self.when and not any(path in parameters for path in as_tuple(self.when)):
            return False
        return not any(path in parameters for path in as_tuple(self.unless))


@dataclass(frozen=True)
class Constant:
    """A tensor whose values are known: one value for every part of a vector that is `len(parts)` times as long as the
    last axis of the parameter `like`."""

    like: str
    parts: tuple[float, ...]

    def values(self, shapes: Shapes) -> np.ndarray:
        length = shapes[self.like][-1]
        return np.repeat(np.asarray(self.parts, np.float32), length)


def zeros(like: str) -> Constant:
    """A vector of zeros as long as the last axis of a parameter."""
    return Constant(like, (0.0,))


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How one family of checkpoints names and lays out its tensors."""

    name: str
    rules: tuple[Rule, ...]
    prefix: str = ""  # stands before every name of rules, constants and drop
    # pattern -> what it is; carried along byte for byte
    extras: Mapping[str, str] = field(default_factory=dict)
    # asserted on reading, made again on writing
    constants: Mapping[str, Constant] = field(default_factory=dict)
    drop: Mapping[str, str] = field(default_factory=dict)  # pattern -> why it is left out
    # pattern -> why no file that has it is read
    refuses: Mapping[str, str] = field(default_factory=dict)
    # extra -> the fields of a spec that its values decide
    facts: Mapping[str, Fact] = field(default_factory=dict)
    # a file has keys that match all of these patterns (of a tuple: one of them) ...
    requires: tuple[Names, ...] = ()
    forbids: tuple[str, ...] = ()  # ... none that matches one of these ...
    # ... and these, if there, in this shape
    sized: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    # what training code and wrappers may put before all names, the likeliest first, and the one that a file was found
    # to have
    containers: tuple[str, ...] = ("",)
    container: str = ""
    # (pattern, replacement) that bring names of a file to those of the rules
    renames: tuple[tuple[str, str], ...] = ()
    # what a classifier of its files sees: the pooled tokens, or "cls_patches"
    classifier: str = "pool"
    # whose code computes such models, where several dialects have the same; "" is its own
    code: str = ""
    read_only: str = ""  # why no file of it is written; "" where one can be

    @property
    def full_prefix(self) -> str:
        """What stands before the names of rules in a file."""
        return self.container + self.prefix

    def found_in(self, shapes: Shapes) -> Dialect | None:
        """The dialect with the container that a file has; None if the file is of another dialect."""
        for container in self.containers:
            candidate = self._inside(container)
            if candidate._has_signature(shapes):
                return candidate
        return None

    @property
    def written(self) -> Dialect:
        """The dialect with the container that its files are published with."""
        return self._inside(self.containers[0])

    def _inside(self, container: str) -> Dialect:
        return self if container == self.container else replace(self, container=container)

    def _has_signature(self, shapes: Shapes) -> bool:
        """Whether a file has what the dialect requires in its container, and nothing that it forbids."""
        for required in self.requires:
            if not any(_has(shapes, self.container + key) for key in as_tuple(required)):
                return False
        # what is forbidden tells another dialect, which may have put it beside the container
        for pattern in self.forbids:
            if _has(shapes, pattern) or _has(shapes, self.container + pattern):
                return False
        sized = {self.container + key: shape for key, shape in self.sized.items()}
        there = [key for key in sized if key in shapes]
        return all(_fits(shapes[key], sized[key]) for key in there)

    def rule_name(self, key: str) -> str:
        """A file's name as the rules write it."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key

    def renamed(self, file: Mapping[str, LazyTensor]) -> Mapping[str, LazyTensor]:
        """The file under the names of the rules. Raises CheckpointError where two names become one."""
        if not self.renames:
            return file
        out = {self.rule_name(key): tensor for key, tensor in file.items()}
        if len(out) != len(file):
            raise CheckpointError(
                f"the file has two tensors for one name of the {self.name} dialect; it is damaged"
            )
        return out

    def extra_kind(self, key: str) -> str:
        """What an extra is; "" for a key that is none. Everything outside a container is one."""
        if not key.startswith(self.container):
            return f"outside {self.container}"
        return match(key, self.extras) or match(key, self.extras, self.container)

    def refusal(self, key: str) -> str:
        """Why no file with this key is read; "" for one that may be there, in a container or beside it."""
        return match(key, self.refuses) or match(key, self.refuses, self.container)

    def dropped(self, key: str) -> str:
        """Why a key is left out; "" for one that is not."""
        return match(key, self.drop, self.full_prefix)

    def unwritten(
        self, original: Mapping[str, LazyTensor], written: Mapping[str, LazyTensor]
    ) -> dict[str, LazyTensor]:
        """What an exported file takes from the original: its extras and what was left out.

        Raises CheckpointError if the original has anything else, for then it is not the original.
        """
        others = {key: tensor for key, tensor in original.items() if key not in written}
        unknown = [key for key in others if not self.extra_kind(key) and not self.dropped(key)]
        if unknown:
            raise CheckpointError(
                f"the base is no {self.name} file of this model: it also has {listed(unknown)}"
            )
        return others


def match(key: str, patterns: Mapping[str, str], prefix: str = "") -> str:
    """The value of the first pattern that matches the key, or ""."""
    for pattern, value in patterns.items():
        if fnmatchcase(key, prefix + pattern):
            return value
    return ""


def _has(shapes: Shapes, pattern: str) -> bool:
    if "*" not in pattern:  # most patterns are names, which need no walk through the file
        return pattern in shapes
    return any(fnmatchcase(key, pattern) for key in shapes)


def _fits(shape: Shape, wanted: tuple[int | None, ...]) -> bool:
    """Whether a shape is the wanted one, of which None is any size."""
    return len(shape) == len(wanted) and all(
        w in (None, n) for n, w in zip(shape, wanted, strict=True)
    )
