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
    # "value" is the level that NNX puts between a parameter and its array
    keyed, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [".".join(name for key in path if (name := _name(key)) != "value") for path, _ in keyed]


def _name(key: Any) -> str:
    # the attributes of jax's kinds of keys: of a module, a dictionary, a sequence
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


def bind(outline: Any, params: Params) -> Any:
    """A tree of modules with the parameters of a nested dict. Raises UsageError for paths missing or unknown."""
    return jax.tree.unflatten(jax.tree.structure(outline), ordered(params, leaf_paths(outline)))


def ordered(params: Params, paths: Sequence[str]) -> list[Any]:
    """The leaves of a nested dict in the order of the paths, which must be all of them."""
    leaves = flat(params)
    if leaves.keys() != set(paths):
        missing, unknown = sorted(set(paths) - set(leaves)), sorted(set(leaves) - set(paths))
        raise UsageError(
            f"these are not the model's parameters: missing {missing}, unknown {unknown}"
        )
    return [leaves[path] for path in paths]


def first_match(path: str, table: Sequence[tuple[str, T]]) -> T:
    """The value of the first row whose pattern matches the whole path. Raises UsageError if none does."""
    for pattern, value in table:
        if re.fullmatch(pattern, path):
            return value
    raise UsageError(f"no pattern matches parameter {path}; end the table with '.*'")
