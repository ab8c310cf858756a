"""The one vision transformer: it reads a ViTSpec and is every backbone of the zoo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fmjax.errors import UsageError
from fmjax.kernels import activation, attention, norm
from fmjax.models.features import Features
from fmjax.models.heads import classifier_head, classifier_input, projection
from fmjax.models.kernels import Asked, chosen
from fmjax.models.layers import (
    SMALL_INIT,
    AttentionPool,
    Block,
    Norm,
    PatchEmbed,
)
from fmjax.models.linear import Dtype, Linear
from fmjax.models.resample import resample_grid
from fmjax.models.rope import rope_table
from fmjax.models.stack import Remat, Unroll, between, run_stack
from fmjax.sharding import check_axes, over_batch, parts
from fmjax.specs import ClassifierInput, DropPathBy, ModelFacts, ViTSpec, check_image_size

Grid = tuple[int, int]


class Embedded(NamedTuple):
    """Images as tokens, before the first block."""

    tokens: Float[Array, "B L D"]
    grid: Grid  # rows and columns of patches
    rope: Float[Array, "2 L K"] | None  # sine and cosine for every token


class ViT(nnx.Module):
    """A vision transformer. Blocks are stacked: each of their parameters has a leading depth axis.

    Its stages are `embed`, `run_blocks`, `final_norm` and `features`; a call is all of them, with pooling, projection
    and classifier.
    """

    def __init__(
        self,
        spec: ViTSpec,
        *,
        rngs: nnx.Rngs,
        num_classes: int = 0,
        classifier: ClassifierInput = "pool",
        drop_path: float = 0.0,
        drop_path_by: DropPathBy = "image",
        attention: attention.Kernel = "auto",
        norms: norm.Kernel = "auto",
        activations: activation.Kernel = "auto",
        remat: Remat = "none",
        unroll: Unroll = "auto",
        dtype: Dtype = None,
        param_dtype: DTypeLike = jnp.float32,
        mesh: Mesh | None = None,
    ):
        def norm_if(wanted: bool) -> Norm | None:
            return Norm(spec, spec.width, **dtypes) if wanted else None

        def small_if(wanted: bool, *shape: int) -> nnx.Param | None:
            return nnx.Param(SMALL_INIT(rngs.params(), shape, param_dtype)) if wanted else None

        check_axes(mesh)
        _check_heads(spec, mesh)
        # random numbers are drawn in the order of these lines: moving one changes what a seed gives
        dtypes = {"dtype": dtype, "param_dtype": param_dtype}
        width, rows, columns = spec.width, *spec.grid
        self.patch_embed = PatchEmbed(spec, **dtypes, rngs=rngs)
        self.patch_norm = norm_if(spec.patch_norm)
        self.cls_token = small_if(spec.num_cls > 0, width)
        self.summary_tokens = small_if(spec.num_cls > 1, spec.num_cls - 1, width)
        self.registers = small_if(spec.num_registers > 0, spec.num_registers, width)
        positions = spec.position_prefix + rows * columns
        self.pos_embed = small_if(spec.positions != "none", positions, width)
        self.norm_pre = norm_if(spec.norm_pre)
        # the leading blocks that are not trained (see `surgery.split_blocks`), and all others
        self.frozen_blocks: Block | None = nnx.data(None)
        self.blocks = jax.vmap(lambda key: Block(spec, **dtypes, rngs=nnx.Rngs(key)))(
            jax.random.split(rngs.params(), spec.depth)
        )
        self.norm = norm_if(spec.final_norm and not spec.norm_after_pool)
        self.pool = AttentionPool(spec, **dtypes, rngs=rngs) if spec.pool == "map" else None
        self.fc_norm = norm_if(spec.norm_after_pool)
        self.proj = projection(spec, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.classifier: Linear | None = nnx.data(None)
        if num_classes:
            self.classifier = classifier_head(
                spec,
                num_classes,
                classifier,
                rngs=rngs,
                param_dtype=param_dtype,
            )
        self.spec = spec
        self.facts: ModelFacts | None = None  # of a run's model, and of a published classifier
        self.classifier_input: ClassifierInput = classifier
        self.drop_path = drop_path
        self.drop_path_by: DropPathBy = drop_path_by
        self.kernels = Asked(attention, norms, activations)
        self.remat: Remat = remat
        self.unroll: Unroll = unroll
        self.dtype = dtype
        self.mesh = mesh

    def __call__(self, images: Float[Array, "B H W C"], key: Array | None = None) -> Features:
        """Features of normalised images of any height and width that are multiples of the patch.

        A key switches drop path on. Raises UsageError, with the nearest sizes, for an image size that does not fit.
        """
        return self.completed(self.unprojected(images, key))

    def completed(self, features: Features) -> Features:
        """What `unprojected` gives, with logits and with `pooled` projected, where the model has these layers."""
        logits = None
        if self.classifier is not None:
            seen = over_batch(classifier_input(features, self.classifier_input), self.mesh)
            logits = self.classifier(seen)
        pooled: Any = features.pooled
        if self.proj is not None:
            pooled = self.proj(pooled)
        return replace(features, pooled=pooled, logits=logits)

    def embedding(
        self, images: Float[Array, "B H W C"], key: Array | None = None
    ) -> Float[Array, "B E"]:
        """`pooled` of a call alone: where it is made of class tokens, the last block computes no other token."""
        pooled = self.classifier_sees(images, key=key)
        return pooled if self.proj is None else self.proj(pooled)

    def logits(
        self, images: Float[Array, "B H W C"], key: Array | None = None
    ) -> Float[Array, "B K"]:
        """`logits` of a call alone, as `embedding`. Raises UsageError for a model without a classifier."""
        if self.classifier is None:
            fix = "make it with num_classes, or see `embedding`"
            raise UsageError(f"{self.spec.name} has no classifier, so it has no logits; {fix}")
        seen = self.classifier_sees(images, self.classifier_input, key=key)
        return self.classifier(over_batch(seen, self.mesh))

    def classifier_sees(
        self,
        images: Float[Array, "B H W C"],
        classifier: ClassifierInput = "pool",
        *,
        key: Array | None = None,
    ) -> Float[Array, "B I"]:
        """What a classifier sees (`heads.classifier_input`); of class tokens alone the last block computes no other.

        A key switches drop path on. Raises UsageError for an image size that does not fit.
        """
        if not self.spec.of_class_tokens(classifier):
            return classifier_input(self.unprojected(images, key), classifier)
        x, grid, rope = self.embed(images)
        x = self.run_blocks(x, rope, key=key, few=self.spec.num_cls)
        normed = over_batch(self.final_norm(x), self.mesh)
        return normed[:, 0] if classifier == "cls" else self._pooled(x, normed, grid)

    def predict(self, images: Any, *, top: int = 5) -> Any:
        """`fmjax.predict(self, images, top=top)`: the likeliest classes of a picture, or of each of several."""
        import fmjax

        return fmjax.predict(self, images, top=top)

    def unprojected(self, images: Float[Array, "B H W C"], key: Array | None = None) -> Features:
        """Features whose `pooled` are the pooled tokens [B P] before any projection: what a classifier sees.

        A key switches drop path on. Raises UsageError for an image size that does not fit.
        """
        x, grid, rope = self.embed(images)
        return self.gathered(self.run_blocks(x, rope, key=key), grid)

    def gathered(self, x: Float[Array, "B L D"], grid: Grid) -> Features:
        """Tokens after the last block told apart, with the pooled ones before any projection."""
        normed = self.final_norm(x)
        features = replace(self.features(normed, grid), pooled=self._pooled(x, normed, grid))
        # a head's kernel may be split along the width: its gradient for the tokens must not come back split so, too
        return over_batch(features, self.mesh)

    def intermediates(
        self,
        images: Float[Array, "B H W C"],
        layers: int | Sequence[int] = 4,
        norm: bool = False,
        *,
        key: Array | None = None,
    ) -> list[Features]:
        """Features after some of the blocks, `pooled` None in them.

        layers: the last so many, or increasing indices, from the end where negative. norm: with the final norm. A key
        switches drop path on, and drops what a call with that key drops. Raises UsageError for layers that the model
        has not, and for an image size that does not fit.
        """
        # the blocks run in parts, each of which goes on from the last
        wanted = self._indices(layers)
        x, grid, rope = self.embed(images)
        found, start = [], 0
        for index in wanted:
            x = self.run_blocks(x, rope, start=start, stop=index + 1, key=key)
            start = index + 1
            found.append(self.features(self.final_norm(x) if norm else x, grid))
        return found

    def _indices(self, layers: int | Sequence[int]) -> list[int]:
        depth = self.spec.depth
        if isinstance(layers, int):
            wanted = list(range(depth - layers, depth))
        else:
            wanted = [index + depth * (index < 0) for index in layers]
        increasing = wanted == sorted(set(wanted))
        if not wanted or not increasing or min(wanted) < 0 or max(wanted) >= depth:
            fix = f"pass a count from 1 to {depth}, or increasing indices below {depth}"
            raise UsageError(f"layers={layers}: {fix}")
        return wanted

    def embed(self, images: Float[Array, "B H W C"]) -> Embedded:
        """Normalised images as tokens [B L D] with their positions, the grid (h, w) of their patches, and its rope.

        The tokens are: class tokens, registers, h w patches; or with the registers last. Raises UsageError for an image
        size that does not fit.
        """
        spec = self.spec
        check_image_size(images.shape[1:3], spec)
        patches = self._patches(images)  # B h w D
        grid: Grid = (patches.shape[1], patches.shape[2])
        # registers stand where the authors' code puts them: it decides nothing for attention, and everything for slices
        registers = [] if self.registers is None else [self.registers[...]]
        leading, last = [*self._class_tokens(), *registers], []
        if spec.register_position == "end":
            leading, last = [*self._class_tokens()], registers

        def of_each(tokens: Array) -> Array:  # T D -> B T D
            shape = (images.shape[0], *tokens.shape)
            return jnp.broadcast_to(tokens.astype(patches.dtype), shape)

        rows = rearrange(patches, "b h w d -> b (h w) d")
        parts = [*map(of_each, leading), rows, *map(of_each, last)]
        x = jnp.concatenate(parts, 1)  # B L D
        if self.norm_pre is not None:
            x = self.norm_pre(x)
        return Embedded(x, grid, rope_table(spec, grid))

    def _patches(self, images: Array) -> Array:
        """One token for every patch [B h w D], its position added."""
        patches = self.patch_embed(images)
        if self.patch_norm is not None:
            patches = self.patch_norm(patches)
        if self.pos_embed is None:
            return patches
        # the parameter keeps the published size; its table is resampled while tracing
        spec, grid = self.spec, (patches.shape[1], patches.shape[2])
        table = self.pos_embed[spec.position_prefix :]
        table = rearrange(table, "(h w) d -> h w d", h=spec.grid[0])
        return patches + resample_grid(table, grid, spec.resample).astype(patches.dtype)

    def _class_tokens(self) -> Iterator[Array]:
        """The class token [1 D] with its position, then the summaries [S D], which have none."""
        if self.cls_token is not None:
            token = self.cls_token[...]
            if self.pos_embed is not None and self.spec.position_prefix:
                token = token + self.pos_embed[0]
            yield token[None]
        if self.summary_tokens is not None:
            yield self.summary_tokens[...]

    def run_blocks(
        self,
        x: Float[Array, "B L D"],
        rope: Float[Array, "2 L K"] | None,
        *,
        start: int = 0,
        stop: int | None = None,
        key: Array | None = None,
        few: int | None = None,
    ) -> Float[Array, "B T D"]:
        """Tokens after the blocks from `start` to before `stop`; None: to the last.

        few: so many leading tokens alone, which is all that the last of these blocks computes; None: all.
        A key switches drop path on; a block drops the same whether it runs with the others or in a part of them.
        """
        # all rates and keys are made, whatever the part: a block's own do not depend on it
        depth, training = self.spec.depth, key is not None
        stop = depth if stop is None else stop
        rates = jnp.asarray(np.linspace(0, self.drop_path, depth), jnp.float32)
        key = key if self.drop_path else None  # with nothing to drop, nothing is drawn
        keys = None if key is None else jax.random.split(key, depth)
        # a batch of any size, as an exported program has it, is shared evenly no more than one image is
        images = x.shape[0] if isinstance(x.shape[0], int) else 1
        shapes = {"dtype": self.dtype or x.dtype, "images": images, "tokens": x.shape[1]}
        kernels = chosen(self.kernels, self.spec, self.mesh, **shapes)
        stacks = [stack for stack in (self.frozen_blocks, self.blocks) if stack is not None]
        for blocks, depths in between(stacks, start, stop):
            own = None if keys is None else keys[depths]
            x = run_stack(
                blocks,
                x,
                rope=rope,
                rates=rates[depths],
                keys=own,
                kernels=kernels,
                remat=self.remat,
                unroll=self.unroll,
                mesh=self.mesh,
                few=few if depths.stop == stop else None,
                training=training,
                subset=self.drop_path * (self.drop_path_by == "subset"),
            )
        return x

    def final_norm(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """All tokens after the final norm, which some models only apply to their mean (fc_norm) and some have not."""
        norm = self.norm or self.fc_norm
        return x if norm is None else norm(x)

    def features(self, x: Float[Array, "B L D"], grid: Grid) -> Features:
        """Tokens told apart: cls [B D], registers [B R D], summary [B S D], patches [B h w D]; `pooled` is None."""
        spec, count = self.spec, grid[0] * grid[1]
        # class tokens come first; then registers and patches, in the one order or the other
        registers_at = patches_at = spec.num_cls
        if spec.register_position == "after_cls":
            patches_at += spec.num_registers
        else:
            registers_at += count
        patches = x[:, patches_at : patches_at + count]
        registers = None
        if spec.num_registers:
            registers = x[:, registers_at : registers_at + spec.num_registers]
        cls = x[:, 0] if spec.num_cls else None
        summary = x[:, : spec.num_cls] if spec.num_cls > 1 else None
        return Features(
            pooled=None,
            cls=cls,
            registers=registers,
            patches=rearrange(patches, "b (h w) d -> b h w d", h=grid[0]),
            summary=summary,
        )

    def _pooled(self, x: Array, normed: Array, grid: Grid) -> Array:
        """One vector for an image out of its tokens without and with the final norm, before any projection."""
        if self.pool is not None:
            return self.pool(normed)
        if self.spec.pool == "cls":
            return rearrange(normed[:, self.spec.pool_tokens, :], "b t d -> b (t d)")
        if self.fc_norm is None:
            return self.features(normed, grid).patches.mean((1, 2))
        # the norm of the mean, not the mean of what the norm gives
        return self.fc_norm(self.features(x, grid).patches.mean((1, 2)))


def _check_heads(spec: ViTSpec, mesh: Mesh | None) -> None:
    """Raises UsageError where a head would lie on two devices: its tokens would be gathered again in every block."""
    count = parts(mesh)
    if spec.num_heads % count:
        fitting = [each for each in range(1, spec.num_heads + 1) if spec.num_heads % each == 0]
        raise UsageError(
            f"{spec.name} has {spec.num_heads} heads, which do not divide over {count} devices of mesh axis 'tensor'; "
            f"set --mesh.tensor to {', '.join(map(str, fitting[:-1]))} or {fitting[-1]}"
        )
