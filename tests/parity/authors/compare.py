"""fmjax and its originals on the same images: all tokens, the pooled output and the gradient of the image."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from fmjax import names, specs
from fmjax.errors import UsageError
from fmjax.models.functional import functional
from fmjax.models.vit import ViT
from fmjax.weights import load
from tests.parity.authors import clip, dinov2, dinov3, eva, radio, tips
from tests.parity.authors.imports import importable
from tests.parity.authors.original import Original, Size
from tests.parity.bounds import FORWARD
from tests.parity.measure import all_tokens, error
from tests.support import torch_reference

MODULES = (dinov2, clip, eva, dinov3, tips, radio)
ORIGINALS: tuple[Original, ...] = tuple(row for module in MODULES for row in module.ORIGINALS)
FOLDERS = tuple(dict.fromkeys(row.folder for row in ORIGINALS))


@dataclass(frozen=True)
class Comparison:
    """How far fmjax is from an original: the largest errors over the sizes, relative to the largest value."""

    name: str
    repository: str
    commit: str
    committed: str  # the commit's date
    compared: str  # the date of this comparison
    depth: int  # of so many layers
    layers: int
    sizes: list[Size]
    missing_sizes: str
    dialect: str  # that the file was told to be of
    by_name: str  # in what the weights differ when they are loaded by name; "" for nothing
    tensors: int
    extras: int
    tokens: float
    pooled: float
    image_gradient: float

    @property
    def over(self) -> bool:
        """Whether it is beyond the bound; what is not a number is."""
        return not max(self.tokens, self.pooled, self.image_gradient) < FORWARD


def available(directory: Path) -> list[Original]:
    """The originals whose code lies in a directory. Raises UsageError where it is none, or has none of them."""
    wanted = f"a directory that holds checkouts called {', '.join(FOLDERS)}, or some of them"
    if not directory.is_dir():
        raise UsageError(f"--authors {str(directory)!r} is no directory; give {wanted}")
    found = [row for row in ORIGINALS if (directory / row.folder).is_dir()]
    if not found:
        raise UsageError(
            f"--authors {str(directory)!r} holds none of the authors' repositories; give {wanted}"
        )
    return found


def compare(original: Original, directory: Path) -> Comparison:
    """Builds the authors' network with every tensor randomised, saves it as they do, lets fmjax tell and read the
    file, and runs both at every size that the authors' code takes."""
    checkout = directory / original.folder
    commit, committed = _commit(checkout)
    with (
        importable(checkout / original.source, original.packages),
        tempfile.TemporaryDirectory() as folder,
    ):
        theirs = torch_reference.randomise(original.build(), seed=1)
        file = original.save(theirs, Path(folder))
        with _cut(original):
            read = load.read(original.name, checkpoint=file)
            ours = load.load(original.name, checkpoint=file)
        errors = [_errors(original, theirs, file, ours, size) for size in original.sizes]
    tokens, pooled, image_gradient = np.max(errors, axis=0).tolist()  # keeps what is not a number
    return Comparison(
        name=original.name,
        repository=original.repository,
        commit=commit,
        committed=committed,
        compared=time.strftime("%Y-%m-%d"),
        depth=original.blocks,
        layers=original.spec.depth,
        sizes=list(original.sizes),
        missing_sizes=original.missing_sizes,
        dialect=read.dialect.name,
        by_name=_differences(original.spec, read.spec),
        tensors=read.conversion.tensors,
        extras=len(read.conversion.extras),
        tokens=tokens,
        pooled=pooled,
        image_gradient=image_gradient,
    )


def _differences(named: specs.ViTSpec, of_file: specs.ViTSpec) -> str:
    """A name is computed in one way; a file as its publisher's code does, which for the authors' should be the same."""
    names = [field.name for field in fields(named) if field.name not in ("depth", "publisher")]
    changed = [name for name in names if getattr(named, name) != getattr(of_file, name)]
    return ", ".join(f"{name} {getattr(named, name)}" for name in changed)


@contextlib.contextmanager
def _cut(original: Original) -> Iterator[None]:
    """The published row with fewer blocks under its own name, so that a file is told and read as a whole one is."""
    rows = names._rows()[0]
    spec = rows[original.arch]
    with mock.patch.dict(rows, {original.arch: replace(spec, depth=original.blocks)}):
        yield


def _errors(
    original: Original, theirs: Any, file: Path, ours: ViT, size: Size
) -> tuple[float, float, float]:
    """Of the tokens, the pooled output, and the gradient of a random weighted sum of both."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((1, 3, *size), np.float32)
    shapes = jax.eval_shape(lambda x: _outputs(ours, x), images.transpose(0, 2, 3, 1))
    sum_weights = tuple(rng.standard_normal(shape.shape, np.float32) for shape in shapes)
    network = original.sized(theirs, file, size)
    answer = partial(original.answer, network)
    wanted = torch_reference.run(answer, network, images, sum_weights)
    tokens, pooled, gradient = _run(ours, images.transpose(0, 2, 3, 1), sum_weights)
    return (
        error(tokens, wanted.tokens),
        error(pooled, wanted.pooled),
        error(gradient.transpose(0, 3, 1, 2), wanted.image_gradient),
    )


def _outputs(model: ViT, images: Any) -> tuple[jax.Array, jax.Array]:
    out = model(images)
    return all_tokens(out, model.spec), out.pooled


def _run(
    model: ViT, images: np.ndarray, sum_weights: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, ...]:
    """fmjax's tokens, pooled output and gradient of the image."""
    apply, params = functional(model)

    def objective(images: jax.Array, params: Any):
        out = apply(params, images)
        found = all_tokens(out, model.spec), out.pooled
        return sum(
            (value * weight).sum() for value, weight in zip(found, sum_weights, strict=True)
        ), found

    with jax.default_matmul_precision("highest"):
        (_, found), gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))(images, params)
    return tuple(np.asarray(value) for value in (*found, gradient))


def _commit(checkout: Path) -> tuple[str, str]:
    """The commit of a checkout and its date; "unknown" where it is no repository of its own."""
    if not (checkout / ".git").exists():
        return "unknown", ""
    command = ["git", "-C", str(checkout), "log", "-1", "--format=%H %cs"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    commit, date = done.stdout.split()
    return commit, date
