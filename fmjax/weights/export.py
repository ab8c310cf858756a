"""A model -> a file in the names of a PyTorch library."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import weights_conversion as wc
from fmjax.errors import CheckpointError, UsageError
from fmjax.models.lora import merged
from fmjax.models.surgery import join_blocks
from fmjax.models.vit import ViT
from fmjax.targets import check_not_source
from fmjax.trees import flat, leaf_paths
from fmjax.weights.lazy import lazy
from fmjax.weights.tuned import facts_of
from weights_conversion.readers import open_checkpoint
from weights_conversion.writer import write_safetensors

CLASSIFIER = ("classifier.kernel", "classifier.bias")
PROJECTION = ("proj.kernel", "proj.bias")


def export(
    model: ViT,
    path: str | Path,
    dialect: str = "timm",
    base: str | Path | None = None,
    *,
    classifier: bool = True,
) -> Path:
    """Writes a model, its adapters merged, as a safetensors file of a PyTorch dialect and returns its path.

    base: the original file; what fmjax does not model (text towers, mask tokens) returns from it unchanged. A
    classifier takes the place of the projection, as in timm; classifier=False leaves it out and keeps the projection.
    Raises CheckpointError where the dialect has no place for a parameter, UsageError where `path` is the base.
    """
    if base is not None:
        check_not_source(Path(path), base, flag="the path")
    out = tensors(model, dialect, base, classifier=classifier)
    write_safetensors(path, out, {"format": "pt"} | facts_of(model, classifier=classifier))
    return Path(path)


def tensors(
    model: ViT, dialect: str, base: str | Path | None = None, *, classifier: bool = True
) -> dict[str, wc.LazyTensor]:
    """What `export` writes, none of it read yet."""
    model = merged(model)
    table, left_out = _target(model, dialect, classifier=classifier)
    leaves = flat(join_blocks(model))
    # what was kept in fewer bits comes beside the rest, and into one tensor with some of it
    widest = np.dtype(jnp.result_type(*leaves.values()))
    params = {name: lazy(leaf).astype(widest) for name, leaf in leaves.items()}
    out = wc.to_torch(params, table, leave_out=left_out, heads=model.spec.num_heads)
    # what the model has no parameter for, out of the original
    if base is not None:
        out |= table.unwritten(open_checkpoint(base).tensors, out)
    return out


def check_export(model: ViT, dialect: str) -> None:
    """Raises UsageError where a model, its classifier included, could not be exported: before it is trained."""
    # no library has a name for adapters
    model = jax.eval_shape(merged, model)
    try:
        table, left_out = _target(model, dialect, classifier=True)
        # the shapes decide; no number is read
        params = {
            path: wc.LazyTensor(tuple(leaf.shape), np.dtype(np.float32), lambda _: np.zeros(0))
            for path, leaf in flat(join_blocks(model)).items()
        }
        wc.to_torch(params, table, leave_out=left_out, heads=model.spec.num_heads)
    except CheckpointError as error:
        fix = "pass --export none, or another --export"
        raise UsageError(f"the run could not be exported ({error}); {fix}") from error


def _target(model: ViT, dialect: str, *, classifier: bool) -> tuple[wc.Dialect, frozenset[str]]:
    """The table to export with, and what it leaves out. Raises CheckpointError for what the dialect cannot hold."""
    has_classifier = classifier and model.classifier is not None
    left_out = frozenset(PROJECTION if has_classifier else CLASSIFIER)
    table = wc.writing(dialect, set(leaf_paths(join_blocks(model))) - left_out)
    if table.read_only:
        raise CheckpointError(f"{dialect} cannot be exported to: {table.read_only}")
    same: set[str] = {model.classifier_input}
    if model.classifier_input == model.spec.pool == "cls":
        same.add("pool")  # the class token is what such a model pools to
    if has_classifier and table.classifier not in same:
        raise CheckpointError(
            f"a classifier over {model.classifier_input!r} has no counterpart in {dialect}, where it sees "
            f"{table.classifier!r}; leave it out with --no-classifier, or train with "
            f"--task.classifier {table.classifier}"
        )
    return table, left_out
