"""Which state dict of a training checkpoint is meant, and its tensors under dotted names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from weights_conversion.errors import CheckpointError, listed, quoted
from weights_conversion.readers.common import MAX_NAME, STATE_DICT_ONLY, check_count, check_name
from weights_conversion.readers.pickles import Script, parts
from weights_conversion.readers.storages import Tensor

# The first that is there is taken, again at each level. Averaged weights come before the trained ones, as timm's and
# RADIO's own loaders prefer them, and are what published numbers were measured with; DINO's full checkpoints hold a
# student and the teacher, which is its average. `model` and `module` come last: they also name what wraps a state dict.
WRAPPERS = ("state_dict_ema", "model_ema", "teacher", "state_dict", "model", "module")
# of DataParallel and torch.compile; off where all names have them
PREFIXES = re.compile(r"\A(module\.|_orig_mod\.)+")
MAX_OTHERS = 1000  # entries that are no tensors, of which the names are kept


@dataclass(frozen=True)
class Unwrapped:
    """The chosen tensors by name, what was taken off their names, and what else the file has, as far as it is short."""

    tensors: Mapping[str, Tensor]
    wrapper: str
    others: tuple[str, ...]


def unwrap(root: object) -> Unwrapped:
    """The state dict in what torch.save was given, or the module that torch.jit.save was given.

    A TorchScript module's plain tensor attributes come out beside its parameters and buffers, as only its code tells
    them apart. Raises CheckpointError where there are no tensors.
    """
    holders: dict[int, bool] = {}
    _mark(root, holders)
    if isinstance(root, Script):
        return _named(_parted(_flat(root.attributes, holders))[0], (), ())
    if not isinstance(root, dict):
        raise CheckpointError(
            f"holds a {type(root).__name__.lower()}, not a state dict; {STATE_DICT_ONLY}"
        )
    if "state_dict_encrypted" in root:
        raise CheckpointError(
            "is encrypted by NVIDIA TAO; decrypt it with TAO and its key, then pass the result"
        )
    taken: list[str] = []
    others: list[str] = []
    chosen: dict[str, Any] = root
    # from wrapper to wrapper; what lies beside each is kept by name, for the report
    while name := _wrapper(chosen, holders):
        beside = [key for key in itertools.islice(chosen, MAX_OTHERS) if key != name]
        others += [".".join((*taken, key[:MAX_NAME])) for key in beside]
        taken.append(name)
        chosen = chosen[name]
    return _unprefixed(_flat(chosen, holders), taken, others)


def _wrapper(container: Mapping[str, object], holders: dict[int, bool]) -> str:
    """The first of the wrappers' names under which a container has tensors; "" where it has none."""
    for name in WRAPPERS:
        inner = container.get(name)
        if isinstance(inner, dict) and holders[id(inner)]:
            return name
    return ""


def _mark(value: object, holders: dict[int, bool]) -> bool:
    """Whether there are tensors in it; notes the answer for each container, shared ones once."""
    if isinstance(value, Tensor):
        return True
    # noted before its parts are looked at, so that a container which holds itself comes to an end
    if id(value) not in holders:
        holders[id(value)] = False
        holders[id(value)] = any([_mark(part, holders) for part in parts(value)])  # noqa: C419 - all are to be marked
    return holders[id(value)]


def _flat(
    container: Mapping[str, object], holders: dict[int, bool], prefix: str = ""
) -> Iterator[tuple[str, object]]:
    """Dotted name and value of all that is no mapping of tensors. Names are cut where they are too long for one: the
    same few keys, nested and shared, could make gigabytes of them."""
    for key, value in container.items():
        name = f"{prefix}{key[: MAX_NAME + 1]}"[: MAX_NAME + 1]
        inner = value.attributes if isinstance(value, Script) else value
        if isinstance(inner, dict) and holders[id(value)]:
            yield from _flat(inner, holders, f"{name}.")
        else:
            yield name, value


def _unprefixed(
    rows: Iterable[tuple[str, object]], taken: list[str], others: list[str]
) -> Unwrapped:
    tensors, left = _parted(rows)
    others = others + [".".join((*taken, name)) for name in left]
    prefix = _shared_prefix([name for name, _ in tensors])
    taken = [*taken, *prefix.split(".")[:-1]]
    tensors = [(name[len(prefix) :], value) for name, value in tensors]
    return _named(tensors, tuple(taken), tuple(others))


def _shared_prefix(names: list[str]) -> str:
    """Every prefix that all names have, at once: taken off one by one, each would cost a walk through all. What
    the first and the last of them in order start with, all do."""
    ends = zip(min(names, default=""), max(names, default=""), strict=False)
    common = "".join(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], ends))
    return common.removesuffix(PREFIXES.sub("", common))


def _parted(rows: Iterable[tuple[str, object]]) -> tuple[list[tuple[str, Tensor]], list[str]]:
    """The tensors, and the names of the first others. Names are checked as they are in the file: a prefix that is
    taken off must not make a name of what was cut."""
    tensors: list[tuple[str, Tensor]] = []
    others: list[str] = []
    for name, value in rows:
        if isinstance(value, Tensor):
            check_name(name)
            tensors.append((name, value))
            check_count(len(tensors))
        # a few are enough for a sentence: a training state may hold thousands
        elif len(others) < MAX_OTHERS:
            others.append(name)
    return tensors, others


def _named(
    tensors: list[tuple[str, Tensor]], taken: tuple[str, ...], others: tuple[str, ...]
) -> Unwrapped:
    if not tensors:
        raise CheckpointError(
            f"holds no tensors under names ({listed(others) or 'it is empty'}); {STATE_DICT_ONLY}"
        )
    named: dict[str, Tensor] = {}
    for name, tensor in tensors:
        check_name(name)
        if name in named:
            raise CheckpointError(f"has two tensors called {quoted(name)}; {STATE_DICT_ONLY}")
        named[name] = tensor
    return Unwrapped(named, ".".join(taken), others)
