"""A name, a file or a run's model -> parameters on their devices, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import SingleDeviceSharding

import weights_conversion as wc
from fmjax import hub, specs
from fmjax.errors import CheckpointError, UsageError
from fmjax.factory import ImageSize, Options, abstract, leaf_shardings, param_shapes, resized
from fmjax.models.vit import ViT, join_blocks
from fmjax.params import flat, leaf_paths
from fmjax.resample import resample_table
from fmjax.specs import Resample, ViTSpec
from weights_conversion.readers import Checkpoint, open_checkpoint
from weights_conversion.writer import write_safetensors

PROJECTION = ("proj.kernel", "proj.bias")
LOCAL = "local-dir:"
CLASSIFIER = ("classifier.kernel", "classifier.bias")


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that fits: its spec, its dialect and its tensors as parameters, none of them read yet."""

    spec: ViTSpec
    path: Path
    dialect: wc.Dialect
    file: Checkpoint
    conversion: wc.Conversion

    @property
    def summary(self) -> str:
        extras = f", {len(self.conversion.extras)} extras" if self.conversion.extras else ""
        used = self.conversion.tensors
        return f"{self.spec.name}: {used}/{used} tensors of {self.path.name} ({self.dialect.name}{extras})"


def load(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    dialect: str | None = None,
    resample: Resample | None = None,
    offline: bool = False,
    rngs: nnx.Rngs | None = None,
    image_size: ImageSize | None = None,
    **options: Unpack[Options],
) -> ViT:
    """A model filled with published weights, every tensor of the file accounted for; each device is given its own
    slice.

    name: "arch.tag", an alias, a hub repository, or "local-dir:PATH", which tells the architecture by its tensors.
    checkpoint: a .safetensors file or folder instead of the published source. dialect: how its tensors are named
    (None: told by its keys). resample: how the position table follows another image size (None: the weights' own
    policy). offline: only what is on this machine. rngs: taken as by create, and not needed. Raises UsageError for
    names and sizes, CheckpointError for files; MisfitError lists all that does not fit.
    """
    loaded = read(
        name, checkpoint=checkpoint, dialect=dialect, offline=offline, dtype=options.get("param_dtype", jnp.float32)
    )
    spec = replace(loaded.spec, **({"resample": resample} if resample else {}))
    final = resized(spec, image_size)
    params = dict(loaded.conversion.params)
    if final.grid != spec.grid:
        params["pos_embed"] = _resized_table(params["pos_embed"], spec, final)
    return fill(final, params, **options)


def read(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    dialect: str | None = None,
    offline: bool = False,
    dtype: Any = None,
) -> Loaded:
    """A checkpoint opened and checked against its model; the numbers stay in the file until they are asked for."""
    if name.startswith(LOCAL):
        checkpoint = name.removeprefix(LOCAL)
        name = _recognised(open_checkpoint(checkpoint))
    weights, spec = published(name, checkpoint)
    likely = {s.dialect for s in weights.sources} if weights else set()
    path = Path(checkpoint) if checkpoint else hub.locate(specs.get_weights(name), offline=offline)[0]
    file = open_checkpoint(path)
    shapes = param_shapes(spec)
    chosen = _dialect(file, dialect, shapes, likely)
    try:
        conversion = wc.to_jax(file.tensors, chosen, shapes, None if dtype is None else np.dtype(dtype))
    except wc.MisfitError as error:
        raise wc.MisfitError(error.misfits, _closest(file, spec)) from None
    return Loaded(spec, path, chosen, file, conversion)


def fill(spec: ViTSpec, params: Mapping[str, wc.LazyTensor], **options: Unpack[Options]) -> ViT:
    """The model of a spec with those parameters, each device reading its own part; a classifier starts at zero."""
    outline, mesh = abstract(spec, **options), options.get("mesh")
    shardings = leaf_shardings(outline, mesh) or [SingleDeviceSharding(jax.devices()[0])] * len(leaf_paths(outline))
    leaves = [
        jax.make_array_from_callback(params[path].shape, sharding, lambda index, p=path: params[p].read(index or ()))
        if path in params
        else jax.device_put(np.zeros(leaf.shape, leaf.dtype), sharding)
        for path, leaf, sharding in zip(leaf_paths(outline), jax.tree.leaves(outline), shardings, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(outline), leaves)


def export(
    model: ViT | str | Path,
    path: str | Path,
    dialect: str = "timm",
    base: str | Path | None = None,
    *,
    classifier: bool = True,
) -> Path:
    """Writes a model, or the newest state of a run, as a safetensors file of a PyTorch dialect and returns its path.

    base: the original file; what fmjax does not model (text towers, mask tokens) returns from it unchanged. A
    classifier takes the place of the projection, as in timm; classifier=False leaves it out and keeps the projection.
    Raises CheckpointError where the dialect has no place for a parameter.
    """
    if not isinstance(model, ViT):
        from fmjax.run import restore

        model = restore(model)
    table, leaves = wc.get_dialect(dialect), flat(join_blocks(model))
    has_classifier = classifier and model.classifier is not None
    if has_classifier and model.classifier_input != "cls":
        raise CheckpointError(f"a classifier over {model.classifier_input!r} has no counterpart in {dialect}")
    left_out = frozenset(PROJECTION if has_classifier else CLASSIFIER)
    out = wc.to_torch({p: _lazy(leaf) for p, leaf in leaves.items()}, table, leave_out=left_out)
    if base is not None:
        out |= table.carried(open_checkpoint(base).tensors, out)
    write_safetensors(path, out)
    return Path(path)


def identify(file: Checkpoint) -> list[tuple[int, str]]:
    """(number of misfits, architecture) for every architecture of the zoo, best first."""
    found = []
    for name in specs.list_models():
        shapes = param_shapes(specs.get_spec(name))
        counts = [_misfits(file, d, shapes) for d in wc.DIALECTS.values() if d.matches(set(file.tensors))]
        found += [(min(counts), name)] if counts else []
    return sorted(found)


def _recognised(file: Checkpoint) -> str:
    """The one architecture that a file fits. Raises CheckpointError where there is none, or several."""
    ranked = identify(file)
    fitting = [name for count, name in ranked if count == 0]
    if len(fitting) == 1:
        return fitting[0]
    found = f"fits {' and '.join(fitting)}" if fitting else "fits no registered architecture"
    raise CheckpointError(f"{file.path} {found}; name the model and pass the path as checkpoint")


def published(name: str, checkpoint: str | Path | None) -> tuple[specs.Weights | None, ViTSpec]:
    """The weights row, if the name has one, and the spec. A file alone does not say which activation it was trained
    with."""
    resolved = specs.resolve(name)
    rows = [specs.get_weights(n) for n in specs.list_models(pretrained=True)]
    if any(w.name == resolved for w in rows):
        return specs.get_weights(resolved), specs.get_spec(resolved)
    own = [w for w in rows if w.model == resolved]
    if checkpoint is None or len(own) == 1:
        weights = specs.get_weights(resolved)
        return weights, specs.get_spec(weights.name)
    if any(w.overrides != own[0].overrides for w in own):
        fields = sorted({field for w in own for field in w.overrides})
        raise UsageError(
            f"the weights of {resolved} differ in {', '.join(fields)}, which a file does not show; name the "
            f"weights that yours "
            f"come from: {', '.join(w.name for w in own[:3])}, ..."
        )
    return None, specs.get_spec(resolved)


def _dialect(file: Checkpoint, name: str | None, shapes: Mapping[str, tuple[int, ...]], likely: set[str]) -> wc.Dialect:
    if name is not None and name != "fmjax":
        return wc.get_dialect(name)
    if name == "fmjax" or file.metadata.get("format") == "fmjax":
        return wc.native(shapes)
    return wc.detect(file.tensors, likely)


def _resized_table(table: wc.LazyTensor, spec: ViTSpec, final: ViTSpec) -> wc.LazyTensor:
    return wc.in_memory(resample_table(table.read(()), spec.grid, final.grid, final.resample))


def _lazy(leaf: jax.Array) -> wc.LazyTensor:
    return wc.LazyTensor(tuple(leaf.shape), np.dtype(leaf.dtype), lambda index: np.asarray(leaf[index]))


def _misfits(file: Checkpoint, dialect: wc.Dialect, shapes: Mapping[str, tuple[int, ...]]) -> int:
    try:
        wc.to_jax(file.tensors, dialect, shapes)
    except wc.MisfitError as error:
        return error.misfits.count
    except CheckpointError:
        return 1
    return 0


def _closest(file: Checkpoint, spec: ViTSpec) -> str:
    ranked = [(count, name) for count, name in identify(file) if name != spec.name]
    best = [name for count, name in ranked if count == ranked[0][0]]
    if not best:
        return f" into {spec.name}"
    return f" into {spec.name}; the closest model is {' or '.join(best)}, with {ranked[0][0]} misfits"
