"""Batches on the host -> arrays on the mesh."""

from __future__ import annotations

import jax
from jax.sharding import Mesh

from fmjax.config.run import MeshConfig
from fmjax.data.batches import HOST_FIELDS, Batch
from fmjax.sharding import batch_sharding, make_mesh


def mesh_of(config: MeshConfig) -> Mesh:
    """The mesh that a config asks for, over all devices."""
    return make_mesh(config.data, config.fsdp, config.tensor)


def on_mesh(batch: Batch, mesh: Mesh) -> dict[str, jax.Array]:
    """The arrays that a step needs of a batch, spread over the devices; which examples they are stays on the host."""
    # each process brings the part of the batch that its own devices keep
    place = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(place, array)
        for name, array in batch.items()
        if name not in HOST_FIELDS
    }
