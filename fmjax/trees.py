"""Parameters as plain nested dictionaries, their dotted paths, and tables of (pattern, value) over those paths."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax

from fmjax.errors import UsageError

Params = dict[str, Any]
T = TypeVar("T")


def leaf_paths(tree: Any) -> list[str]:
    """The dotted path of every array of a model or nested dict, in the order of jax.tree.leaves:
    blocks.attn.q.kernel."""
    keyed, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [".".join(name for key in path if (name := _name(key)) != "value") for path, _ in keyed]


def _name(key: Any) -> str:
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    raise TypeError(f"unknown kind of tree key: {key!r}")


def flat(tree: Any) -> dict[str, Any]:
    """Path -> array."""
    return dict(zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True))


def nested(leaves: Mapping[str, T]) -> Params:
    """A nested dict out of path -> leaf."""
    tree: Params = {}
    for path, leaf in leaves.items():
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def virtual_paths(path: str, depth: int, offset: int = 0) -> list[str]:
    """The names that tables see: a stacked array is one name for each block, blocks.{i}.attn.q.kernel; others are
    themselves."""
    head, _, tail = path.partition(".")
    if head not in ("blocks", "frozen_blocks"):
        return [path]
    return [f"blocks.{offset + i}.{tail}" for i in range(depth)]


def first_match(path: str, table: Sequence[tuple[str, T]]) -> T:
    """The value of the first row whose pattern matches the whole path. Raises UsageError if none does."""
    for pattern, value in table:
        if re.fullmatch(pattern, path):
            return value
    raise UsageError(f"no pattern matches parameter {path}; end the table with '.*'")
