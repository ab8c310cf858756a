"""Compiled programs that are timed: products of matrices, attention, a forward pass, the engine's step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fmjax.bench import noise
from fmjax.engine.ahead import compiled_ahead
from fmjax.engine.costs import Memory, memory_of
from fmjax.engine.fitting import device_bytes
from fmjax.engine.plan import Plan
from fmjax.engine.state import begin
from fmjax.errors import in_gib
from fmjax.kernels.attention import Attend
from fmjax.models.functional import functional, with_params
from fmjax.models.vit import ViT
from fmjax.preprocessing import normalise
from fmjax.specs import PreprocessConfig
from fmjax.trees import Params


@dataclass(frozen=True)
class Ready:
    """A compiled program, and what it is given again and again."""

    program: Any  # jax.stages.Compiled
    arguments: tuple[Any, ...]
    lowering_s: float
    compiling_s: float

    @property
    def memory(self) -> Memory:
        """What the program takes of the device."""
        return memory_of(self.program)

    def run(self, steps: int) -> None:
        """So many calls, to the end of the last."""
        out: Any = None
        for _ in range(steps):
            out = self.program(*self.arguments)
        jax.block_until_ready(out)


def ready(function: Callable[..., Any], *arguments: Any) -> Ready:
    """A function, compiled for these arguments."""
    # tracing is Python's time, compiling XLA's, which a cache on disk may have saved
    start = time.perf_counter()
    lowered = jax.jit(function).lower(*arguments)
    lowered_at = time.perf_counter()
    program = lowered.compile()
    return Ready(program, arguments, lowered_at - start, time.perf_counter() - lowered_at)


def product(rows: int, inner: int, columns: int, *, dtype: DTypeLike) -> Ready:
    """A product of two matrices, which is what a device can do: [rows inner] x [inner columns]."""
    key = jax.random.key(0)
    a = jax.random.normal(key, (rows, inner), dtype)
    b = jax.random.normal(key, (inner, columns), dtype)
    return ready(jnp.matmul, a, b)


def attention(
    attend: Attend, shape: tuple[int, int, int, int], *, dtype: DTypeLike, training: bool
) -> Ready:
    """A kernel of attention alone, forward or both ways. shape: images, heads, tokens, width of a head."""
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, gradient = (jax.random.normal(key, shape, dtype) for key in keys)
    # without gradients a kernel keeps nothing for them
    if not training:
        return ready(attend, q, k, v)

    def both(q: Array, k: Array, v: Array, gradient: Array) -> Any:
        out, back = jax.vjp(attend, q, k, v)
        return out, back(gradient)

    return ready(both, q, k, v, gradient)


def embedder(outline: ViT, images: PreprocessConfig) -> tuple[Any, Params]:
    """A function of parameters and bytes of pictures to embeddings, and the parameters' shapes."""
    shapes = functional(outline)[1]

    # pictures travel as bytes, and are normalised where they are used
    def embed(params: Params, pictures: Array) -> Float[Array, "B E"]:
        return with_params(outline, params).embedding(normalise(pictures, images))

    return jax.jit(embed), shapes


class Step:
    """A compiled step of training on images of noise, and its state."""

    def __init__(self, plan: Plan, mesh: Mesh) -> None:
        self.plan, self.mesh = plan, mesh
        self.ahead = compiled_ahead(plan, mesh)
        self.logs: dict[str, Any] = {}

    @property
    def too_large(self) -> str:
        """Why the step cannot run; "" where it can, or where the device does not say what it has."""
        limit, total = device_bytes(self.mesh, 0.0), self.ahead.memory.total
        if limit is None or total <= limit:
            return ""
        return f"it takes {in_gib(total)} of a device, and {in_gib(limit)} of it may be used"

    def begin(self) -> None:
        """Makes the state and the batch."""
        params = noise.params_of(self.plan, self.mesh)
        self.state = begin(self.plan, params, self.mesh)
        self.batch = noise.batch_of(self.plan, self.mesh)

    def run(self, steps: int) -> None:
        """So many steps, to the end of the last."""
        # each step gives its state's memory up to the next
        for _ in range(steps):
            self.state, self.logs = self.ahead.program(self.state, self.batch)
        jax.block_until_ready(self.logs)

    @property
    def told(self) -> dict[str, float]:
        """What the last step says of itself."""
        return {name: float(self.logs[name]) for name in ("loss", "grad_norm")}
