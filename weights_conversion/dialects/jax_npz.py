"""npz files of Google's JAX code: big_vision's SigLIP (big_vision models/vit.py), with blocks stacked or apart, and the
AugReg ViTs (vision_transformer vit_jax/models.py)."""

from dataclasses import replace

from weights_conversion.dialect import Dialect, Rule
from weights_conversion.dialects.parts import Rules
from weights_conversion.transforms import HEADS_IN, HEADS_OUT, HWIO, IN_OUT, LEAD_1, LEAD_2

_NAMES = {"q": "query", "k": "key", "v": "value"}
_READ_ONLY = "npz files are not written; export to timm or transformers"


def _dense(theirs: str, ours: str) -> Rules:
    return Rule(f"{theirs}/kernel", f"{ours}.kernel", IN_OUT), Rule(
        f"{theirs}/bias", f"{ours}.bias"
    )


def _norm(theirs: str, ours: str) -> Rules:
    return Rule(f"{theirs}/scale", f"{ours}.scale"), Rule(f"{theirs}/bias", f"{ours}.bias")


def _attention(theirs: str, ours: str) -> Rules:
    return (
        *(
            Rule(f"{theirs}/{name}/kernel", f"{ours}.{part}.kernel", HEADS_OUT)
            for part, name in _NAMES.items()
        ),
        *(
            Rule(f"{theirs}/{name}/bias", f"{ours}.{part}.bias", HEADS_OUT)
            for part, name in _NAMES.items()
        ),
        Rule(f"{theirs}/out/kernel", f"{ours}.out.kernel", HEADS_IN),
        Rule(f"{theirs}/out/bias", f"{ours}.out.bias"),
    )


def _mlp(theirs: str, ours: str) -> Rules:
    return (
        *_dense(f"{theirs}/Dense_0", f"{ours}.up"),
        *_dense(f"{theirs}/Dense_1", f"{ours}.down"),
    )


def _block(theirs: str, ours: str, attention: int, second: int, mlp: int) -> Rules:
    """A block; flax numbers its parts by kind (big_vision) or by order of creation (vit_jax)."""
    return (
        *_norm(f"{theirs}/LayerNorm_0", f"{ours}.norm1"),
        *_attention(f"{theirs}/MultiHeadDotProductAttention_{attention}", f"{ours}.attn"),
        *_norm(f"{theirs}/LayerNorm_{second}", f"{ours}.norm2"),
        *_mlp(f"{theirs}/MlpBlock_{mlp}", f"{ours}.mlp"),
    )


_EMBED = (
    Rule("embedding/kernel", "patch_embed.kernel", HWIO),
    Rule("embedding/bias", "patch_embed.bias"),
)
_BIG_VISION = (
    *_EMBED,
    Rule("pos_embedding", "pos_embed", LEAD_1),
    *_norm("Transformer/encoder_norm", "norm"),
    Rule("MAPHead_0/probe", "pool.probe", LEAD_2),
    *_attention("MAPHead_0/MultiHeadDotProductAttention_0", "pool"),
    *_norm("MAPHead_0/LayerNorm_0", "pool.norm"),
    *_mlp("MAPHead_0/MlpBlock_0", "pool.mlp"),
)
_TEXT = {"params/txt/*": "text tower", "txt/*": "text tower", "params/t": "contrastive temperature"}
_TEXT |= {"params/b": "contrastive bias", "t": "contrastive temperature", "b": "contrastive bias"}

BIG_VISION_NPZ = Dialect(
    name="big_vision_npz",
    prefix="img/",
    rules=(*_BIG_VISION, *_block("Transformer/encoderblock", "blocks", 0, 1, 0)),
    extras=_TEXT,
    requires=("img/embedding/kernel", "img/Transformer/encoderblock/LayerNorm_0/scale"),
    containers=("params/", ""),
    read_only=_READ_ONLY,
)
BIG_VISION_NPZ_APART = replace(
    BIG_VISION_NPZ,
    rules=(*_BIG_VISION, *_block("Transformer/encoderblock_{i}", "blocks.{i}", 0, 1, 0)),
    requires=("img/embedding/kernel", "img/Transformer/encoderblock_0/LayerNorm_0/scale"),
)
AUGREG_NPZ = Dialect(
    name="augreg_npz",
    rules=(
        *_EMBED,
        Rule("cls", "cls_token", LEAD_2),
        Rule("Transformer/posembed_input/pos_embedding", "pos_embed", LEAD_1),
        *_block("Transformer/encoderblock_{i}", "blocks.{i}", 1, 2, 3),
        *_norm("Transformer/encoder_norm", "norm"),
        *_dense("head", "classifier"),
    ),
    extras={"pre_logits/*": "representation layer, which its published successors left out"},
    requires=("Transformer/encoderblock_0/LayerNorm_0/scale", "cls"),
    read_only=_READ_ONLY,
)
