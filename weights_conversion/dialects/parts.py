"""Pieces that many tables share: a linear layer, a norm, and the joined projections of attention."""

from collections.abc import Mapping
from dataclasses import replace

from weights_conversion.dialect import Dialect, Names, Rule
from weights_conversion.transforms import LINEAR, LINEAR_SPLIT, SPLIT

Rules = tuple[Rule, ...]
QKV = ("q", "k", "v")
QKV_KERNELS = ("blocks.{i}.attn.q.kernel", "blocks.{i}.attn.k.kernel", "blocks.{i}.attn.v.kernel")
# torch's name of a layer of attention -> ours
PROJECTIONS = {"q_proj": "q", "k_proj": "k", "v_proj": "v"}
TRANSFORMERS_VIT = {
    "attention.query": "q",
    "attention.key": "k",
    "attention.value": "v",
    "output.dense": "out",
}
GATE = "blocks.mlp.gate.kernel"  # the models with a gated MLP
# the models with a norm inside a gated MLP, whose files keep q, k and v, and gate and value, apart
GATED_NORM = "blocks.mlp.norm.scale"


def linear(torch: str, jax: str, *, when: Names = (), unless: Names = ()) -> Rules:
    """torch's weight and bias <-> kernel and bias."""
    return (
        Rule(f"{torch}.weight", f"{jax}.kernel", LINEAR, when=when, unless=unless),
        Rule(f"{torch}.bias", f"{jax}.bias", when=when, unless=unless),
    )


def linears(
    torch: str, jax: str, layers: Mapping[str, str], *, when: Names = (), unless: Names = ()
) -> Rules:
    """Several linear layers of one parent, by torch's names and ours."""
    rules: list[Rule] = []
    for theirs, ours in layers.items():
        rules += linear(f"{torch}.{theirs}", f"{jax}.{ours}", when=when, unless=unless)
    return tuple(rules)


def norm(torch: str, jax: str) -> Rules:
    """torch's weight and bias <-> scale and bias."""
    return Rule(f"{torch}.weight", f"{jax}.scale"), Rule(f"{torch}.bias", f"{jax}.bias")


def joined_linear(
    torch: str, jax: str, parts: tuple[str, ...], *, when: Names = (), unless: Names = ()
) -> Rules:
    """One torch layer <-> several side by side: "attn.qkv", "attn" and ("q", "k", "v")."""
    return joined(f"{torch}.weight", f"{torch}.bias", jax, parts, when=when, unless=unless)


def joined(
    weight: str,
    bias: str,
    jax: str,
    parts: tuple[str, ...],
    *,
    when: Names = (),
    unless: Names = (),
) -> Rules:
    """One torch weight and one bias <-> those of several layers, one behind the other in their rows."""
    kernels = tuple(f"{jax}.{part}.kernel" for part in parts)
    biases = tuple(f"{jax}.{part}.bias" for part in parts)
    return (
        Rule(weight, kernels, LINEAR_SPLIT[len(parts)], when=when, unless=unless),
        Rule(bias, biases, SPLIT[len(parts)], when=when, unless=unless),
    )


def gate_and_up(torch: str, *, when: Names = (), unless: Names = ()) -> Rules:
    """A layer that holds the gate and the value of a SwiGLU, in that order."""
    return joined_linear(torch, "blocks.{i}.mlp", ("gate", "up"), when=when, unless=unless)


def pytorch_attention(torch: str, jax: str) -> Rules:
    """torch.nn.MultiheadAttention, whose joined projection is no layer and names its tensors apart."""
    return (
        *joined(f"{torch}.in_proj_weight", f"{torch}.in_proj_bias", jax, QKV),
        *linear(f"{torch}.out_proj", f"{jax}.out"),
    )


def with_classifier(table: Dialect, parent: str, sees: str) -> Dialect:
    """The spelling of a transformers dialect that has a classifier beside the backbone."""
    rules = tuple(rule.under(parent) for rule in table.rules)
    extras = {parent + key: why for key, why in table.extras.items()}
    # the backbone's own table forbids a classifier, and is not one of those that lie under a parent
    forbids = tuple(parent + key for key in table.forbids if key != "classifier.*")
    return replace(
        table,
        rules=(*rules, *linear("classifier", "classifier")),
        extras=extras | {"classifier.*": "classifier"},
        requires=("classifier.weight", *(parent + str(key) for key in table.requires)),
        forbids=forbids,
        containers=("",),
        classifier=sees,
    )
