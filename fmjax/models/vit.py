"""The one vision transformer: it reads a ViTSpec and is every backbone of the zoo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fmjax.errors import UsageError
from fmjax.models.features import Features
from fmjax.models.heads import classifier_input, classifier_width
from fmjax.models.layers import SMALL_INIT, ZEROS, AttentionPool, Block, Dtype, Linear, Norm, PatchEmbed, drop_path
from fmjax.models.resample import resample_grid
from fmjax.models.rope import rope_table
from fmjax.sharding import BATCH_AXES
from fmjax.specs import ClassifierInput, ViTSpec, check_image_size

Remat = Literal["none", "dots", "full"]  # what a block keeps for its backward pass: everything, its products, its input
Grid = tuple[int, int]


class ViT(nnx.Module):
    """A vision transformer. Blocks are stacked: each of their parameters has a leading depth axis."""

    def __init__(
        self,
        spec: ViTSpec,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 0,
        classifier: ClassifierInput = "pool",
        drop_path: float = 0.0,
        remat: Remat = "none",
        unroll: bool = False,
        dtype: Dtype = None,
        param_dtype: DTypeLike = jnp.float32,
        mesh: Mesh | None = None,
    ):
        def norm() -> Norm:
            return Norm(spec, spec.width, dtype=dtype, param_dtype=param_dtype)

        def small(*shape: int) -> nnx.Param:
            return nnx.Param(SMALL_INIT(rngs.params(), shape, param_dtype))

        parts = {"dtype": dtype, "param_dtype": param_dtype}
        positions = spec.position_prefix + spec.grid[0] * spec.grid[1]
        self.patch_embed = PatchEmbed(spec, **parts, rngs=rngs)
        self.patch_norm = norm() if spec.patch_norm else None
        self.cls_token = small(spec.width) if spec.num_cls else None
        self.summary_tokens = small(spec.num_cls - 1, spec.width) if spec.num_cls > 1 else None
        self.registers = small(spec.num_registers, spec.width) if spec.num_registers else None
        self.pos_embed = small(positions, spec.width) if spec.positions != "none" else None
        self.norm_pre = norm() if spec.norm_pre else None
        self.frozen_blocks: Block | None = nnx.data(None)  # the leading blocks that are not trained: see `split_blocks`
        self.blocks = jax.vmap(lambda key: Block(spec, **parts, rngs=nnx.Rngs(key)))(
            jax.random.split(rngs.params(), spec.depth)
        )
        self.norm = norm() if spec.final_norm and not spec.norm_after_pool else None
        self.pool = AttentionPool(spec, **parts, rngs=rngs) if spec.pool == "map" else None
        self.fc_norm = norm() if spec.norm_after_pool else None
        linear = partial(Linear, param_dtype=param_dtype, rngs=rngs)
        self.proj = linear(spec.pool_dim, spec.embed_dim, bias=spec.proj_bias, dtype=dtype) if spec.embed_dim else None
        inputs = classifier_width(spec, classifier) if num_classes else 0
        self.classifier = linear(inputs, num_classes, bias=True, dtype=jnp.float32, init=ZEROS) if num_classes else None
        self.spec = spec
        self.classifier_input: ClassifierInput = classifier
        self.drop_path = drop_path
        self.remat: Remat = remat
        self.unroll = unroll
        self.dtype = dtype
        self.mesh = mesh

    def __call__(self, images: Float[Array, "B H W C"], key: Array | None = None) -> Features:
        """Features of normalised images of any height and width that are multiples of the patch.

        A key switches drop path on. Raises UsageError, with the nearest sizes, for an image size that does not fit.
        """
        x, grid, rope = self._embed(images)
        x = self._run(x, rope, key, 0, self.spec.depth)
        tokens = self._normed(x)
        features = self._features(tokens, grid)
        pool = self._pooled(x, tokens, features, grid)
        features = replace(features, pooled=pool if self.proj is None else self.proj(pool))
        if self.classifier is None:
            return features
        seen = classifier_input(pool, features, self.classifier_input).astype(jnp.float32)
        return replace(features, logits=self.classifier(seen))

    def intermediates(
        self, images: Float[Array, "B H W C"], layers: int | Sequence[int] = 4, norm: bool = False
    ) -> list[Features]:
        """Features after some of the blocks: the last `layers`, or those of the given indices, with the final norm or
        not."""
        depth = self.spec.depth
        wanted = (
            list(range(depth - layers, depth)) if isinstance(layers, int) else [i + depth * (i < 0) for i in layers]
        )
        if not wanted or min(wanted) < 0 or max(wanted) >= depth or wanted != sorted(set(wanted)):
            raise UsageError(f"layers={layers}: pass a count from 1 to {depth}, or increasing indices below {depth}")
        x, grid, rope = self._embed(images)
        out, start = [], 0
        for index in wanted:
            x = self._run(x, rope, None, start, index + 1)
            start = index + 1
            out.append(self._features(self._normed(x) if norm else x, grid))
        return out

    def _embed(self, images: Array) -> tuple[Array, Grid, Array | None]:
        spec = self.spec
        check_image_size(images.shape[1:3], spec)
        patches = self.patch_embed(images)  # B h w D
        patches = patches if self.patch_norm is None else self.patch_norm(patches)
        grid: Grid = (patches.shape[1], patches.shape[2])
        if self.pos_embed is not None:
            table = rearrange(self.pos_embed[spec.position_prefix :], "(h w) d -> h w d", h=spec.grid[0])
            patches = patches + resample_grid(table, grid, spec.resample).astype(patches.dtype)

        def token(value: Array) -> Array:  # T D -> B T D
            return jnp.broadcast_to(value.astype(patches.dtype), (images.shape[0], *value.shape))

        registers = [] if self.registers is None else [token(self.registers[...])]
        before, after = (registers, []) if spec.register_position == "after_cls" else ([], registers)
        leading = [token(tokens) for tokens in self._class_tokens()]
        x = jnp.concatenate([*leading, *before, rearrange(patches, "b h w d -> b (h w) d"), *after], 1)  # B L D
        return x if self.norm_pre is None else self.norm_pre(x), grid, rope_table(spec, grid)

    def _class_tokens(self) -> Iterator[Array]:
        """The class token with its position, then the summaries, which have none."""
        if self.cls_token is not None:
            position = 0 if self.pos_embed is None or not self.spec.position_prefix else self.pos_embed[0]
            yield (self.cls_token[...] + position)[None]
        if self.summary_tokens is not None:
            yield self.summary_tokens[...]

    def _normed(self, x: Array) -> Array:
        """All tokens after the final norm, which some models only apply to their mean (fc_norm) and some have not."""
        norm = self.norm or self.fc_norm
        return x if norm is None else norm(x)

    def _features(self, x: Array, grid: Grid) -> Features:
        spec, tokens = self.spec, grid[0] * grid[1]
        after_cls = spec.register_position == "after_cls"
        first = spec.num_cls + (spec.num_registers if after_cls else 0)
        start = spec.num_cls if after_cls else spec.num_cls + tokens
        return Features(
            pooled=None,
            cls=x[:, 0] if spec.num_cls else None,
            registers=x[:, start : start + spec.num_registers] if spec.num_registers else None,
            patches=rearrange(x[:, first : first + tokens], "b (h w) d -> b h w d", h=grid[0]),
            summary=x[:, : spec.num_cls] if spec.num_cls > 1 else None,
        )

    def _pooled(self, x: Array, tokens: Array, features: Features, grid: Grid) -> Array:
        """One vector for an image, before any projection: x are the tokens without, `tokens` those with the norm."""
        if self.pool is not None:
            return self.pool(tokens)
        if self.spec.pool == "cls":
            return rearrange(tokens[:, self.spec.pool_tokens, :], "b t d -> b (t d)")
        if self.fc_norm is not None:
            return self.fc_norm(self._features(x, grid).patches.mean((1, 2)))
        return features.patches.mean((1, 2))

    def _run(self, x: Array, rope: Array | None, key: Array | None, start: int, stop: int) -> Array:
        rates = jnp.asarray(np.linspace(0, self.drop_path, self.spec.depth), jnp.float32)
        keys = None if key is None else jax.random.split(key, self.spec.depth)
        for blocks, low, high in self._stacks(start, stop):
            here = None if keys is None else keys[low:high]
            x = self._scan(blocks, x, rope, rates[low:high], here)
        return x

    def _stacks(self, start: int, stop: int) -> Iterator[tuple[Block, int, int]]:
        """The stacked blocks between two depths, each with the depths that it covers."""
        offset = 0
        for stack in (self.frozen_blocks, self.blocks):
            if stack is None:
                continue
            size = stack.norm1.scale.shape[0]
            low, high = max(start, offset), min(stop, offset + size)
            if low < high:
                part = stack if high - low == size else jax.tree.map(lambda a: a[low - offset : high - offset], stack)  # noqa: B023
                yield part, low, high
            offset += size

    def _scan(self, blocks: Block, x: Array, rope: Array | None, rates: Array, keys: Array | None) -> Array:
        def body(x: Array, layer: tuple[Block, Array, Array | None]) -> tuple[Array, None]:
            block, rate, key = layer
            first, second = (None, None) if key is None else jax.random.split(key)
            x = self._constrain(x)
            x = self._constrain(x + drop_path(block.attention_branch(x, rope), rate, first))
            return x + drop_path(block.mlp_branch(x), rate, second), None

        return jax.lax.scan(_rematerialised(body, self.remat), x, (blocks, rates, keys), unroll=self.unroll or 1)[0]

    def _constrain(self, x: Array) -> Array:
        """Keeps the activations spread over the batch, so that it is the weights which are gathered."""
        if self.mesh is None:
            return x
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, PartitionSpec(BATCH_AXES)))


def _rematerialised(body, policy: Remat):
    if policy == "none":
        return body
    saved = None if policy == "full" else jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(body, policy=saved, prevent_cse=False)
