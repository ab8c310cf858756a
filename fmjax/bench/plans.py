"""The plan of a run that has no images: its step on shapes alone, for devices that may not be here."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from fmjax.config.run import RunConfig
from fmjax.engine.backbone import outlined, preprocessing
from fmjax.engine.plan import Plan, make_task, resolve

CLASSES = tuple(f"class {number}" for number in range(1000))


def planned(config: RunConfig, mesh: Mesh) -> Plan:
    """The plan of a config that classifies a thousand classes, on a mesh."""
    # as batches travel: pictures as bytes
    images, count = preprocessing(config), config.batch_size
    fields = {
        "image": ((count, *images.image_size, 3), jnp.uint8),
        "label": ((count,), jnp.int32),
        "weight": ((count,), jnp.float32),
    }
    batch = {name: jax.ShapeDtypeStruct(*field) for name, field in fields.items()}
    task = make_task(config, images)
    return resolve(config, task, outlined(config, mesh), CLASSES, images, batch)
