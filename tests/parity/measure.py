"""How far a model is from its reference: all tokens, pooled output and gradients, at several sizes, in float32 and
bfloat16."""

from __future__ import annotations

import tempfile
import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch

import weights_conversion as wc
from fmjax.models.build import abstract, param_shapes
from fmjax.models.features import Features
from fmjax.models.functional import functional
from fmjax.models.vit import ViT
from fmjax.specs import ViTSpec
from fmjax.trees import flat
from fmjax.weights.load import fill
from tests.parity.cases import Case, Size
from tests.parity.references import Reference, Tensors

# of XLA, whatever `jax_disable_most_optimizations` says
AS_USUAL = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}


@dataclass(frozen=True)
class Result:
    """Errors of one case at one size. Relative errors are of the largest value of the tensor."""

    model: str
    dialect: str
    size: str
    height: int
    width: int
    tensors: int
    extras: int
    absolute: float
    relative: float
    cosine: float
    image_gradient: float
    parameter_gradient: float
    worst_parameter: str
    bfloat16: float  # of ours, against the reference in float32
    bfloat16_cosine: float
    reference_bfloat16: float  # of the reference's own
    seconds: float


def random_params(spec: ViTSpec, num_classes: int, seed: int) -> dict[str, np.ndarray]:
    """Values that make a swapped key, a missing transpose or a wrong epsilon visible.

    Kernels have a standard deviation of 0.7 / sqrt(inputs), scales lie in 0.5 to 1.5, the rest has 0.3: with these the
    references' own float32 is 1e-6 from their float64.
    """
    rng = np.random.default_rng(seed)
    out = {}
    for path, shape in param_shapes(spec, num_classes).items():
        noise = rng.standard_normal(shape, np.float32)
        scale = 0.7 / np.sqrt(shape[-2]) if path.endswith(".kernel") else 0.3
        out[path] = (
            rng.random(shape, np.float32) + 0.5
            if path.endswith(".scale")
            else noise * np.float32(scale)
        )
    return out


def file_of(case: Case) -> Tensors:
    """A file of the dialect with random values, with the tensors beside the parameters that its publisher has."""
    spec = case.spec
    params = wc.in_memory_tree(random_params(spec, case.num_classes, seed=1))
    table = wc.writing(case.dialect, params)
    file = {
        key: tensor.read(())
        for key, tensor in wc.to_torch(params, table, heads=spec.num_heads).items()
    }
    return file | beside(case, file)


def beside(case: Case, file: Tensors) -> Tensors:
    """Mask tokens, rotary buffers and other tensors that fmjax carries along."""
    width, dialect = case.spec.width, case.dialect
    mask = np.full((1, width), 0.5, np.float32)
    if dialect in ("dinov2", "tips_npz", "dinov2_chunked"):
        return {"mask_token": mask}
    if dialect == "dinov3":
        count = case.spec.head_dim // 4
        return {
            "mask_token": mask,
            "rope_embed.periods": np.float32(100.0 ** (np.arange(count) / count)),
        }
    if dialect in ("hf_dinov2", "hf_dinov2_with_registers"):
        return {"embeddings.mask_token": mask}
    if dialect == "hf_dinov3":
        return {"embeddings.mask_token": mask[None]}
    if dialect == "hf_tipsv2":
        return {"vision_encoder.mask_token": mask}
    if dialect == "eva02_original_pretrain":
        return {
            "mask_token": mask[None],
            "lm_head.weight": np.ones((3, width), np.float32),
            "lm_head.bias": mask[0, :3],
        }
    if dialect == "openai_jit":
        return {
            key: np.asarray(7, np.int64)
            for key in ("input_resolution", "context_length", "vocab_size")
        }
    return {}


def measure(case: Case, sizes: tuple[str, ...] = ("native", "square", "wide")) -> list[Result]:
    """One result for every size that the reference takes."""
    with tempfile.TemporaryDirectory() as folder:
        file = file_of(case)
        read = wc.to_jax(
            wc.in_memory_tree(file),
            wc.named(wc.in_memory_tree(file), case.dialect),
            param_shapes(case.spec, case.num_classes),
            heads=case.spec.num_heads,
        )
        model = fill(abstract(case.spec, num_classes=case.num_classes), read.params)
        reference = case.reference(case, file, Path(folder))
        wanted = {name: size for name, size in case.sizes.items() if name in sizes}
        at = partial(_at, case, read, model, reference)
        # in bfloat16 at the first of them
        return [at(*pair, halved=number == 0) for number, pair in enumerate(wanted.items())]


def _at(
    case: Case,
    read: wc.Conversion,
    model: ViT,
    reference: Reference,
    name: str,
    size: Size,
    *,
    halved: bool,
) -> Result:
    start = time.monotonic()
    rng = np.random.default_rng(0)
    images = rng.standard_normal((1, 3, *size), np.float32)
    weights = _sum_weights(case, size, rng)
    tokens, pooled, image_gradient, gradients = _theirs(case, reference, images, weights)
    ours = _ours(model, images.transpose(0, 2, 3, 1), weights)
    errors = _gradient_errors(case, flat(ours[3]), gradients)
    worst = max(errors, key=lambda path: errors[path])
    half = (
        _half(case, read, reference, images, tokens, pooled) if halved else (np.nan, np.nan, np.nan)
    )
    return Result(
        case.model,
        case.dialect,
        name,
        *size,
        tensors=read.tensors,
        extras=len(read.extras),
        absolute=max(float(np.abs(ours[0] - tokens).max()), float(np.abs(ours[1] - pooled).max())),
        relative=max(error(ours[0], tokens), error(ours[1], pooled)),
        cosine=min(cosine(ours[0], tokens), cosine(ours[1], pooled)),
        image_gradient=error(ours[2].transpose(0, 3, 1, 2), image_gradient),
        parameter_gradient=errors[worst],
        worst_parameter=worst,
        bfloat16=half[0],
        bfloat16_cosine=half[1],
        reference_bfloat16=half[2],
        seconds=time.monotonic() - start,
    )


def error(found: np.ndarray, expected: np.ndarray, scale: float | None = None) -> float:
    """Largest absolute difference, relative to the largest expected value."""
    return float(np.abs(found - expected).max() / (scale or np.abs(expected).max()))


def cosine(found: np.ndarray, expected: np.ndarray) -> float:
    """The smallest cosine of a token, or of the pooled output, with its reference."""
    a, b = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (found, expected))
    return float(((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).min())


def all_tokens(out: Features, spec: ViTSpec) -> jax.Array:
    """[class tokens, registers, patches], the order of every reference."""
    cls = None if out.cls is None else out.cls[:, None]
    first = cls if out.summary is None else out.summary
    parts = [first, out.registers, out.patches.reshape(out.patches.shape[0], -1, spec.width)]
    return jnp.concatenate([part for part in parts if part is not None], 1)


def _sum_weights(case: Case, size, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The scalar that is differentiated is a weighted sum of all tokens and of the pooled output."""
    spec = case.spec
    count = (
        spec.num_cls
        + spec.num_registers
        + (size[0] // spec.patch_size) * (size[1] // spec.patch_size)
    )
    pooled = spec.embed_dim or spec.pool_dim
    return rng.standard_normal((1, count, spec.width), np.float32), rng.standard_normal(
        (1, pooled), np.float32
    )


def _theirs(case: Case, reference: Reference, images: np.ndarray, weights):
    x = torch.from_numpy(images).requires_grad_()
    tokens, pooled = reference.run(x)
    reference.model.zero_grad()
    (
        (tokens * torch.from_numpy(weights[0])).sum()
        + (pooled * torch.from_numpy(weights[1])).sum()
    ).backward()
    assert x.grad is not None
    return (
        tokens.detach().numpy(),
        pooled.detach().numpy(),
        x.grad.numpy(),
        _in_our_names(case, reference),
    )


def _in_our_names(case: Case, reference: Reference) -> dict[str, np.ndarray]:
    """The reference's gradients in our layout: every transform is a permutation, so it holds for gradients too."""
    named = wc.in_memory_tree(reference.gradients())
    spec = case.spec
    shapes = param_shapes(spec, case.num_classes)
    table = wc.writing(reference.reads or case.dialect, shapes)
    constants = (
        {table.full_prefix + key for key in table.constants}
        if not case.spec.proj_bias and not case.num_classes
        else ()
    )
    named = {
        k: wc.in_memory(np.zeros(t.shape, np.float32)) if k in constants else t
        for k, t in named.items()
    }
    params = wc.to_jax(named, table, shapes, heads=spec.num_heads).params
    return {path: tensor.read(()) for path, tensor in params.items()}


def _ours(model: ViT, images: np.ndarray, weights):
    apply, params = functional(model)

    @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def objective(params, images):
        out = apply(params, images)
        tokens = all_tokens(out, model.spec)
        return (tokens * weights[0]).sum() + (out.pooled * weights[1]).sum(), (tokens, out.pooled)

    with jax.default_matmul_precision("highest"):
        (_, (tokens, pooled)), gradients = jax.jit(objective)(params, images)
    return jax.tree.map(np.asarray, (tokens, pooled, gradients[1], gradients[0]))


def _gradient_errors(
    case: Case, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]
) -> dict[str, float]:
    assert set(theirs) == set(ours)
    errors = {}
    for path, gradient in theirs.items():
        found = ours[path]
        if path.startswith("classifier.") or (
            path == "pos_embed" and _table_without_gradient(case)
        ):
            continue  # not in the differentiated sum; not a parameter of the reference
        if path == "pos_embed" and _folded(case):
            # the reference has no class position of its own
            found, gradient = (found[1:], gradient[1:])
        # the softmax does not see a constant added to every key: the true gradient of the k bias is zero
        scale = {"blocks.attn.k.bias": "blocks.attn.q.bias", "pool.k.bias": "pool.q.bias"}.get(path)
        errors[path] = error(found, gradient, np.abs(theirs[scale]).max() if scale else None)
    return errors


def _folded(case: Case) -> bool:
    """Whether the reference keeps the class token and its position as one sum."""
    spec, timm = case.spec, case.reference.reads == "timm"
    return timm and spec.positions == "cls_patches" and bool(spec.num_registers or spec.num_cls > 1)


def _table_without_gradient(case: Case) -> bool:
    return case.dialect in ("radio", "radio_hub", "hf_vit_mae")


def _half(
    case: Case, read: wc.Conversion, reference: Reference, images, tokens, pooled
) -> tuple[float, float, float]:
    """bfloat16 against float32: our error, our cosine, and the reference's own error."""
    outline = abstract(case.spec, num_classes=case.num_classes, dtype=jnp.bfloat16)
    apply, params = functional(fill(outline, read.params))
    # what is rounded in between depends on what is fused, so that a test's quick compiler would be measured with it
    run = jax.jit(apply, compiler_options=AS_USUAL)
    out = run(params, images.transpose(0, 2, 3, 1))
    ours = [np.asarray(x, np.float32) for x in (all_tokens(out, case.spec), out.pooled)]
    truth = (tokens, pooled)
    found = max(error(a, b) for a, b in zip(ours, truth, strict=True))
    alike = min(cosine(a, b) for a, b in zip(ours, truth, strict=True))
    with warnings.catch_warnings(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        # of torch, on its own autocast
        warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")
        theirs = [x.float().numpy() for x in reference.run(torch.from_numpy(images))]
    return found, alike, max(error(a, b) for a, b in zip(theirs, truth, strict=True))
