"""Pieces that many tables share: a linear layer, a norm, and the joined projections of attention."""

from dataclasses import replace

from weights_conversion.dialect import Dialect, Names, Rule
from weights_conversion.transforms import LINEAR, LINEAR_SPLIT, SPLIT

Rules = tuple[Rule, ...]
QKV = "qkv"
GATE = "blocks.mlp.gate.kernel"  # the models with a gated MLP
# the models with a norm inside a gated MLP, whose files keep q, k and v, and gate and value, apart
GATED_NORM = "blocks.mlp.norm.scale"


def linear(torch: str, jax: str, *, when: Names = (), unless: Names = ()) -> Rules:
    """torch's weight and bias <-> kernel and bias."""
    return (
        Rule(f"{torch}.weight", f"{jax}.kernel", LINEAR, when=when, unless=unless),
        Rule(f"{torch}.bias", f"{jax}.bias", when=when, unless=unless),
    )


def norm(torch: str, jax: str) -> Rules:
    """torch's weight and bias <-> scale and bias."""
    return Rule(f"{torch}.weight", f"{jax}.scale"), Rule(f"{torch}.bias", f"{jax}.bias")


def joined(
    weight: str, bias: str, parent: str, parts: tuple[str, ...], *, when: Names = (), unless: Names = ()
) -> Rules:
    """One torch layer <-> several layers side by side: "attn" and ("q", "k", "v")."""
    kernels, biases = (tuple(f"{parent}.{part}.{leaf}" for part in parts) for leaf in ("kernel", "bias"))
    return (
        Rule(weight, kernels, LINEAR_SPLIT[len(parts)], when=when, unless=unless),
        Rule(bias, biases, SPLIT[len(parts)], when=when, unless=unless),
    )


def gate_and_up(torch: str, *, when: Names = (), unless: Names = ()) -> Rules:
    """A layer that holds the gate and the value of a SwiGLU, in that order."""
    return joined(f"{torch}.weight", f"{torch}.bias", "blocks.{i}.mlp", ("gate", "up"), when=when, unless=unless)


def pytorch_attention(torch: str, jax: str) -> Rules:
    """torch.nn.MultiheadAttention."""
    return (
        *joined(f"{torch}.in_proj_weight", f"{torch}.in_proj_bias", jax, tuple(QKV)),
        *linear(f"{torch}.out_proj", f"{jax}.out"),
    )


def with_classifier(table: Dialect, parent: str, sees: str) -> Dialect:
    """The spelling of a transformers dialect that has a classifier beside the backbone."""
    rules = tuple(rule.under(parent) for rule in table.rules)
    return replace(
        table,
        rules=(*rules, *linear("classifier", "classifier")),
        extras={parent + key: why for key, why in table.extras.items()} | {"classifier.*": "classifier"},
        requires=("classifier.weight", *(parent + str(key) for key in table.requires)),
        forbids=tuple(parent + key for key in table.forbids if key != "classifier.*"),
        leads=("",),
        classifier=sees,
    )
