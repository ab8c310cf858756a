"""A linear layer: its product and its bias, together or apart, and the factors behind them.

A bias has as its gradient the sum over all tokens of theirs, which takes XLA a pass over them. Kernels behind the layer
hold them anyway: where these give that sum, the bias is a constant in the output, and they are handed it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fmjax.kernels import xla
from fmjax.kernels.activation import filled
from fmjax.models.kernels import Kernels

KERNEL_INIT = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
ZEROS = nnx.initializers.zeros_init()  # of a classifier: the first loss is log(number of classes)
# the name of what a linear layer gives, among what is kept for the backward pass
PRODUCT = "product"
Init = Callable[..., Array]
Dtype = DTypeLike | None
Rows = tuple[Any, ...]  # sizes of all axes but the last; of an exported program one is open


class Tokens(NamedTuple):
    """Tokens between two layers."""

    x: Float[Array, "*B D"]
    # in each of them, with a gradient that it has from the norm behind; None: nothing of the kind
    constant: Float[Array, " D"] | None = None

    @property
    def whole(self) -> Float[Array, "*B D"]:
        """Where no such norm is behind."""
        return self.x if self.constant is None else xla.holding(self.x, self.constant)


class Linear(nnx.Module):
    """x @ kernel + bias, in the compute dtype."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool,
        dtype: Dtype,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
        init: Init = KERNEL_INIT,
    ):
        self.kernel = nnx.Param(init(rngs.params(), (inputs, outputs), param_dtype))
        self.bias = nnx.Param(jnp.zeros((outputs,), param_dtype)) if bias else None
        # what is added to the output where only that is trained (see `lora.with_adapters`)
        self.lora: Callable[[Array], Array] | None = nnx.data(None)
        self.dtype = dtype

    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        return self._output(x, self.kernel[...], self._bias())

    def scaled(
        self, x: Float[Array, "*B W"], scale: Float[Array, " O"] | None, kernels: Kernels
    ) -> Tokens:
        """The output times a factor for each of its numbers, if there are factors; x may have zeros behind."""
        kernel, bias = filled(self.kernel[...], x.shape[-1], axis=0), self._bias()
        behind = scale
        if scale is not None and self.folds(x.shape[:-1], kernels):
            kernel, bias, behind = kernel * scale, _times(bias, scale), None
        y = self._output(x, kernel, _constant(bias) if kernels.held else bias)
        if behind is not None:
            y = xla.scaled(y, behind)
            # they have had all of their gradient
            bias = _times(bias, jax.lax.stop_gradient(behind))
        held = bias if kernels.held else None
        return Tokens(y, None if held is None else held.astype(jnp.float32))

    def folds(self, rows: Rows, kernels: Kernels) -> bool:
        """Whether factors are multiplied into the kernel: where that is smaller than its input, nothing goes over the
        output once more, on both ways."""
        # float16 has no numbers as small as a weight times a layer scale, and float32 keeps the bits that it had
        narrow = self.dtype is not None and jnp.dtype(self.dtype) == jnp.bfloat16
        if not (kernels.folded and narrow and self.lora is None):
            return False
        # a batch of any size, as an exported program has it, may be one image
        count = math.prod(size for size in rows if isinstance(size, int))
        return count >= self.kernel.shape[0]

    def unbiased(
        self, x: Float[Array, "*B I"], width: int
    ) -> tuple[Float[Array, "*B W"], Float[Array, " W"] | None]:
        """The output without the bias, and the bias, for what adds it itself; with zeros behind, to a width."""
        bias = self._bias()
        y = self._output(x, filled(self.kernel[...], width), None)
        return y, None if bias is None else filled(bias, width)

    def constant_biased(
        self, x: Float[Array, "*B I"]
    ) -> tuple[Float[Array, "*B O"], Float[Array, " O"] | None]:
        """The output with the bias as a constant, and the bias, for what gives its gradient itself."""
        bias = self._bias()
        return self._output(x, self.kernel[...], _constant(bias)), bias

    def _bias(self) -> Array | None:
        return None if self.bias is None else self.bias[...]

    def _output(self, x: Array, kernel: Array, bias: Array | None) -> Array:
        x = x.astype(self.dtype or x.dtype)
        # one axis of rows: of two, XLA on a CPU copies the gradient in another layout to multiply it with x (a tenth of
        # a step)
        rows = x.reshape(-1, x.shape[-1])
        y = xla.biased(rows @ kernel.astype(x.dtype), bias)
        if self.lora is not None:
            # adapters have the layer's own sizes
            y = y + filled(self.lora(rows[:, : self.kernel.shape[0]]), y.shape[-1])
        # kept with its bias (`stack.run_stack`), or the bias is added apart from the product, and twice
        return checkpoint_name(y.reshape(*x.shape[:-1], y.shape[-1]), PRODUCT)


def _constant(bias: Array | None) -> Array | None:
    return None if bias is None else jax.lax.stop_gradient(bias)


def _times(bias: Array | None, scale: Array) -> Array | None:
    return None if bias is None else bias * scale
