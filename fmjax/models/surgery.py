"""Models out of models: blocks in two stacks and in one again, a classifier put on and taken off."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fmjax.errors import UsageError
from fmjax.models.heads import classifier_width
from fmjax.models.linear import Linear
from fmjax.models.vit import ViT
from fmjax.specs import ClassifierInput


def split_blocks(model: ViT, frozen: int) -> ViT:
    """The same function with its first `frozen` blocks in a stack of their own, which costs no gradient if left out
    of it."""
    if not 0 < frozen < model.spec.depth or model.frozen_blocks is not None:
        raise ValueError(f"frozen={frozen}: split once, between 1 and {model.spec.depth - 1}")
    out = jax.tree.map(lambda a: a, model)  # another module, the same arrays
    out.frozen_blocks = jax.tree.map(lambda a: a[:frozen], model.blocks)
    out.blocks = jax.tree.map(lambda a: a[frozen:], model.blocks)
    return out


def join_blocks(model: ViT) -> ViT:
    """Undoes `split_blocks`."""
    if model.frozen_blocks is None:
        return model
    out = jax.tree.map(lambda a: a, model)  # another module, the same arrays
    stacks = (model.frozen_blocks, model.blocks)
    out.blocks = jax.tree.map(lambda first, rest: jnp.concatenate([first, rest]), *stacks)
    out.frozen_blocks = None
    return out


def with_classifier(model: ViT, head: Linear, classifier: ClassifierInput) -> ViT:
    """The model with a linear layer as its classifier: `logits` are head(classifier_input(...)), as in training.

    Raises UsageError where the layer is of another width than that input, or the model has no such token.
    """
    inputs, expected = head.kernel.shape[0], classifier_width(model.spec, classifier)
    if inputs != expected:
        raise UsageError(
            f"a head of {inputs} inputs is no classifier over {classifier!r} of {model.spec.name}, which has "
            f"{expected}; make it with classifier_head(spec, num_classes, {classifier!r}, rngs=...)"
        )
    out = jax.tree.map(lambda a: a, model)  # another module, the same arrays
    out.classifier = jax.tree.map(lambda a: a, head)
    out.classifier_input = classifier
    out.facts = None  # its outputs mean something else now
    return out


def without_classifier(model: ViT) -> ViT:
    """The backbone alone, as `create` makes it with num_classes=0: undoes `with_classifier`."""
    out = jax.tree.map(lambda a: a, model)
    out.classifier = None
    out.classifier_input = "pool"
    out.facts = None
    return out
