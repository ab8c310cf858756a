"""What a dialect is: a table of rules, and how a file of it is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
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


def names(given: Names) -> tuple[str, ...]:
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
        return names(self.torch)

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of the arrays, the block index taken out."""
        return tuple(name.replace(".{i}.", ".") for name in names(self.jax))

    @property
    def stacked(self) -> bool:
        return any("{i}" in key for key in self.keys)

    def under(self, parent: str) -> Rule:
        """The rule for files with something before its names."""
        keys = tuple(parent + key for key in self.keys)
        return replace(self, torch=parent + self.torch if isinstance(self.torch, str) else keys)

    def active(self, shapes: Shapes) -> bool:
        """Whether the rule speaks of a model with these parameters."""
        wanted = not self.when or any(path in shapes for path in names(self.when))
        return wanted and all(p in shapes for p in self.paths) and not any(p in shapes for p in names(self.unless))


@dataclass(frozen=True)
class Constant:
    """A tensor whose values are known: one value for every part of a vector that is `len(parts)` times as long as the
    last axis of the parameter `like`."""

    like: str
    parts: tuple[float, ...]

    def values(self, shapes: Shapes) -> np.ndarray:
        return np.repeat(np.asarray(self.parts, np.float32), shapes[self.like][-1])


def zeros(like: str) -> Constant:
    """A vector of zeros as long as the last axis of a parameter."""
    return Constant(like, (0.0,))


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How one family of checkpoints names and lays out its tensors."""

    name: str
    rules: tuple[Rule, ...]
    prefix: str = ""  # stands before every name of rules, constants and drop
    extras: Mapping[str, str] = field(default_factory=dict)  # pattern -> what it is; carried along byte for byte
    constants: Mapping[str, Constant] = field(default_factory=dict)  # asserted on reading, made again on writing
    drop: Mapping[str, str] = field(default_factory=dict)  # pattern -> why it is left out
    refuses: Mapping[str, str] = field(default_factory=dict)  # pattern -> why no file that has it is read
    facts: Mapping[str, Fact] = field(default_factory=dict)  # extra -> the fields of a spec that its values decide
    requires: tuple[Names, ...] = ()  # a file has keys that match all of these patterns (of a tuple: one of them) ...
    forbids: tuple[str, ...] = ()  # ... none that matches one of these ...
    sized: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)  # ... and these, if there, in this shape
    leads: tuple[str, ...] = ("",)  # what training code and wrappers may put before all names, the likeliest first
    lead: str = ""  # the one of them that a file was found to have
    respell: tuple[tuple[str, str], ...] = ()  # (pattern, replacement) that bring names of a file to those of the rules
    classifier: str = "pool"  # what a classifier of its files sees: the pooled tokens, or "cls_patches"
    code: str = ""  # whose code computes such models, where several dialects have the same; "" is its own
    read_only: str = ""  # why no file of it is written; "" where one can be

    @property
    def start(self) -> str:
        """What stands before the names of rules in a file."""
        return self.lead + self.prefix

    def led(self, shapes: Shapes) -> Dialect | None:
        """The dialect with the lead that a file has; None if the file is of another dialect."""
        return next((found for lead in self.leads if (found := self._with(lead))._signed(shapes)), None)

    @property
    def written(self) -> Dialect:
        """The dialect with the lead that its files are published with."""
        return self._with(self.leads[0])

    def _with(self, lead: str) -> Dialect:
        return self if lead == self.lead else replace(self, lead=lead)

    def _signed(self, shapes: Shapes) -> bool:
        if not all(any(_has(shapes, self.lead + key) for key in names(required)) for required in self.requires):
            return False
        if any(_has(shapes, lead + pattern) for pattern in self.forbids for lead in {"", self.lead}):
            return False
        sized = {self.lead + key: shape for key, shape in self.sized.items()}
        return all(_fits(shapes[key], shape) for key, shape in sized.items() if key in shapes)

    def spell(self, key: str) -> str:
        """A file's name as the rules write it."""
        for pattern, replacement in self.respell:
            key = re.sub(pattern, replacement, key)
        return key

    def spelled(self, file: Mapping[str, LazyTensor]) -> Mapping[str, LazyTensor]:
        """The file under the names of the rules. Raises CheckpointError where two names become one."""
        if not self.respell:
            return file
        out = {self.spell(key): tensor for key, tensor in file.items()}
        if len(out) != len(file):
            raise CheckpointError(f"the file has two tensors for one name of the {self.name} dialect; it is damaged")
        return out

    def carries(self, key: str) -> str:
        """What an extra is; "" for a key that is none. Everything outside a lead is one."""
        if not key.startswith(self.lead):
            return f"outside {self.lead}"
        return match(key, self.extras) or (match(key, self.extras, self.lead) if self.lead else "")

    def refused(self, key: str) -> str:
        """Why no file with this key is read; "" for one that may be there. Under a lead or outside it is the same."""
        return match(key, self.refuses) or match(key, self.refuses, self.lead)

    def dropped(self, key: str) -> str:
        """Why a key is left out; "" for one that is not."""
        return match(key, self.drop, self.start)

    def carried(self, original: Mapping[str, LazyTensor], written: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
        """What an exported file takes from the original: its extras and what was left out.

        Raises CheckpointError if the original has anything else, for then it is not the original.
        """
        others = {key: tensor for key, tensor in original.items() if key not in written}
        unknown = [key for key in others if not self.carries(key) and not self.dropped(key)]
        if unknown:
            raise CheckpointError(f"the base is no {self.name} file of this model: it also has {listed(unknown)}")
        return others


def match(key: str, patterns: Mapping[str, str], prefix: str = "") -> str:
    """The value of the first pattern that matches the key, or ""."""
    return next((value for pattern, value in patterns.items() if fnmatchcase(key, prefix + pattern)), "")


def _has(shapes: Shapes, pattern: str) -> bool:
    return pattern in shapes if "*" not in pattern else any(fnmatchcase(key, pattern) for key in shapes)


def _fits(shape: Shape, wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(w in (None, n) for n, w in zip(shape, wanted, strict=True))
