"""Floating-point operations of a backbone, counted from its spec. Imports no jax."""

from __future__ import annotations

from dataclasses import dataclass

from fmjax.specs import ViTSpec


@dataclass(frozen=True)
class Flops:
    """Of one image, two for each multiply-add of a matrix product; norms, activations and softmax are left out, as is
    usual. The sums are those of open_clip's docs/model_profile.csv."""

    embedding: int
    block: int  # one of `depth`
    depth: int
    head: int  # pooling and projection
    scores: int  # of a block's: the products of tokens with each other, in which there is no kernel
    tokens: int

    @property
    def forward(self) -> int:
        """One way through the network."""
        return self.embedding + self.depth * self.block + self.head

    def training(
        self,
        *,
        frozen_blocks: int = 0,
        embedding: bool = True,
        head: bool = True,
        kernels: bool = True,
        adapters: int = 0,
    ) -> int:
        """One way there and back; what a layer computes again for its backward pass is not counted.

        frozen_blocks: leading ones, which only go there, as the embedding and the head do where they are False.
        kernels: whether those of the other blocks are trained. adapters: how many numbers are, beside the kernels.
        """
        # a product of x and a kernel has two more on the way back: for the gradient of each (arXiv:2204.02311, app. B);
        # of images nobody asks for the gradient
        trained = self.depth - frozen_blocks
        blocks = self.block * (frozen_blocks + 3 * trained)
        if not kernels:
            blocks -= (self.block - self.scores) * trained
        # every token meets every number of an adapter once there and twice back
        beside = 6 * self.tokens * adapters
        return self.embedding * (1 + embedding) + blocks + beside + self.head * (1 + 2 * head)


def flops(spec: ViTSpec) -> Flops:
    """Of images of the spec's own size."""
    patches = spec.grid[0] * spec.grid[1]
    tokens = patches + spec.num_cls + spec.num_registers
    # q, k, v and out; then each token with each other, twice; then up (and gate) and down
    projections = 4 * tokens * spec.width**2
    scores = 2 * tokens**2 * spec.width
    matrices = 3 if spec.mlp == "swiglu" else 2
    mlp = matrices * tokens * spec.width * spec.mlp_dim
    return Flops(
        embedding=2 * patches * 3 * spec.patch_size**2 * spec.width,
        block=2 * (projections + scores + mlp),
        depth=spec.depth,
        head=2 * (_pool(spec, tokens) + spec.pool_dim * spec.embed_dim),
        scores=2 * scores,
        tokens=tokens,
    )


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
