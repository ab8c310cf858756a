"""Batches on the hosts -> arrays on the mesh: each process has the rows that its devices hold."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fmjax.config.run import MeshConfig
from fmjax.data.batches import HOST_FIELDS, Batch
from fmjax.engine.hosts import is_first
from fmjax.errors import UsageError
from fmjax.sharding import batch_sharding, make_mesh, replicated
from fmjax.trees import Params


def simulate_devices(count: int) -> None:
    """So many CPU devices in the place of one; 0 changes nothing. To be called before the first use of a device.

    Raises UsageError where it is too late for that, and where the devices are no CPUs.
    """
    if not count:
        return
    # XLA's pool has a thread for each device, and one that waits in two exchanges at once leaves another without
    os.environ.setdefault("NPROC", str(max(2 * count, os.cpu_count() or 1)))
    # once jax has started its devices it refuses, though they may be those that are asked for
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.local_devices()
    platform = devices[0].platform
    if platform != "cpu":
        raise UsageError(
            f"--simulate-devices {count} are parts of a CPU, and this process runs on {len(devices)} devices of "
            f"{platform}; set JAX_PLATFORMS=cpu, or leave the flag out"
        )
    if len(devices) != count:
        raise UsageError(
            f"--simulate-devices {count} comes too late: this process has started {len(devices)} CPU devices already; "
            f"pass it to a new process"
        )


def mesh_of(config: MeshConfig, tell: Callable[[str], object] | None = None) -> Mesh:
    """The mesh that a config asks for, over all devices, or over simulated ones.

    tell: is told of a GPU that is there and is none of them.
    """
    simulate_devices(config.simulate_devices)
    if tell is not None:
        for line in idle_gpu(config):
            tell(line)
    return make_mesh(config.data, config.fsdp, config.tensor)


def idle_gpu(config: MeshConfig, files: Path = Path("/dev")) -> list[str]:
    """The line of a command that would compute on the CPU beside an NVIDIA GPU, which nobody has asked for; none where
    all is well. files: where the devices of a system are."""
    asked = config.simulate_devices or "JAX_PLATFORMS" in os.environ
    if asked or jax.devices()[0].platform != "cpu" or not (files / "nvidia0").exists():
        return []
    return ["note    an NVIDIA GPU is there, and jax computes on the CPU; `fmjax doctor` says why"]


def own_rows(batch_size: int, mesh: Mesh) -> list[int] | None:
    """The rows of a batch that this process's devices hold, in order; None where those are all."""
    if jax.process_count() == 1:
        return None
    held: Any = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    # devices that differ in the tensor axis hold the same rows
    return sorted({row for (part,) in held.values() for row in range(*part.indices(batch_size))})


def on_mesh(batch: Batch, mesh: Mesh, batch_size: int | None = None) -> dict[str, jax.Array]:
    """The arrays that a step needs of a batch, spread over the devices; which examples they are stays on the host.

    batch: its rows that `own_rows` names. batch_size: of the whole; None where the batch is whole.
    """
    place = batch_sharding(mesh)
    size = len(batch["weight"]) if batch_size is None else batch_size
    rows = own_rows(size, mesh)

    def placed(array: np.ndarray) -> jax.Array:
        if rows is None:
            return jax.make_array_from_process_local_data(place, array)
        # a device's rows follow each other in the batch, so they do among those of this process
        first = {row: here for here, row in enumerate(rows)}

        def part(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(size)
            return array[first[start] : first[start] + stop - start]

        return jax.make_array_from_callback((size, *array.shape[1:]), place, part)

    return {name: placed(array) for name, array in batch.items() if name not in HOST_FIELDS}


def on_host(params: Params, mesh: Mesh) -> Params:
    """Parameters that the first process can read: as they are where it holds all of them, else copies in its host's
    memory, brought there one after the other. All processes must call it; in the others they are shapes."""
    if jax.process_count() == 1:
        return params
    whole = jax.jit(lambda x: x, out_shardings=replicated(mesh))

    def read(leaf: jax.Array) -> Any:
        here = whole(leaf)
        return np.asarray(here) if is_first() else jax.ShapeDtypeStruct(here.shape, here.dtype)

    return jax.tree.map(read, params)
