"""The same bits on a GPU each time, as on other devices they are anyway."""

from __future__ import annotations

import jaxlib.version
from jax.sharding import Mesh

from fmjax.engine.compiler import Options, refusal
from fmjax.errors import UsageError

# XLA's own sums by atomic additions and kernels chosen by a stop watch are what differs from run to run. The first row
# forbids both by one name; the second is what it stands for, should a version have dropped it (openxla/xla#12520).
OPTIONS: tuple[Options, ...] = (
    {"xla_gpu_deterministic_ops": True},
    {"xla_gpu_exclude_nondeterministic_ops": True, "xla_gpu_autotune_level": 0},
)


def of_same_bits(mesh: Mesh) -> Options:
    """What jax.jit is given for --deterministic. Raises UsageError where XLA knows none of it."""
    return chosen(mesh.devices.flat[0].platform)


def chosen(platform: str) -> Options:
    """The same for a kind of devices; none where nothing has to be."""
    if platform != "gpu":
        return {}
    known = [options for options in OPTIONS if not refusal(tuple(options.items()))]
    if not known:
        raise UsageError(
            f"--deterministic needs an option of XLA that jaxlib {jaxlib.version.__version__} does not know; install "
            f"another jaxlib, or leave the flag out"
        )
    return known[0]
