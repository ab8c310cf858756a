"""What a run with adapters has trained, alone: a small file that says which weights it belongs beside, and its way back
onto them.

The file is safetensors: `blocks.attn.q.lora.a` [N I r] and `.lora.b` [N r O] of each layer, the classifier, and
whatever else was trained, under the paths of the model; its metadata are the fields of `Facts`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import jax.numpy as jnp
import numpy as np
import xxhash
from jax.typing import DTypeLike

import weights_conversion as wc
from fmjax import names
from fmjax.errors import CheckpointError, UsageError
from fmjax.models.stack import KERNELS
from fmjax.models.vit import ViT
from fmjax.serial import from_dict
from fmjax.specs import ClassifierInput, LogitReading, ParamDtype, Resample, ViTSpec
from fmjax.trees import flat
from fmjax.weights.lazy import lazy
from weights_conversion.readers import open_checkpoint
from weights_conversion.writer import write_safetensors

FORMAT = "fmjax-adapters"
A, B = ".lora.a", ".lora.b"  # behind the path of a layer
CLASSIFIER = "classifier."
POSITIONS = "pos_embed"  # resized to the images that are asked for, so that it is no mark of a base
Tensors = Mapping[str, wc.LazyTensor]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a file of adapters says of itself, as JSON under "facts"."""

    base: str  # the weights that were not trained, "arch.tag"
    digest: str  # of them
    rank: int
    alpha: float
    targets: str  # the pattern that chose the layers
    image_size: tuple[int, int]  # of the images that were trained on
    resample: Resample  # how the position table came to that size
    classifier: ClassifierInput = "pool"  # what the classifier sees, where there is one
    classes: tuple[str, ...] = ()  # in the order of its outputs
    reading: LogitReading = "softmax"  # of its logits
    frozen: ParamDtype = "float32"  # in which the base's kernels were kept beside them


@dataclass(frozen=True)
class Adapters:
    """An opened file of adapters; no tensor has been read yet."""

    path: Path
    facts: Facts
    tensors: Tensors

    @property
    def num_classes(self) -> int:
        """The width of the classifier; 0 where the file has none."""
        bias = self.tensors.get(f"{CLASSIFIER}bias")
        return 0 if bias is None else bias.shape[-1]

    def onto(self, base: Tensors, spec: ViTSpec) -> dict[str, wc.LazyTensor]:
        """The parameters of the tuned model: the base's in float32, its kernels with the adapters added as they are
        read, and what else was trained.

        Raises UsageError for other weights than those that the adapters were trained beside, CheckpointError for a
        file that is not whole.
        """
        base = {path: tensor for path, tensor in base.items() if not path.startswith(CLASSIFIER)}
        self._check_base(base, spec)
        # float kinds and finite values only, as of every other file
        shapes = {path: tensor.shape for path, tensor in self.tensors.items()}
        found = wc.to_jax(self.tensors, wc.native(shapes), shapes, np.dtype(np.float32)).params
        own = {path: tensor for path, tensor in found.items() if not path.endswith((A, B))}
        scale = self.facts.alpha / self.facts.rank
        # a kernel may have been trained itself: then its adapter stands beside that one
        whole = base | own
        sums = {
            f"{layer}.kernel": _sum(
                whole[f"{layer}.kernel"], found[layer + A], found[layer + B], scale
            )
            for layer in self._layers()
        }
        return whole | sums

    def _layers(self) -> list[str]:
        return [path.removesuffix(A) for path in self.tensors if path.endswith(A)]

    def _check_base(self, base: Tensors, spec: ViTSpec) -> None:
        facts, called = self.facts, spec.weights or spec.name
        # an architecture alone contradicts nothing: the digest will
        tagged = all(names.split_name(name)[1] for name in (facts.base, called))
        fix = f"load them onto {wc.quoted(facts.base)}"
        if tagged and facts.base != called:
            raise UsageError(
                f"{self.path} has adapters of {wc.quoted(facts.base)}, not of {called!r}; {fix}"
            )
        shapes = {path: tensor.shape for path, tensor in base.items()}
        for path, tensor in self.tensors.items():
            expected = _expected(path, shapes, facts.rank)
            if expected not in (None, tensor.shape):
                raise UsageError(
                    f"{self.path}: {path} is {tensor.shape}, and {called} would take {expected}; {fix}, for images of "
                    f"{facts.image_size[0]} x {facts.image_size[1]}"
                )
        digest = digest_of(base, self.tensors, jnp.dtype(facts.frozen))
        if digest != facts.digest:
            raise UsageError(
                f"{self.path} was trained beside other weights than these of {called}: their digest is "
                f"{wc.quoted(facts.digest)}, and here {digest}; {fix}, or pass their file as checkpoint"
            )


def write(
    path: Path,
    model: ViT,
    facts: dict[str, Any],
    trained: Iterable[str],
    *,
    classifier: bool = True,
) -> int:
    """Writes what was trained of a model with adapters, and returns the bytes of the file.

    facts: the fields of `Facts` but those that the model knows itself. trained: the paths of what else was trained.
    classifier: False leaves it out.
    """
    # all else is the base, of which the file has a digest alone
    leaves = {name: lazy(leaf) for name, leaf in flat(model).items()}
    wanted = {name for name in leaves if name.endswith((A, B))} | set(trained)
    if classifier:
        wanted |= {name for name in leaves if name.startswith(CLASSIFIER)}
    kept = {name: tensor for name, tensor in leaves.items() if name in wanted}
    spec = model.spec
    record = facts | {
        "base": spec.weights or spec.name,
        "digest": digest_of(leaves, kept),
        "image_size": spec.image_size,
        "resample": spec.resample,
        "classifier": model.classifier_input,
    }
    metadata = {"format": FORMAT, "facts": json.dumps(record)}
    return write_safetensors(path, kept, metadata)


def opened(path: str | Path) -> Adapters:
    """A file of adapters. Raises CheckpointError for a file of anything else, and one that is not whole."""
    file = open_checkpoint(path)
    if file.metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is no file of adapters; `fmjax export RUN FILE --adapters` writes one"
        )
    try:
        facts = from_dict(Facts, json.loads(file.metadata.get("facts", "")))
    except (UsageError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: its facts cannot be read ({error})") from error
    found = Adapters(file.path, facts, file.tensors)
    _check_whole(found)
    return found


def _check_whole(found: Adapters) -> None:
    """Raises CheckpointError for facts that no run has, and for half an adapter."""
    facts = found.facts
    sizes = facts.rank >= 1 and 0 < facts.alpha < np.inf and min(facts.image_size) >= 1
    if not sizes or len(facts.image_size) != 2 or facts.classifier not in get_args(ClassifierInput):
        raise CheckpointError(f"{found.path} is damaged: no run has {wc.quoted(str(facts))}")
    for one, other in ((A, B), (B, A)):
        for path in found.tensors:
            partner = path.removesuffix(one) + other
            if path.endswith(one) and partner not in found.tensors:
                raise CheckpointError(
                    f"{found.path} is damaged: it has {wc.quoted(path)} and no {wc.quoted(partner)}"
                )


def digest_of(leaves: Tensors, trained: Iterable[str], kernels: DTypeLike = np.float32) -> str:
    """What tells a base from others: a digest of the names and numbers (float32) of all that was not trained.

    kernels: the dtype that those of blocks are rounded to before. XXH3 of 128 bits: it is against mistakes, and many
    times as fast as a cryptographic one.
    """
    trained = set(trained)
    mine = {
        path: leaves[path]
        for path in sorted(leaves)
        if path not in trained and path != POSITIONS and not path.startswith(CLASSIFIER)
    }
    total = xxhash.xxh3_128()
    for path, tensor in mine.items():
        total.update(path.encode())
        # beside adapters they may have been kept in fewer bits
        kept = tensor.astype(np.dtype(kernels)) if KERNELS.fullmatch(path) else tensor
        for index in kept.pieces():
            total.update(np.ascontiguousarray(kept.read(index), np.float32).data)
    return total.hexdigest()


def _expected(path: str, base: Mapping[str, tuple[int, ...]], rank: int) -> tuple[int, ...] | None:
    """The shape that a tensor of a file must have beside a base; None where only the file itself knows; () for a
    parameter that the base has not."""
    if path.startswith(CLASSIFIER):
        return None
    layer = path.removesuffix(A).removesuffix(B)
    if layer == path:
        return base.get(path, ())
    *stacked, inputs, outputs = base.get(f"{layer}.kernel", (0, 0))
    return (*stacked, inputs, rank) if path.endswith(A) else (*stacked, rank, outputs)


def _sum(kernel: wc.LazyTensor, a: wc.LazyTensor, b: wc.LazyTensor, scale: float) -> wc.LazyTensor:
    """A kernel with its adapter added; a device that asks for a slice reads no more of the kernel."""

    def read(index: Any) -> np.ndarray:
        delta = np.float32(scale) * (a.read(()) @ b.read(()))
        return kernel.read(index) + delta[index]

    return wc.LazyTensor(kernel.shape, np.dtype(np.float32), read)
