"""The authors' code, importable while a case runs and gone afterwards; and stand-ins for packages that it asks for."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from packaging.version import Version


def memory_efficient_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, p: float = 0.0, scale: float
) -> torch.Tensor:
    """What xformers' function of that name computes of [B L H K], in plain torch and without dropout."""
    if p:
        raise ValueError(f"the stand-in for xformers has no dropout; p is {p}, expected 0")
    scores = torch.einsum("bqhk,blhk->bhql", query * scale, key)
    return torch.einsum("bhql,blhk->bqhk", scores.softmax(-1), value)


# module -> what is taken from it; a package that is installed is used itself
STAND_INS: dict[str, dict[str, Any]] = {
    "xformers.ops": {"memory_efficient_attention": memory_efficient_attention},
    # no longer in Python; asked for a package's version only
    "distutils.version": {"LooseVersion": Version},
}


@contextlib.contextmanager
def importable(source: Path, packages: tuple[str, ...]) -> Iterator[None]:
    """Lets the packages below a folder be imported, and forgets them afterwards: two of these repositories may call
    a package by the same name. What they print and warn of on import is theirs and is kept quiet."""
    stand_ins, known = _stand_ins(), set(sys.modules)
    sys.modules.update(stand_ins)
    try:
        with (
            mock.patch.object(sys, "path", [str(source), *sys.path]),
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in set(sys.modules) - known:
            if name in stand_ins or name.partition(".")[0] in packages:
                del sys.modules[name]


def _stand_ins() -> dict[str, ModuleType]:
    """A module, and its parent, for every package that is not installed."""
    found = {}
    for name, contents in STAND_INS.items():
        parent = name.partition(".")[0]
        if importlib.util.find_spec(parent) is None:
            found[parent] = ModuleType(parent)
            found[name] = ModuleType(name)
            found[name].__dict__.update(contents)
            setattr(found[parent], name.rpartition(".")[2], found[name])
    return found
