"""Floating-point operations of a backbone, counted from its spec. Imports no jax."""

from __future__ import annotations

from dataclasses import dataclass

from fmjax.specs import ViTSpec


@dataclass(frozen=True)
class Block:
    """Of one block."""

    products: int
    scores: int  # of these, the products of tokens with each other, in which there is no kernel

    def back(self, *, kernels: bool) -> int:
        """Of the way back, with the gradients of its kernels or without."""
        # a product of x and a kernel has two more there: for the gradient of each (arXiv:2204.02311, app. B); one of
        # tokens with each other has both in any case
        return self.products + self.scores + kernels * (self.products - self.scores)


@dataclass(frozen=True)
class Flops:
    """Of one image, two for each multiply-add of a matrix product; norms, activations and softmax are left out, as is
    usual. The sums are those of open_clip's docs/model_profile.csv."""

    embedding: int
    blocks: tuple[Block, ...]
    head: int  # pooling and projection
    tokens: int

    @property
    def forward(self) -> int:
        """One way through the network."""
        return self.embedding + sum(block.products for block in self.blocks) + self.head

    def training(
        self,
        *,
        frozen_blocks: int = 0,
        embedding: bool = True,
        head: bool = True,
        kernels: bool = True,
        adapters: int = 0,
        dropped: float = 0.0,
    ) -> int:
        """One way there and back; what a layer computes again for its backward pass is not counted.

        frozen_blocks: leading ones, which only go there, as the embedding and the head do where they are False.
        kernels: whether those of the other blocks are trained. adapters: how many numbers are, beside the kernels.
        dropped: the share of the images that each block leaves out.
        """
        # in blocks: there, back, and every token meets every number of an adapter once there and twice back
        inside = sum(block.products for block in self.blocks) + 6 * self.tokens * adapters
        inside += sum(block.back(kernels=kernels) for block in self.blocks[frozen_blocks:])
        # of images nobody asks for the gradient
        outside = self.embedding * (1 + embedding) + self.head * (1 + 2 * head)
        return outside + round(inside * (1 - dropped))


def flops(spec: ViTSpec, *, patches: bool = True) -> Flops:
    """Of images of the spec's own size. patches: whether what the last block makes of them is asked for; else what is
    needed for the class tokens alone is counted."""
    count = spec.grid[0] * spec.grid[1]
    tokens = count + spec.num_cls + spec.num_registers
    last = _block(spec, tokens, tokens if patches else spec.num_cls)
    return Flops(
        embedding=2 * count * 3 * spec.patch_size**2 * spec.width,
        blocks=(_block(spec, tokens, tokens),) * (spec.depth - 1) + (last,),
        head=2 * (_pool(spec, tokens) + spec.pool_dim * spec.embed_dim),
        tokens=tokens,
    )


def embedding_flops(spec: ViTSpec) -> Flops:
    """Of what `ViT.embedding` computes: its pooled tokens alone."""
    return flops(spec, patches=not spec.of_class_tokens())


def _block(spec: ViTSpec, tokens: int, asking: int) -> Block:
    """Of a block whose first tokens, so many, ask all of them and come back."""
    # k and v; q and out; then up (and gate) and down
    matrices = 3 if spec.mlp == "swiglu" else 2
    projections = 2 * (tokens + asking) * spec.width**2
    mlp = matrices * asking * spec.width * spec.mlp_dim
    # each with every token, twice
    scores = 2 * asking * tokens * spec.width
    return Block(2 * (projections + scores + mlp), 2 * scores)


def attention_flops(
    images: int, heads: int, tokens: int, width: int, *, training: bool = False
) -> int:
    """Of attention alone, for all images. width: of a head. training: both ways; backward there are five products of
    the two's size, as a fused kernel makes the scores again (arXiv:2205.14135, alg. 4)."""
    products = 7 if training else 2
    return 2 * products * images * heads * tokens**2 * width


def _pool(spec: ViTSpec, tokens: int) -> int:
    """Multiply-adds of the attention pool: keys and values of all tokens, one query, and its MLP."""
    if spec.pool != "map":
        return 0
    attention = 2 * tokens * spec.width**2 + 2 * tokens * spec.width + 2 * spec.width**2
    return attention + 2 * spec.width * spec.pool_mlp_dim
