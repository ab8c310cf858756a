"""A name, a file or a run's model -> parameters on their devices, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, Sharding, SingleDeviceSharding
from jax.typing import DTypeLike

import weights_conversion as wc
from fmjax import names, specs
from fmjax.errors import CheckpointError, UsageError
from fmjax.models.build import ImageSize, abstract, leaf_shardings, param_shapes, resized
from fmjax.models.layers import Dtype
from fmjax.models.resample import resample_table
from fmjax.models.stack import Remat
from fmjax.models.vit import ViT
from fmjax.specs import ClassifierInput, Resample, ViTSpec
from fmjax.store import locate
from fmjax.trees import leaf_paths
from fmjax.weights import identify
from fmjax.weights.publisher import as_told, kept_facts, same_function, spec_in
from weights_conversion.readers import Checkpoint, open_checkpoint

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
    num_classes: int = 0  # width of the classifier in the file
    sees: ClassifierInput = "pool"  # what it sees

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
    num_classes: int | None = None,
    classifier: ClassifierInput | None = None,
    drop_path: float = 0.0,
    remat: Remat = "none",
    unroll: bool = False,
    dtype: Dtype = None,
    param_dtype: DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
) -> ViT:
    """A model filled with published weights, every tensor of the file accounted for; each device is given its own
    slice.

    name: "arch.tag", an alias, a hub repository, or "local-dir:PATH", which tells the architecture by its tensors.
    checkpoint: a file or folder instead of the published source: .safetensors, PyTorch's .pt, .pth, .bin or .ckpt, or
    .npz; no code of it is run.
    dialect: how its tensors are named; None: told by its keys.
    resample: how the position table follows another image size; None: the weights' own policy.
    offline: only what is on this machine.
    rngs: taken as by create, and not needed.
    image_size: in pixels, one side or (height, width), that the position table is resized to; None: the published one.
    num_classes: of a new classifier, which starts at zero; 0 for none; None keeps the file's own where it has one.
    classifier: what it is computed from; None: as in the file, and the pooled tokens for a new one.
    drop_path: the last block's rate; blocks before it have less, linearly.
    remat: what blocks keep for the backward pass: all, the products ("dots") or their input only ("full").
    unroll: trace every block instead of scanning over them.
    dtype: the compute dtype; None: that of the images.
    param_dtype: of the parameters.
    mesh: where the parameters lie; None is one device.
    Raises UsageError for names and sizes, CheckpointError for files; MisfitError lists all that does not fit.
    """
    loaded = read(name, checkpoint=checkpoint, dialect=dialect, offline=offline, dtype=param_dtype)
    spec, params = _for_size(loaded, image_size, resample)
    if num_classes is not None:
        params = {path: tensor for path, tensor in params.items() if path not in CLASSIFIER}
    elif loaded.num_classes:
        num_classes, classifier = loaded.num_classes, _as_in_the_file(loaded, classifier)
    outline = abstract(
        spec,
        num_classes=num_classes or 0,
        classifier=classifier or "pool",
        drop_path=drop_path,
        remat=remat,
        unroll=unroll,
        dtype=dtype,
        param_dtype=param_dtype,
        mesh=mesh,
    )
    return fill(outline, params, mesh=mesh)


def _for_size(
    loaded: Loaded, image_size: ImageSize | None, resample: Resample | None
) -> tuple[ViTSpec, dict[str, wc.LazyTensor]]:
    """Spec and parameters of a checkpoint for images of a size, its position table resized where the grid is new."""
    spec = replace(loaded.spec, resample=resample or loaded.spec.resample)
    final = resized(spec, image_size)
    params = dict(loaded.conversion.params)
    if final.grid != spec.grid and "pos_embed" in params:
        params["pos_embed"] = _resized_table(params["pos_embed"], spec, final)
    return final, params


def _as_in_the_file(loaded: Loaded, asked: ClassifierInput | None) -> ClassifierInput:
    """What the classifier in the file is computed from. Raises UsageError where something else was asked for."""
    if asked not in (None, loaded.sees):
        raise UsageError(
            f"the classifier in {loaded.path.name} sees {loaded.sees!r}, not {asked!r}; pass num_classes for a new one"
        )
    return loaded.sees


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
    path, source = (Path(checkpoint), None) if checkpoint else locate.locate(names.get_weights(name), offline=offline)
    file = open_checkpoint(path)
    table = _dialect(file, dialect or (source.dialect if source else ""), spec, weights)
    num_classes, sees = _classifier(file, table, spec)
    shapes = param_shapes(spec, num_classes, sees)
    chosen = wc.native(shapes) if table.name == "fmjax" else table
    try:
        wanted = None if dtype is None else np.dtype(dtype)
        conversion = wc.to_jax(file.tensors, chosen, shapes, wanted, heads=spec.num_heads)
    except wc.MisfitError as error:
        raise wc.MisfitError(error.misfits, identify.closest(file, chosen, spec)) from None
    facts = conversion.facts
    if chosen.name == "fmjax":
        _check_model(file, spec)
        facts = kept_facts(file.metadata)
    # a file is computed as by its publisher; a name always as by its authors, whatever source is reached
    if checkpoint:
        origin = file.metadata.get("dialect", "") if chosen.name == "fmjax" else chosen.name
        spec = spec_in(spec, weights, origin)
    return Loaded(as_told(spec, facts), path, chosen, file, conversion, num_classes, sees)


def _classifier(file: Checkpoint, table: wc.Dialect, spec: ViTSpec) -> tuple[int, ClassifierInput]:
    """Width and input of the classifier in a file. Where a model has a projection, the one head of timm is that."""
    sees: Any = file.metadata.get("classifier", "pool") if table.name == "fmjax" else table.classifier
    biases = [rule.keys[0] for rule in table.rules if rule.paths == CLASSIFIER[1:]]
    key = CLASSIFIER[1] if table.name == "fmjax" else table.full_prefix + biases[0] if biases else ""
    shape = file.tensors[key].shape if key in file.tensors else ()
    # a bias of another shape is no classifier's, and a misfit
    if len(shape) != 1 or (spec.embed_dim and table.name != "fmjax"):
        return 0, "pool"
    if sees not in get_args(ClassifierInput):
        known = ", ".join(get_args(ClassifierInput))
        raise CheckpointError(f"{file.path} has a classifier over {wc.quoted(str(sees))}; it must be one of {known}")
    return shape[0], sees


def _check_model(file: Checkpoint, spec: ViTSpec) -> None:
    """Raises UsageError where a converted file was made from other weights: its tensors do not show an activation."""
    named = file.metadata.get("model", "")
    if named and spec.weights and names.split_name(named)[1] and names.resolve(named) != spec.weights:
        raise UsageError(
            f"{file.path} was converted from {wc.quoted(named)}, not from {spec.weights}; load it under that name"
        )


def fill(outline: ViT, params: Mapping[str, wc.LazyTensor], *, mesh: Mesh | None = None) -> ViT:
    """The model of an outline (see `abstract`) with those parameters by their paths, each device reading its own part.

    A parameter that is not among them, as a new classifier's, starts at zero.
    """
    paths = leaf_paths(outline)
    one_device = [SingleDeviceSharding(jax.devices()[0])] * len(paths)
    shardings = leaf_shardings(outline, mesh) or one_device
    leaves = [
        _placed(params.get(path), leaf, sharding)
        for path, leaf, sharding in zip(paths, jax.tree.leaves(outline), shardings, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(outline), leaves)


def _placed(tensor: wc.LazyTensor | None, leaf: jax.ShapeDtypeStruct, sharding: Sharding) -> jax.Array:
    if tensor is None:
        return jax.device_put(np.zeros(leaf.shape, leaf.dtype), sharding)
    # an empty index: the device holds the whole array
    return jax.make_array_from_callback(tensor.shape, sharding, lambda index: tensor.read(index or ()))


def _recognised(file: Checkpoint) -> str:
    """The one architecture that a file fits. Raises CheckpointError where there is none, or several."""
    names = identify.fitting(file)
    if len(names) == 1:
        return names[0]
    found = f"fits {' and '.join(names)}" if names else "fits no registered architecture"
    raise CheckpointError(f"{file.path} {found}; name the model and pass the path as checkpoint")


def published(name: str, checkpoint: str | Path | None) -> tuple[specs.Weights | None, ViTSpec]:
    """The weights row, if the name has one, and the spec. A file alone does not say which activation it was trained
    with."""
    resolved = names.resolve(name)
    if names.split_name(resolved)[1]:
        return names.get_weights(resolved), names.get_spec(resolved)
    own = names.weights_of(resolved)
    if not own:
        return None, names.get_spec(resolved)
    if checkpoint is None or len(own) == 1:
        weights = names.get_weights(resolved)
        return weights, names.get_spec(weights.name)
    if any(w.overrides != own[0].overrides for w in own):
        fields = sorted({field for w in own for field in w.overrides})
        raise UsageError(
            f"the weights of {resolved} differ in {', '.join(fields)}, which a file does not show; name the "
            f"weights that yours come from: {', '.join(w.name for w in own[:3])}, ..."
        )
    return own[0], names.get_spec(resolved)


def _dialect(file: Checkpoint, name: str, spec: ViTSpec, weights: specs.Weights | None) -> wc.Dialect:
    shapes = param_shapes(spec)
    if name == "fmjax" or (not name and file.metadata.get("format") == "fmjax"):
        return wc.native(shapes)
    if name:
        return wc.named(file.tensors, name)
    if weights is None:
        return wc.detect(file.tensors)

    def alike(one: wc.Dialect, other: wc.Dialect) -> bool:
        read = wc.reads_alike(one, other, shapes, spec.num_heads)
        return read and same_function(spec, weights, one.name, other.name)

    return wc.detect(file.tensors, [source.dialect for source in weights.sources], alike=alike)


def _resized_table(table: wc.LazyTensor, spec: ViTSpec, final: ViTSpec) -> wc.LazyTensor:
    resized = resample_table(table.read(()), spec.grid, final.grid, final.resample, prefix=spec.position_prefix)
    return wc.in_memory(resized)
