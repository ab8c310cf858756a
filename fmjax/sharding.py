"""The device mesh, and a table that says how each parameter lies on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fmjax.errors import UsageError, amount
from fmjax.trees import first_match

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")  # the mesh axes that images are spread over
OPEN = {-1: "(open)"}  # a size that is whatever the others leave
Axes = tuple[str | tuple[str, ...] | None, ...]
Specs = PartitionSpec | tuple[PartitionSpec, ...]
SPREAD = PartitionSpec(BATCH_AXES)  # over the batch
WHOLE = PartitionSpec()  # on every device

# The axes of one block's parameter; a stacked one has its depth axis, never split, before them. fsdp is always on a
# width that both sides of the model share; tensor on heads and hidden units (arXiv:1909.08053).
RULES: tuple[tuple[str, Axes], ...] = (
    (r"(frozen_)?blocks\.attn\.[qkv]\.kernel", ("fsdp", "tensor")),
    (r"(frozen_)?blocks\.attn\.[qkv]\.bias", ("tensor",)),
    (r"(frozen_)?blocks\.attn\.out\.kernel", ("tensor", "fsdp")),
    (r"(frozen_)?blocks\.mlp\.(up|gate)\.kernel", ("fsdp", "tensor")),
    (r"(frozen_)?blocks\.mlp\.(up|gate)\.bias", ("tensor",)),
    (r"(frozen_)?blocks\.mlp\.down\.kernel", ("tensor", "fsdp")),
    (r"patch_embed\.kernel|pos_embed|registers|summary_tokens", (None, "fsdp")),
    (r"(proj|classifier|pool\.[qkv]|pool\.mlp\.up)\.kernel", ("fsdp", None)),
    (r"pool\.(out|mlp\.down)\.kernel", (None, "fsdp")),
    (r"kernel", ("fsdp", None)),  # of a head that is one layer
    # adapters: a hundredth of their kernels, so that sending parts around would take longer than having all
    (r".*\.lora\.[ab]", ()),
    (r"(.*\.)?(bias|scale|mean|var)|cls_token|pool\.probe", ()),  # vectors: whole on every device
    # no parameter of ours comes here, which a test holds: a new one is to be thought of
    (r".*", ()),
)


def make_mesh(
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """A (data, fsdp, tensor) mesh over the devices; one size may be -1: whatever the others leave.

    Raises UsageError where the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [data, fsdp, tensor]
    # the open size is what the known ones leave, where they divide the devices
    known = int(np.prod([n for n in sizes if n > 0]))
    if sizes.count(-1) == 1 and known and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if min(sizes) < 1 or int(np.prod(sizes)) != len(devices):
        asked = _asked({"data": data, "fsdp": fsdp, "tensor": tensor})
        count = amount(len(devices), "device")
        raise UsageError(
            f"a mesh of {asked} does not fit {count}; set --mesh.data, --mesh.fsdp and --mesh.tensor "
            f"so that their product is {len(devices)}"
        )
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def check_axes(mesh: Mesh | None) -> None:
    """Raises UsageError for a mesh that parameters and images cannot lie on."""
    if mesh is None:
        return
    kinds = [
        f"{name} ({kind.name})" for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
    ]
    wanted = [f"{name} ({AxisType.Auto.name})" for name in AXES]
    if kinds != wanted:
        raise UsageError(
            f"the mesh has the axes {', '.join(kinds)}, where they must be {', '.join(wanted)}; make it by "
            f"fmjax.make_mesh(data, fsdp, tensor)"
        )


def _asked(sizes: Mapping[str, int]) -> str:
    """The sizes of a mesh as a person set them: an axis that is not split was not spoken of."""
    said = {axis: size for axis, size in sizes.items() if size != 1} or {"data": 1}
    return " x ".join(f"{axis} {OPEN.get(size, size)}" for axis, size in said.items())


def param_shardings(shapes: Mapping[str, tuple[int, ...]], mesh: Mesh) -> dict[str, NamedSharding]:
    """Path -> sharding. Raises UsageError for the first dimension that does not divide over its mesh axis."""
    return {path: NamedSharding(mesh, _spec(path, shape, mesh)) for path, shape in shapes.items()}


def _spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    # rows are of one block's parameter: a stacked one has more axes before them, which are not split
    axes = first_match(path, RULES)
    axes = (None,) * (len(shape) - len(axes)) + axes if axes else ()
    for size, axis in zip(shape, axes, strict=False):
        if axis is not None and size % mesh.shape[axis]:
            raise UsageError(
                f"{path} {shape}: dimension {size} does not divide over {mesh.shape[axis]} devices of mesh axis "
                f"{axis!r}; set --mesh.{axis}"
            )
    # an axis of one device splits nothing, and is left out: the compiled program says so plainly
    one_device = {axis: None for axis in mesh.axis_names if mesh.shape[axis] == 1}
    return PartitionSpec(*(one_device.get(axis, axis) for axis in axes))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Images and labels: spread over data and fsdp."""
    return NamedSharding(mesh, SPREAD)


def over_batch(x: Any, mesh: Mesh | None) -> Any:
    """Activations [B ...] kept spread over the batch, in both passes, so that it is the weights which are gathered.

    x: an array or a tree of them. mesh: None for one device.
    """
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, batch_sharding(mesh))


def by_device(
    function: Callable[..., Any], *arrays: Any, mesh: Mesh | None, given: Specs, found: Specs
) -> Any:
    """A function of arrays where each device computes with its own part of them, and gives that part of the results.

    For kernels, which XLA cannot divide. given, found: where the arrays and the results lie, by axes that divide them;
    one for all of them, or one for each.
    """
    if alone(mesh):
        return function(*arrays)
    divided = jax.shard_map(function, mesh=mesh, in_specs=given, out_specs=found, check_vma=False)
    return divided(*arrays)


def of_batch(sums: Any, mesh: Mesh | None) -> Any:
    """In a function `by_device`: sums over a device's own images -> over those of all devices."""
    return sums if alone(mesh) else jax.lax.psum(sums, BATCH_AXES)


def parts(mesh: Mesh | None) -> int:
    """Over how many devices heads and hidden units are split."""
    return 1 if mesh is None else mesh.shape["tensor"]


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, WHOLE)


def batch_divisor(mesh: Mesh | None) -> int:
    """Over how many devices a batch is split; without a mesh over one."""
    if mesh is None:
        return 1
    return int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))


def split(mesh: Mesh | None) -> bool:
    """Whether devices share the parameters, and gather them before they are used."""
    return mesh is not None and mesh.shape["fsdp"] > 1


def alone(mesh: Mesh | None) -> bool:
    """Whether a program for a mesh, or for none, is of one device."""
    return mesh is None or mesh.size == 1


def first_device(mesh: Mesh | None = None) -> Any:
    """A device that a program for a mesh is made for; without one the device that jax puts it on."""
    if mesh is not None:
        return mesh.devices.flat[0]
    config: Any = jax.config
    default = config.jax_default_device
    # a device, or the name of a platform
    if default is None or isinstance(default, str):
        return jax.devices(default)[0]
    return default
