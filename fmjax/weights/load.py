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
from fmjax.kernels import activation, norm
from fmjax.kernels.attention import Kernel
from fmjax.models.build import ImageSize, abstract, leaf_shardings, param_shapes, resized
from fmjax.models.linear import Dtype
from fmjax.models.resample import resample_table
from fmjax.models.stack import Remat, Unroll
from fmjax.models.vit import ViT
from fmjax.specs import ClassifierInput, DropPathBy, Resample, ViTSpec
from fmjax.store import locate
from fmjax.trees import leaf_paths
from fmjax.weights import identify, known
from fmjax.weights.adapters import opened
from fmjax.weights.publisher import facts_in, same_function, spec_of_publisher, with_facts
from fmjax.weights.tuned import as_tuned
from weights_conversion.readers import Checkpoint, open_checkpoint

LOCAL = "local-dir:"
NATIVE = "fmjax"  # the dialect of converted files
CLASSIFIER = ("classifier.kernel", "classifier.bias")
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that fits: its spec, its dialect and its tensors as parameters, none of them read yet."""

    spec: ViTSpec
    path: Path
    dialect: wc.Dialect
    file: Checkpoint
    conversion: wc.Conversion
    num_classes: int = 0  # width of the classifier in the file
    classifier: ClassifierInput = "pool"  # what it is computed from

    @property
    def summary(self) -> str:
        """One line: the model, how many tensors of which file, its dialect and its extras."""
        used, origin = self.conversion.tensors, self.dialect.name
        if self.conversion.extras:
            origin += f", {len(self.conversion.extras)} extras"
        return f"{self.spec.name}: {used}/{used} tensors of {self.path.name} ({origin})"


def load(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    dialect: str | None = None,
    adapters: str | Path | None = None,
    resample: Resample | None = None,
    offline: bool = False,
    rngs: nnx.Rngs | None = None,
    image_size: ImageSize | None = None,
    num_classes: int | None = None,
    classifier: ClassifierInput | None = None,
    drop_path: float = 0.0,
    drop_path_by: DropPathBy = "image",
    attention: Kernel = "auto",
    norms: norm.Kernel = "auto",
    activations: activation.Kernel = "auto",
    remat: Remat = "none",
    unroll: Unroll = "auto",
    dtype: Dtype = None,
    param_dtype: DTypeLike = jnp.float32,
    param_dtypes: Mapping[str, DTypeLike] | None = None,
    mesh: Mesh | None = None,
) -> ViT:
    """A model filled with published weights, every tensor of the file accounted for; each device is given its own
    slice.

    name: "arch.tag", an alias, a hub repository, or "local-dir:PATH", which tells the architecture by its tensors.
    checkpoint: a file or folder instead of the published source: .safetensors, PyTorch's .pt, .pth, .bin or .ckpt, or
    .npz; no code of it is run.
    dialect: how its tensors are named; None: told by its keys.
    adapters: a file of `fmjax export RUN FILE --adapters`, of a run that began with these weights: they are added to
    the kernels, its classifier is the model's, and image size and resampling are those of the run unless given.
    resample: how the position table follows another image size; None: the weights' own policy.
    offline: only what is on this machine.
    rngs: taken as by create, and not needed.
    image_size: in pixels, one side or (height, width), that the position table is resized to; None: the published one.
    num_classes: of a new classifier, which starts at zero; 0 for none; None keeps the file's own where it has one.
    classifier: what it is computed from; None: as in the file, and the pooled tokens for a new one.
    drop_path: the last block's rate; blocks before it have less, linearly.
    drop_path_by: "subset": every block has the rate, and computes its branches for so many images less.
    attention: "cudnn" for cuDNN's kernels, which GPUs of NVIDIA have for bfloat16 and float16, "pallas" for one of
    fmjax's own, "xla" for XLA's products; "auto" takes the fastest that can run.
    norms: "pallas" for a kernel of the blocks' norms, on GPUs of NVIDIA in bfloat16 and float16; else as attention.
    activations: "pallas" for a kernel of the blocks' activations; as norms.
    remat: what blocks keep for the backward pass: all, the products ("dots") or their input only ("full"); "auto":
    the products, which is the fastest.
    unroll: trace every block instead of scanning over them; "auto": up to 48 blocks where devices are no CPUs, but
        where parameters are split over the mesh and remat is "full".
    dtype: the compute dtype; None: that of the images.
    param_dtype: of the parameters.
    param_dtypes: of those that have another one, by their paths, as blocks.attn.q.kernel.
    mesh: where the parameters lie; None is one device.
    Raises UsageError for names and sizes, CheckpointError for files; MisfitError lists all that does not fit.
    """
    tuned = None if adapters is None else opened(adapters)
    # sums are of float32, whatever dtype they are rounded to
    dtypes = param_dtype if tuned is None else np.float32
    loaded = read(name, checkpoint=checkpoint, dialect=dialect, offline=offline, dtype=dtypes)
    if tuned is not None:
        image_size = image_size or tuned.facts.image_size
        resample = resample or tuned.facts.resample
    spec, params = _for_size(loaded, image_size, resample)
    if tuned is not None:
        params = tuned.onto(params, spec)
        params = _rounded(params, dict.fromkeys(params, param_dtype))
        loaded = replace(
            loaded,
            path=tuned.path,
            num_classes=tuned.num_classes,
            classifier=tuned.facts.classifier,
        )
    # a new classifier takes the place of the file's own; without a word about one, that is kept, and is known
    own = num_classes is None
    if num_classes is not None:
        params = {path: tensor for path, tensor in params.items() if path not in CLASSIFIER}
    elif loaded.num_classes:
        num_classes, classifier = loaded.num_classes, _as_in_the_file(loaded, classifier)
    outline = abstract(
        spec,
        num_classes=num_classes or 0,
        classifier=classifier or "pool",
        drop_path=drop_path,
        drop_path_by=drop_path_by,
        attention=attention,
        norms=norms,
        activations=activations,
        remat=remat,
        unroll=unroll,
        dtype=dtype,
        param_dtype=param_dtype,
        mesh=mesh,
    )
    model = fill(outline, params | _rounded(params, param_dtypes), mesh=mesh)
    return known.with_facts(model, tuned, published=_is_published(name, checkpoint), own=own)


def _is_published(name: str, checkpoint: str | Path | None) -> bool:
    """Whether the weights are those behind a name; else they are a file of the user's."""
    return checkpoint is None and not name.startswith(LOCAL)


def _for_size(
    loaded: Loaded, image_size: ImageSize | None, resample: Resample | None
) -> tuple[ViTSpec, dict[str, wc.LazyTensor]]:
    """Spec and parameters of a checkpoint for images of a size, its position table resized where the grid is new."""
    spec = replace(loaded.spec, resample=resample or loaded.spec.resample)
    final = resized(spec, image_size)
    params = dict(loaded.conversion.params)
    if final.grid != spec.grid and "pos_embed" in params:
        # once and on the host: training starts from a table of its own size, as the originals do
        params["pos_embed"] = _resized_table(params["pos_embed"], spec, final)
    return final, params


def _rounded(
    params: Mapping[str, wc.LazyTensor], dtypes: Mapping[str, DTypeLike] | None
) -> dict[str, wc.LazyTensor]:
    """Some of the parameters, each in its dtype; None: none of them."""
    return {path: params[path].astype(np.dtype(dtype)) for path, dtype in (dtypes or {}).items()}


def _as_in_the_file(loaded: Loaded, asked: ClassifierInput | None) -> ClassifierInput:
    """What the classifier in the file is computed from. Raises UsageError where something else was asked for."""
    if asked not in (None, loaded.classifier):
        raise UsageError(
            f"the classifier in {loaded.path.name} sees {loaded.classifier!r}, not {asked!r}; pass num_classes for a "
            f"new one"
        )
    return loaded.classifier


def read(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    dialect: str | None = None,
    offline: bool = False,
    dtype: DTypeLike | None = None,
) -> Loaded:
    """A checkpoint opened and checked against its model; the numbers stay in the file until they are asked for.

    name, checkpoint, dialect, offline: as for `load`. dtype: of the parameters; None: as in the file. Raises what
    `load` raises.
    """
    if name.startswith(LOCAL):
        checkpoint = name.removeprefix(LOCAL)
        name = _recognised(open_checkpoint(checkpoint))
    weights, spec = published(name, checkpoint)
    # which file, and in which dialect: as asked, else as its source says, else as its keys tell
    if checkpoint:
        path = Path(checkpoint)
    else:
        path, source = locate.locate(names.get_weights(name), offline=offline)
        dialect = dialect or source.dialect
    file = open_checkpoint(path)
    spec = as_tuned(spec, file)
    table = _dialect(file, dialect or "", spec, weights)
    # the parameters it must fill, a classifier of its own among them
    num_classes, classifier = _classifier(file, table, spec)
    shapes = param_shapes(spec, num_classes, classifier)
    if table.name == NATIVE:
        table = wc.native(shapes)
    conversion = _converted(file, table, spec, shapes, dtype)
    facts = _facts(file, table, spec, conversion)
    # a file is computed as by its publisher; a name always as by its authors, whatever source is reached
    if checkpoint:
        spec = spec_of_publisher(spec, weights, _origin(file, table))
    return Loaded(with_facts(spec, facts), path, table, file, conversion, num_classes, classifier)


def _converted(
    file: Checkpoint, table: wc.Dialect, spec: ViTSpec, shapes: Shapes, dtype: DTypeLike | None
) -> wc.Conversion:
    """The tensors as parameters of these shapes. Raises MisfitError, which names the architectures that are nearer."""
    wanted = None if dtype is None else np.dtype(dtype)
    try:
        return wc.to_jax(file.tensors, table, shapes, wanted, heads=spec.num_heads)
    except wc.MisfitError as error:
        raise wc.MisfitError(error.misfits, identify.closest(file, table, spec)) from None


def _facts(
    file: Checkpoint,
    table: wc.Dialect,
    spec: ViTSpec,
    conversion: wc.Conversion,
) -> Mapping[str, Any]:
    """What the values of a file, or of the original that it was converted from, say about its model."""
    if table.name != NATIVE:
        return conversion.facts
    _check_model(file, spec)
    return facts_in(file.metadata)


def _origin(file: Checkpoint, table: wc.Dialect) -> str:
    """The dialect that a file was published in; "" where a converted file does not say it."""
    return file.metadata.get("dialect", "") if table.name == NATIVE else table.name


def _classifier(file: Checkpoint, table: wc.Dialect, spec: ViTSpec) -> tuple[int, ClassifierInput]:
    """Width and input of the classifier in a file; (0, "pool") where it has none.

    Raises CheckpointError where a converted file says an input that no classifier has.
    """
    kind: Any = table.classifier
    keys = [
        table.full_prefix + rule.keys[0] for rule in table.rules if rule.paths == CLASSIFIER[1:]
    ]
    if table.name == NATIVE:
        kind, keys = file.metadata.get("classifier", "pool"), [CLASSIFIER[1]]
    elif spec.embed_dim:
        return 0, "pool"  # where a model has a projection, the one head of timm is that
    # a bias of another shape is no classifier's, and a misfit
    biases = [file.tensors[key].shape for key in keys[:1] if key in file.tensors]
    if not biases or len(biases[0]) != 1:
        return 0, "pool"
    known = get_args(ClassifierInput)
    if kind not in known:
        raise CheckpointError(
            f"{file.path} has a classifier over {wc.quoted(str(kind))}; it must be one of {', '.join(known)}"
        )
    return biases[0][0], kind


def _check_model(file: Checkpoint, spec: ViTSpec) -> None:
    """Raises UsageError where a converted file was made from other weights: its tensors do not show an activation."""
    named = file.metadata.get("model", "")
    # an architecture alone, of the file or of the model, contradicts nothing
    comparable = spec.weights and names.split_name(named)[1]
    if comparable and names.resolve(named) != spec.weights:
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


def _placed(
    tensor: wc.LazyTensor | None,
    leaf: jax.ShapeDtypeStruct,
    sharding: Sharding,
) -> jax.Array:
    if tensor is None:
        return jax.device_put(np.zeros(leaf.shape, leaf.dtype), sharding)

    def read(index: Any) -> np.ndarray:
        return tensor.read(index or ())  # an empty index: the device holds the whole array

    # each device asks for its own slice, so no host holds the whole model
    return jax.make_array_from_callback(tensor.shape, sharding, read)


def _recognised(file: Checkpoint) -> str:
    """The one architecture that a file fits. Raises CheckpointError where there is none, or several."""
    fitting = identify.fitting(file)
    if len(fitting) == 1:
        return fitting[0]
    found = f"fits {' and '.join(fitting)}" if fitting else "fits no registered architecture"
    raise CheckpointError(f"{file.path} {found}; name the model and pass the path as checkpoint")


def published(name: str, checkpoint: str | Path | None) -> tuple[specs.Weights | None, ViTSpec]:
    """The weights row, if the name has one, and the spec.

    Raises UsageError for an architecture whose weights differ in their function: a file alone does not say which
    activation it was trained with.
    """
    resolved = names.resolve(name)
    if names.split_name(resolved)[1]:
        return names.get_weights(resolved), names.get_spec(resolved)
    own = names.weights_of(resolved)
    if not own:
        return None, names.get_spec(resolved)
    # weights by the name of their architecture: the only ones, or an error that lists them
    if checkpoint is None or len(own) == 1:
        weights = names.get_weights(resolved)
        return weights, names.get_spec(weights.name)
    # a file of some of them: any will do where all are computed alike
    if any(w.overrides != own[0].overrides for w in own):
        fields = sorted({field for w in own for field in w.overrides})
        raise UsageError(
            f"the weights of {resolved} differ in {', '.join(fields)}, which a file does not show; name the "
            f"weights that yours come from: {', '.join(w.name for w in own[:3])}, ..."
        )
    return own[0], names.get_spec(resolved)


def _dialect(
    file: Checkpoint,
    name: str,
    spec: ViTSpec,
    weights: specs.Weights | None,
) -> wc.Dialect:
    """The table of a dialect, by its name or as the keys of the file tell it."""
    shapes = param_shapes(spec)
    if name == NATIVE or (not name and file.metadata.get("format") == NATIVE):
        return wc.native(shapes)
    if name:
        return wc.named(file.tensors, name)
    if weights is None:
        return wc.detect(file.tensors)

    # two dialects that fit are no question where both give the same parameters and the same function
    def alike(one: wc.Dialect, other: wc.Dialect) -> bool:
        read = wc.reads_alike(one, other, shapes, spec.num_heads)
        return read and same_function(spec, weights, one.name, other.name)

    return wc.detect(file.tensors, [source.dialect for source in weights.sources], alike=alike)


def _resized_table(table: wc.LazyTensor, spec: ViTSpec, final: ViTSpec) -> wc.LazyTensor:
    resized = resample_table(
        table.read(()),
        spec.grid,
        final.grid,
        final.resample,
        prefix=spec.position_prefix,
    )
    return wc.in_memory(resized)
