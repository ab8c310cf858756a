"""The parts of a vision transformer.

Axes: B images, H W C height, width, channels; L tokens, D width, N heads, K head width, F hidden width of the MLP.
Parameters: kernels are (in, out). Norms, softmax and rope are computed in float32 whatever the compute dtype.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fmjax.kernels import xla
from fmjax.kernels.activation import Activate, Normed, aligned
from fmjax.kernels.norm import Fork
from fmjax.models.kernels import BY_XLA, Kernels
from fmjax.models.linear import KERNEL_INIT, Dtype, Linear, Rows, Tokens
from fmjax.models.rope import rotate
from fmjax.specs import ViTSpec

SMALL_INIT = nnx.initializers.truncated_normal(0.02)
Asking = Callable[[Array], Array]  # tokens [B L D] -> all of them, or the leading ones [B T D]


def every(x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
    """All tokens, as they are."""
    return x


class Norm(nnx.Module):
    """Layer normalisation, or RMS normalisation without centring and bias (arXiv:1910.07467), over the last axis.

    The variance is that of the centred values, as torch computes it; everything is in float32.
    """

    def __init__(self, spec: ViTSpec, features: int, *, dtype: Dtype, param_dtype: DTypeLike):
        self.scale = nnx.Param(jnp.ones((features,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((features,), param_dtype)) if spec.norm == "layer" else None
        self.eps = spec.norm_eps
        self.dtype = dtype

    def __call__(self, x: Float[Array, "*B D"], fork: Fork | None = None) -> Float[Array, "*B D"]:
        if fork is not None:
            return self.forked(x, fork)[1]
        y = xla.normalised(x, self.scale[...], self._bias(), self.eps)
        return y.astype(self.dtype or x.dtype)

    def forked(
        self, x: Float[Array, "*B D"], fork: Fork, constant: Float[Array, " D"] | None = None
    ) -> tuple[Float[Array, "*B D"], Float[Array, "*B D"]]:
        """x and x normalised, by a kernel that has both. constant: what is in each row of x without a gradient, and
        has it from here."""
        return fork(x, self.scale[...], self._bias(), self.eps, constant)

    @property
    def parts(self) -> Normed:
        """For a kernel that normalises what it has computed."""
        return Normed(self.scale[...], self._bias(), self.eps)

    def _bias(self) -> Array | None:
        return None if self.bias is None else self.bias[...]


class LayerScale(nnx.Module):
    """A learned factor for each channel (arXiv:2103.17239)."""

    def __init__(self, width: int, *, param_dtype: DTypeLike):
        # a block starts close to the identity, as DINOv2 trains; a published file brings its own
        self.scale = nnx.Param(jnp.full((width,), 1e-5, param_dtype))

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        return xla.scaled(x, self.scale[...])


class PatchEmbed(nnx.Module):
    """Non-overlapping patches, each a row of P P C numbers, times one matrix: a strided convolution in its cheapest
    form."""

    def __init__(self, spec: ViTSpec, *, dtype: Dtype, param_dtype: DTypeLike, rngs: nnx.Rngs):
        shape = (spec.patch_size**2 * 3, spec.width)
        self.kernel = nnx.Param(KERNEL_INIT(rngs.params(), shape, param_dtype))
        self.bias = nnx.Param(jnp.zeros((spec.width,), param_dtype)) if spec.patch_bias else None
        self.patch_size = spec.patch_size
        self.dtype = dtype

    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        p, dtype = self.patch_size, self.dtype or images.dtype
        # what is left over the last whole patch is not read, as by a strided convolution
        height, width = (side // p * p for side in images.shape[1:3])
        images = images[:, :height, :width]
        patches = rearrange(images.astype(dtype), "b (h p) (w q) c -> b h w (p q c)", p=p, q=p)
        bias = None if self.bias is None else self.bias[...]
        return xla.biased(patches @ self.kernel[...].astype(dtype), bias)


class Attention(nnx.Module):
    """Multi-head self-attention with q, k and v stored apart."""

    def __init__(self, spec: ViTSpec, *, dtype: Dtype, param_dtype: DTypeLike, rngs: nnx.Rngs):
        def linear(bias: bool) -> Linear:
            return Linear(width, width, bias=bias, **dtypes, rngs=rngs)

        width, dtypes = spec.width, {"dtype": dtype, "param_dtype": param_dtype}
        self.q = linear(spec.qkv_bias)
        self.k = linear(spec.qkv_bias and spec.k_bias)
        self.v = linear(spec.qkv_bias)
        self.out = linear(spec.bias)
        self.norm = Norm(spec, width, **dtypes) if spec.attn_norm else None
        self.num_heads = spec.num_heads
        self.pairs = spec.rope.pairs if spec.rope else ""

    def __call__(
        self,
        x: Float[Array, "B L D"],
        rope: Float[Array, "2 L K"] | None,
        kernels: Kernels = BY_XLA,
        asking: Asking = every,
        scale: Float[Array, " D"] | None = None,
    ) -> Tokens:
        """asking: which of the tokens look at all of them, and come back. scale: what comes out is multiplied by."""
        y = rearrange(self._attended(x, rope, kernels, asking), "b n l k -> b l (n k)")
        y = y if self.norm is None else self.norm(y, kernels.fork_heads)
        return self.out.scaled(y, scale, kernels)

    def _attended(self, x: Array, rope: Array | None, kernels: Kernels, asking: Asking) -> Array:
        # one node before q and k makes the sum of three gradients v's + (q's + k's), whose last product XLA adds the
        # rest to. Of (v's + k's) + q's that takes a kernel more (an H100 1.4 % of a step of ViT-L/14)
        same = jnp.copy(x) if kernels.joined else x
        inputs = ((self.q, asking(same)), (self.k, same), (self.v, x))
        if kernels.attention.sums and rope is None:
            outputs, biases = zip(*(layer.constant_biased(y) for layer, y in inputs), strict=True)
            q, k, v = (split_heads(y, self.num_heads) for y in outputs)
            return kernels.attention.attend(q, k, v, jax.tree.map(self._rows, biases))

        q, k, v = (split_heads(layer(y), self.num_heads) for layer, y in inputs)
        if rope is not None:
            # v stays: only the angle between a query and a key is to tell their distance
            angles = rope[:, : q.shape[2]]
            q, k = rotate(q, angles, self.pairs), rotate(k, rope, self.pairs)
        return kernels.attention.attend(q, k, v)

    def _rows(self, bias: Float[Array, " D"]) -> Float[Array, "N K"]:
        return rearrange(bias, "(n k) -> n k", n=self.num_heads)


def split_heads(x: Float[Array, "B L D"], heads: int) -> Float[Array, "B N L K"]:
    return rearrange(x, "b l (n k) -> b n l k", n=heads)


class Mlp(nnx.Module):
    """up, activation, down; with a gate: silu(gate x) * (up x), an optional norm, down (SwiGLU, arXiv:2002.05202)."""

    def __init__(
        self,
        spec: ViTSpec,
        hidden: int,
        *,
        gated: bool,
        dtype: Dtype,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        def linear(inputs: int, outputs: int) -> Linear:
            return Linear(inputs, outputs, bias=spec.bias, **dtypes, rngs=rngs)

        width, dtypes = spec.width, {"dtype": dtype, "param_dtype": param_dtype}
        self.gate = linear(width, hidden) if gated else None
        self.up = linear(width, hidden)
        self.down = linear(hidden, width)
        self.norm = Norm(spec, hidden, **dtypes) if gated and spec.mlp_norm else None
        # SwiGLU's activation is part of its form, whatever the row says of plain MLPs
        self.activation = "swiglu" if gated else spec.activation

    def __call__(
        self,
        x: Float[Array, "*B D"],
        kernels: Kernels = BY_XLA,
        scale: Float[Array, " D"] | None = None,
    ) -> Tokens:
        activate = kernels.activate
        y = self._plain(x) if activate is None else self._fused(x, activate)  # *B F
        return self.down.scaled(y, scale, kernels)

    def _plain(self, x: Array) -> Array:
        up = self.up(x)
        activation = xla.ACTIVATIONS[self.activation]
        y = activation(up) if self.gate is None else activation(self.gate(x), up)
        return y if self.norm is None else self.norm(y)

    def _fused(self, x: Array, activate: Activate) -> Array:
        """By a kernel that adds the biases itself, and normalises."""
        layers = [layer for layer in (self.gate, self.up) if layer is not None]
        # filled up here, where a matrix is cast anyway: parameters keep the published width
        width = aligned(self.up.kernel.shape[-1])
        products, biases = zip(*(layer.unbiased(x, width) for layer in layers), strict=True)
        norm = None if self.norm is None else self.norm.parts
        return activate(self.activation, products, biases, norm)


class Block(nnx.Module):
    """One layer: attention and MLP, each a residual branch with its norm before (pre_norm) or after it (post_norm)."""

    def __init__(self, spec: ViTSpec, *, dtype: Dtype, param_dtype: DTypeLike, rngs: nnx.Rngs):
        def norm() -> Norm:
            return Norm(spec, spec.width, **dtypes)

        def scale() -> LayerScale | None:
            return LayerScale(spec.width, param_dtype=param_dtype) if spec.layer_scale else None

        dtypes = {"dtype": dtype, "param_dtype": param_dtype}
        self.norm1, self.norm2 = norm(), norm()
        self.attn = Attention(spec, **dtypes, rngs=rngs)
        self.mlp = Mlp(spec, spec.mlp_dim, gated=spec.mlp == "swiglu", **dtypes, rngs=rngs)
        self.ls1, self.ls2 = scale(), scale()
        self.post_norm = spec.block == "post_norm"

    def attention_branch(
        self,
        x: Float[Array, "B L D"],
        rope: Float[Array, "2 L K"] | None,
        kernels: Kernels = BY_XLA,
        seen: Float[Array, "B L D"] | None = None,
        asking: Asking = every,
    ) -> Tokens:
        """What is added to x [B L D], or to those that ask. seen: x as a kernel has normalised it, which is not done
        again."""
        if self.post_norm:
            return self._behind(self.attn(x, rope, kernels, asking), self.norm1, self.ls1, kernels)
        seen = self.norm1(x) if seen is None else seen
        return self.attn(seen, rope, kernels, asking, _factors(self.ls1))

    def mlp_branch(
        self,
        x: Float[Array, "B L D"],
        kernels: Kernels = BY_XLA,
        seen: Float[Array, "B L D"] | None = None,
    ) -> Tokens:
        """The same of the MLP."""
        if self.post_norm:
            return self._behind(self.mlp(x, kernels), self.norm2, self.ls2, kernels)
        seen = self.norm2(x) if seen is None else seen
        return self.mlp(seen, kernels, _factors(self.ls2))

    @staticmethod
    def _behind(given: Tokens, norm: Norm, scale: LayerScale | None, kernels: Kernels) -> Tokens:
        """The end of a branch with its norm behind it."""
        y = norm(given.whole, kernels.fork)
        return Tokens(y if scale is None else scale(y))

    def attention_ends(self, rows: Rows, kernels: Kernels) -> bool:
        """Whether what the attention's last layer gives is what its branch adds, of so many rows."""
        factors = self.ls1 is None or self.attn.out.folds(rows, kernels)
        return factors and not self.post_norm


def _factors(scale: LayerScale | None) -> Array | None:
    """Those of a layer scale that follows a linear layer."""
    return None if scale is None else scale.scale[...]


class AttentionPool(nnx.Module):
    """One learned query attends to all tokens, then a residual MLP: y + mlp(norm(y)) (big_vision vit.py, MAPHead)."""

    def __init__(self, spec: ViTSpec, *, dtype: Dtype, param_dtype: DTypeLike, rngs: nnx.Rngs):
        def linear() -> Linear:
            return Linear(spec.width, spec.width, bias=True, **dtypes, rngs=rngs)

        dtypes = {"dtype": dtype, "param_dtype": param_dtype}
        self.probe = nnx.Param(SMALL_INIT(rngs.params(), (spec.width,), param_dtype))
        self.q, self.k, self.v = linear(), linear(), linear()
        self.out = linear()
        self.norm = Norm(spec, spec.width, **dtypes)
        # plain and of its own width, also where the blocks are gated
        self.mlp = Mlp(spec, spec.pool_mlp_dim, gated=False, **dtypes, rngs=rngs)
        self.num_heads = spec.pool_heads

    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B D"]:
        probe = self.probe[...].astype(x.dtype)
        probe = jnp.broadcast_to(probe, (x.shape[0], 1, x.shape[2]))
        q = split_heads(self.q(probe), self.num_heads)  # B N 1 K
        k, v = (split_heads(f(x), self.num_heads) for f in (self.k, self.v))  # B N L K
        y = self.out(rearrange(xla.attend(q, k, v), "b n 1 k -> b (n k)"))
        return y + self.mlp(self.norm(y)).whole


def drop_path(
    x: Float[Array, "B L D"],
    rate: Float[Array, ""],
    key: Array | None,
) -> Float[Array, "B L D"]:
    """Drops the branch for a random part of the images and scales the rest up (stochastic depth, arXiv:1603.09382)."""
    if key is None:
        return x
    # one draw an image: the branch is there for all its tokens or for none
    keep = 1 - rate
    # what stays is scaled up, so that the mean over draws is the branch itself
    kept = jax.random.bernoulli(key, keep, (x.shape[0], 1, 1))
    return x * (kept / keep).astype(x.dtype)
