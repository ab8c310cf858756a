"""What is timed when there is nothing to learn: parameters and pictures of noise."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, UInt8

from fmjax.engine.plan import Plan
from fmjax.engine.state import net_shardings
from fmjax.sharding import batch_sharding
from fmjax.trees import Params, flat, nested

POOL = 2**22 + 1  # numbers that are drawn; no width divides it, so that no two rows are alike
DEVIATION = 0.02  # of parameters, as they start


@cache
def _pool() -> Float[np.ndarray, " N"]:
    return np.random.default_rng(0).standard_normal(POOL, np.float32) * np.float32(DEVIATION)


def noise(name: str, shape: tuple[int, ...]) -> Float[np.ndarray, "*S"]:
    """Numbers like those of a parameter: a device takes more power for them than for zeros, and is slower."""
    if name.endswith("scale"):
        return np.ones(shape, np.float32)
    return np.resize(_pool(), shape)


def filled(shapes: Params) -> Params:
    """Parameters of these shapes and dtypes, on the first device."""
    leaves = flat(shapes).items()
    return nested({name: jnp.asarray(noise(name, x.shape), x.dtype) for name, x in leaves})


def params_of(plan: Plan, mesh: Mesh) -> Params:
    """Parameters of a plan's net, on the mesh."""
    leaves = flat(plan.net)
    places = net_shardings({name: x.shape for name, x in leaves.items()}, mesh)
    return nested(
        {name: jax.device_put(noise(name, x.shape), places[name]) for name, x in leaves.items()}
    )


def batch_of(plan: Plan, mesh: Mesh) -> dict[str, Any]:
    """A batch of pictures and labels, on the mesh."""
    count, height, width, _ = plan.batch["image"].shape
    labels = np.random.default_rng(1).integers(0, len(plan.labels), count, np.int32)
    batch = {
        "image": pictures(count, (height, width)),
        "label": labels,
        "weight": np.ones(count, np.float32),
    }
    return jax.device_put(batch, batch_sharding(mesh))


def pictures(count: int, size: tuple[int, int]) -> UInt8[np.ndarray, "B H W 3"]:
    """Pictures as they travel. size: height and width."""
    return np.random.default_rng(2).integers(0, 256, (count, *size, 3), np.uint8)
