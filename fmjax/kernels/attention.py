"""Which kernel computes attention: by the devices that a program is made for, the dtype and the shape."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array

from fmjax.errors import UsageError
from fmjax.kernels import cudnn, pallas, trust, xla
from fmjax.kernels.devices import compute_capability, is_half, without_triton
from fmjax.kernels.fused import Biases
from fmjax.sharding import alone, first_device, parts

# auto: the fastest that the devices, the dtype and the shape allow
Kernel = Literal["auto", "xla", "cudnn", "pallas"]
# q, k and v [B N L K] -> [B N L K]; some are given biases too (`Chosen.sums`)
Attend = Callable[..., Array]

# Least compute capability -> the widest head of cuDNN's kernels, both passes (docs.nvidia.com/cudnn, Attention)
WIDEST = ((9.0, 256), (8.0, 128))
PALLAS_WIDEST = 128  # a program holds heads so wide in registers
# Tokens from which on the scores of all heads are too many for a CPU's cache
MANY = 500
# Where the kernel in Pallas is faster than cuDNN's: on Hopper, of heads so wide and up to so many tokens. Of 257 tokens
# an H200 is 1.31 times as fast both ways (heads of 64; of 128: 1.12), of 197 1.33 times, of 577 as fast, of 1370 slower
HOPPER = 9.0
FAST_WIDTHS = (64, 128)
FEW = 400
# of the case that a kernel is tried on: odd, and some beyond a tile of 64
TOKENS = 67
INPUTS = ("q", "k", "v")


def by_pallas(q: Array, k: Array, v: Array, biases: Biases = ()) -> Array:
    """Attention by the kernel in Pallas, in a program of one device."""
    return over(None)(q, k, v, biases)


def over(mesh: Mesh | None) -> Attend:
    """The kernel in Pallas for a mesh, whose language takes longer to import than a model does."""
    return import_module("fmjax.kernels.pallas_attention").over(mesh)


class Chosen(NamedTuple):
    """What computes attention."""

    attend: Attend
    # whether it gives the gradients of biases that are in q, k and v, if it is given these [N K] in a tuple
    sums: bool = False


PLAIN = Chosen(xla.attend)
KERNELS = {"xla": PLAIN, "cudnn": Chosen(cudnn.attend), "pallas": Chosen(by_pallas, sums=True)}
NAMES = {"cudnn": "cuDNN's attention", "pallas": "the kernel of attention"}


def chosen(
    kernel: Kernel,
    mesh: Mesh | None,
    *,
    dtype: DTypeLike,
    heads: int,
    head_dim: int,
    tokens: int,
    images: int = 0,
) -> Chosen:
    """What computes attention in a dtype, of so many heads and tokens, in a program for a mesh.

    images: in a batch; 0: any number that the mesh divides. Raises UsageError where a kernel is asked for by its name
    and cannot run there.
    """
    asked = {"heads": heads, "head_dim": head_dim, "tokens": tokens, "images": images}
    name = named(kernel, mesh, dtype=dtype, **asked)
    if name == "pallas" and not alone(mesh):
        return KERNELS[name]._replace(attend=over(mesh))
    # heads that lie on several devices are not to be gone through, nor those that XLA is asked for
    if name == "xla" and kernel == "auto" and tokens >= MANY and alone(mesh):
        return Chosen(xla.by_head) if first_device(mesh).platform == "cpu" else PLAIN
    return KERNELS[name]


def named(
    kernel: Kernel,
    mesh: Mesh | None,
    *,
    dtype: DTypeLike,
    heads: int,
    head_dim: int,
    tokens: int,
    images: int = 0,
) -> str:
    """That of the kernels which is chosen. Raises UsageError as `chosen` does."""
    # a model in float32 need not know of any device
    if kernel == "xla" or (kernel == "auto" and not is_half(dtype)):
        return "xla"
    device = first_device(mesh)
    reason = partial(unfit, device=device, dtype=dtype, head_dim=head_dim)
    whole = undivided(mesh, heads, images)
    if kernel != "auto":
        found = reason(kernel) or (whole if kernel == "pallas" else "")
        if found:
            raise UsageError(f"--attention {kernel}: {found}; choose xla, or auto")
        return kernel
    faster = is_faster(device, head_dim=head_dim, tokens=tokens) and not whole
    if faster and not reason("pallas"):
        return "pallas"
    return "xla" if reason("cudnn") else "cudnn"


def is_faster(device: Any, *, head_dim: int, tokens: int) -> bool:
    """Whether the kernel in Pallas was measured to be the faster one."""
    capability = compute_capability(device) or 0.0
    hopper = HOPPER <= capability < HOPPER + 1
    return hopper and head_dim in FAST_WIDTHS and tokens <= FEW


def undivided(mesh: Mesh | None, heads: int, images: int) -> str:
    """Why the kernel in Pallas cannot be in a program for a mesh, or for all devices; "" where it can."""
    reason, devices = pallas.undivided(mesh, images), parts(mesh)
    if not reason and heads % devices:
        reason = f"{heads} heads do not divide over {devices} devices of mesh axis 'tensor'"
    return reason


def unfit(kernel: str, *, device: Any, dtype: DTypeLike, head_dim: int) -> str:
    """Why one of the kernels cannot run on a device; "" where it can."""
    # what is known of every device first: what has to be tried takes seconds
    reason = UNFIT[kernel](device, dtype, head_dim)
    return reason or _found_wrong(kernel, dtype, head_dim, device.device_kind)


def _without_cudnn(device: Any, dtype: DTypeLike, head_dim: int) -> str:
    kind, capability = device.device_kind, compute_capability(device)
    if capability is None:
        return f"cuDNN runs on GPUs of NVIDIA, and not on {kind!r}"
    widest = next((width for least, width in WIDEST if capability >= least), 0)
    if not widest:
        return f"cuDNN's attention needs compute capability 8.0, and {kind!r} has {capability}"
    if not is_half(dtype):
        return f"cuDNN's attention is in bfloat16 and float16, and not in {jnp.dtype(dtype)}"
    if head_dim % 8 or head_dim > widest:
        return f"heads are {head_dim} wide, and cuDNN takes multiples of 8 up to {widest}"
    return cudnn.lacking()


def _without_pallas(device: Any, dtype: DTypeLike, head_dim: int) -> str:
    reason = without_triton(device, dtype)
    if not reason and head_dim > PALLAS_WIDEST:
        reason = f"heads are {head_dim} wide, and the kernel takes up to {PALLAS_WIDEST}"
    return reason or lacking()


UNFIT = {"cudnn": _without_cudnn, "pallas": _without_pallas}


@cache
def lacking() -> str:
    """Why this jax makes no kernel in Pallas here; "" where it does."""
    return pallas.lacking(by_pallas, 3, (1, 1, 16, 16))


def _found_wrong(kernel: str, dtype: DTypeLike, head_dim: int, device_kind: str) -> str:
    tried = _tried(KERNELS[kernel], NAMES[kernel], jnp.dtype(dtype), head_dim)
    reason = trust.verdict(tried, device_kind).reason
    return reason and f"on {device_kind!r} {reason}"


@cache
def _tried(by: Chosen, name: str, dtype: Any, head_dim: int) -> trust.Kernel:
    # the same object each time: its functions are part of what a verdict is remembered by
    fast, plain, inputs = by.attend, xla.attend, INPUTS
    if by.sums:
        fast, plain = partial(_fast_case, by.attend), _plain_case
        inputs += ("biases",)
    return trust.Kernel(name, fast, plain, (2, 2, TOKENS, head_dim), str(dtype), inputs)


def _fast_case(attend: Attend, q: Array, k: Array, v: Array, rows: Array) -> Array:
    return attend(q, k, v, _biases(rows))


def _plain_case(q: Array, k: Array, v: Array, rows: Array) -> Array:
    # zeros that have a gradient: nothing is rounded that the other case does not round
    zeros = [(bias - jax.lax.stop_gradient(bias))[:, None] for bias in _biases(rows)]
    return xla.attend(*(x + zero for x, zero in zip((q, k, v), zeros, strict=True)))


def _biases(rows: Array) -> tuple[Array, ...]:
    """Of q, k and v [N K], out of an array as large as they are."""
    return tuple(rows[0, :, index] for index in range(3))


def told(device: Any, dtype: DTypeLike) -> str:
    """The kernels that compute attention in a dtype on a device, in words; tried there if they were not yet."""
    # heads of most towers are so wide
    reason = unfit("cudnn", device=device, dtype=dtype, head_dim=64)
    otherwise = f"XLA's products: {reason}" if reason else "cuDNN's kernels"
    if not is_faster(device, head_dim=64, tokens=FEW):
        return otherwise
    without = unfit("pallas", device=device, dtype=dtype, head_dim=64)
    if without:
        return f"{otherwise}; of few tokens too: {without}"
    return f"a kernel in Pallas up to {FEW} tokens, beyond them {otherwise}"
