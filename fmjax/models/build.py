"""A name -> a model with random parameters, or with none yet."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from fmjax.kernels import activation, norm
from fmjax.kernels.attention import Kernel
from fmjax.kernels.devices import compute_capability
from fmjax.models.draws import unrolled
from fmjax.models.linear import Dtype
from fmjax.models.stack import Remat, Unroll
from fmjax.models.vit import ViT
from fmjax.names import get_spec
from fmjax.sharding import param_shardings
from fmjax.specs import ClassifierInput, DropPathBy, ViTSpec, check_image_size
from fmjax.trees import flat

ImageSize = int | tuple[int, int]


def create(
    name: str,
    *,
    rngs: nnx.Rngs | None = None,
    image_size: ImageSize | None = None,
    num_classes: int = 0,
    classifier: ClassifierInput = "pool",
    drop_path: float = 0.0,
    drop_path_by: DropPathBy = "image",
    attention: Kernel = "auto",
    norms: norm.Kernel = "auto",
    activations: activation.Kernel = "auto",
    remat: Remat = "none",
    unroll: Unroll = "auto",
    dtype: Dtype = None,
    param_dtype: DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
) -> ViT:
    """A model with random parameters, born on the mesh.

    rngs: nnx.Rngs(0) where None.
    image_size: in pixels, one side or (height, width), that the position table is made for; None: the published one.
    num_classes: width of a new classifier, which starts at zero; 0 for none.
    classifier: what it is computed from.
    drop_path: the last block's rate; blocks before it have less, linearly.
    drop_path_by: "image", each by a draw of its own; "subset": every block has the rate, and computes its branches for
    so many images less.
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
    mesh: where the parameters lie; None is one device.
    Raises UsageError for an unknown name or an image size that does not fit.
    """
    # the table is made for the size: there are no weights whose own one could be resampled
    return initialise(
        resized(get_spec(name), image_size),
        rngs,
        num_classes=num_classes,
        classifier=classifier,
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


def initialise(
    spec: ViTSpec,
    rngs: nnx.Rngs | None = None,
    *,
    num_classes: int = 0,
    classifier: ClassifierInput = "pool",
    drop_path: float = 0.0,
    drop_path_by: DropPathBy = "image",
    attention: Kernel = "auto",
    norms: norm.Kernel = "auto",
    activations: activation.Kernel = "auto",
    remat: Remat = "none",
    unroll: Unroll = "auto",
    dtype: Dtype = None,
    param_dtype: DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
) -> ViT:
    """`create`, for a spec of your own; the options are those of `create`."""
    # the model is made twice: as an outline, which says where each array lies, and inside jit, where it is born there
    make = functools.partial(
        ViT,
        spec,
        num_classes=num_classes,
        classifier=classifier,
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
    outline = jax.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    key = (rngs or nnx.Rngs(0)).params()
    # the leaves alone leave the jitted function: only they can be given shardings
    leaves = jax.jit(
        lambda key: jax.tree.leaves(make(rngs=nnx.Rngs(unrolled(key)))),
        out_shardings=leaf_shardings(outline, mesh),
    )(key)
    return jax.tree.unflatten(jax.tree.structure(outline), leaves)


def abstract(
    spec: ViTSpec,
    *,
    num_classes: int = 0,
    classifier: ClassifierInput = "pool",
    drop_path: float = 0.0,
    drop_path_by: DropPathBy = "image",
    attention: Kernel = "auto",
    norms: norm.Kernel = "auto",
    activations: activation.Kernel = "auto",
    remat: Remat = "none",
    unroll: Unroll = "auto",
    dtype: Dtype = None,
    param_dtype: DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
) -> ViT:
    """The model with shapes in the place of arrays, which costs no memory; the options are those of `create`."""
    # nothing is drawn from the key: it is traced like everything else
    return jax.eval_shape(
        lambda: ViT(
            spec,
            rngs=nnx.Rngs(0),
            num_classes=num_classes,
            classifier=classifier,
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
    )


def leaf_shardings(model: ViT, mesh: Mesh | None) -> list[Any] | None:
    """One sharding for each array of a model, in the order of jax.tree.leaves; None without a mesh."""
    if mesh is None:
        return None
    shapes = {path: leaf.shape for path, leaf in flat(model).items()}
    return list(param_shardings(shapes, mesh).values())


def resized(spec: ViTSpec, image_size: ImageSize | None) -> ViTSpec:
    """The spec with a position table for another image size. Raises UsageError where it is no multiple of the patch."""
    if image_size is None:
        return spec
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    check_image_size(size, spec)
    return replace(spec, image_size=size)


@functools.lru_cache(maxsize=512)
def param_shapes(
    spec: ViTSpec, num_classes: int = 0, classifier: ClassifierInput = "pool"
) -> Mapping[str, tuple[int, ...]]:
    """Path -> shape of every parameter of a backbone, and of a classifier."""
    model = abstract(spec, num_classes=num_classes, classifier=classifier)
    # the same mapping for every caller of the cache, so none of them may write to it
    return MappingProxyType({path: leaf.shape for path, leaf in flat(model).items()})


# Least compute capability of NVIDIA's devices -> what is fast there: bfloat16 since Ampere, float16 since Volta, whose
# products of matrices know it alone, float32 before
GPU_DTYPES = ((8.0, "bfloat16"), (7.0, "float16"), (0.0, "float32"))


def compute_dtype(name: str) -> Any:
    """The compute dtype behind "float32", "bfloat16", "float16", or "auto": that of the first device's platform.

    float16 has bfloat16's speed and a narrower range; training scales its loss.
    """
    if name != "auto":
        return jnp.dtype(name)
    device = jax.devices()[0]
    if device.platform == "cpu":
        return jnp.dtype("float32")
    capability = compute_capability(device)
    if capability is None:  # other makers' devices have bfloat16
        return jnp.dtype("bfloat16")
    return jnp.dtype(next(dtype for least, dtype in GPU_DTYPES if capability >= least))
