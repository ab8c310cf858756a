"""What jax says of this machine's devices, as a line of JSON: run in a process of its own, which a flag of XLA or a
broken driver can end without ending who asks."""

from __future__ import annotations

import json
import sys
from typing import Any


def look() -> dict[str, Any]:
    """The devices of this process, after one product of matrices on the first."""
    import jax
    import jax.numpy as jnp

    from fmjax.kernels import activation, attention, norm
    from fmjax.models.build import compute_dtype

    devices = jax.devices()
    # a device that is listed may still fail at its first kernel
    jnp.dot(jnp.ones((8, 8)), jnp.ones((8, 8))).block_until_ready()
    stats = devices[0].memory_stats() or {}
    dtype = compute_dtype("auto")
    return {
        "platform": devices[0].platform,
        "kinds": [device.device_kind for device in devices],
        "memory_bytes": stats.get("bytes_limit"),
        "dtype": str(dtype),
        "attention": attention.told(devices[0], dtype),
        "norms": norm.told(devices[0], dtype),
        "activations": activation.told(devices[0], dtype),
        "compile_cache": getattr(jax.config, "jax_compilation_cache_dir", None) or "",
        "error": "",
    }


if __name__ == "__main__":
    sys.stdout.write(f"\n{json.dumps(look())}\n")
