"""The same bits on a GPU each time, as on other devices they are anyway."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jaxlib.version
from jax.sharding import Mesh

from fmjax.errors import UsageError

Options = dict[str, Any]
# XLA's own sums by atomic additions and kernels chosen by a stop watch are what differs from run to run. The first row
# forbids both by one name; the second is what it stands for, should a version have dropped it (openxla/xla#12520).
OPTIONS: tuple[Options, ...] = (
    {"xla_gpu_deterministic_ops": True},
    {"xla_gpu_exclude_nondeterministic_ops": True, "xla_gpu_autotune_level": 0},
)


def compiler_options(mesh: Mesh) -> Options | None:
    """What jax.jit is given for --deterministic; None where nothing has to be. Raises UsageError where XLA knows none
    of it."""
    return chosen(mesh.devices.flat[0].platform)


def chosen(platform: str) -> Options | None:
    """The same for a kind of devices."""
    if platform != "gpu":
        return None
    known = [options for options in OPTIONS if _is_known(tuple(options.items()))]
    if not known:
        raise UsageError(
            f"--deterministic needs an option of XLA that jaxlib {jaxlib.version.__version__} does not know; install "
            f"another jaxlib, or leave the flag out"
        )
    return known[0]


@cache
def _is_known(options: tuple[tuple[str, Any], ...]) -> bool:
    """Whether XLA takes these. They are tried on a program of one number: XLA_FLAGS, the other way to
    pass them, would end the process."""
    try:
        jax.jit(lambda x: x + 1, compiler_options=dict(options)).lower(1.0).compile()
    except RuntimeError:
        return False
    return True
