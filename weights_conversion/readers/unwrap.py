"""Which state dict of a training checkpoint is meant, and its tensors under dotted names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from weights_conversion.errors import CheckpointError
from weights_conversion.readers.common import STATE_DICT_ONLY, check_count, check_name, listed, quoted
from weights_conversion.readers.pickles import Script, parts
from weights_conversion.readers.storages import Tensor

# The first that is there is taken, again at each level. Averaged weights come before the trained ones, as timm's and
# RADIO's own loaders prefer them, and are what published numbers were measured with; DINO's full checkpoints hold a
# student and the teacher, which is its average. `model` and `module` come last: they also name what wraps a state dict.
WRAPPERS = ("state_dict_ema", "model_ema", "teacher", "state_dict", "model", "module")
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile; taken off where all names have them


@dataclass(frozen=True)
class Unwrapped:
    """The chosen tensors by name, what was taken off their names, and what else the file has."""

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
        return _named([row for row in _flat(root.attributes, holders) if isinstance(row[1], Tensor)], (), ())
    if not isinstance(root, dict):
        raise CheckpointError(f"holds a {type(root).__name__.lower()}, not a state dict; {STATE_DICT_ONLY}")
    if "state_dict_encrypted" in root:
        raise CheckpointError("is encrypted by NVIDIA TAO; decrypt it with TAO and its key, then pass the result")
    taken: list[str] = []
    others: list[str] = []
    chosen: dict[str, Any] = root
    while name := next((w for w in WRAPPERS if isinstance(chosen.get(w), dict) and holders[id(chosen[w])]), None):
        others += [".".join((*taken, key)) for key in chosen if key != name]
        taken.append(name)
        chosen = chosen[name]
    return _unprefixed(list(_flat(chosen, holders)), taken, others)


def _mark(value: object, holders: dict[int, bool]) -> bool:
    """Whether there are tensors in it; notes the answer for each container, shared ones once."""
    if isinstance(value, Tensor):
        return True
    if id(value) not in holders:
        holders[id(value)] = False
        holders[id(value)] = any([_mark(part, holders) for part in parts(value)])  # noqa: C419 - all are to be marked
    return holders[id(value)]


def _flat(container: Mapping[str, object], holders: dict[int, bool], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted name and value of all that is no mapping of tensors."""
    for key, value in container.items():
        inner = value.attributes if isinstance(value, Script) else value
        if isinstance(inner, dict) and holders[id(value)]:
            yield from _flat(inner, holders, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _unprefixed(rows: list[tuple[str, object]], taken: list[str], others: list[str]) -> Unwrapped:
    tensors = [(name, value) for name, value in rows if isinstance(value, Tensor)]
    others = others + [".".join((*taken, name)) for name, value in rows if not isinstance(value, Tensor)]
    while prefix := next((p for p in PREFIXES if tensors and all(n.startswith(p) for n, _ in tensors)), None):
        taken = [*taken, prefix.removesuffix(".")]
        tensors = [(name.removeprefix(prefix), value) for name, value in tensors]
    return _named(tensors, tuple(taken), tuple(others))


def _named(tensors: list[tuple[str, Any]], taken: tuple[str, ...], others: tuple[str, ...]) -> Unwrapped:
    if not tensors:
        raise CheckpointError(f"holds no tensors under names ({listed(others) or 'it is empty'}); {STATE_DICT_ONLY}")
    check_count(len(tensors))
    named: dict[str, Tensor] = {}
    for name, tensor in tensors:
        check_name(name)
        if name in named:
            raise CheckpointError(f"has two tensors called {quoted(name)}; {STATE_DICT_ONLY}")
        named[name] = tensor
    return Unwrapped(named, ".".join(taken), others)
