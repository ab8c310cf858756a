"""timm's model, parameter groups, schedule and average, torch's AdamW and clipping, in the order of timm's train.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.parity.training.settings import CLASSES, DEPTH, GRID, HEADS, WIDTH, Backbone, Script
from tests.support.torch_reference import numpy_tensors, torch

Tensors = dict[str, np.ndarray]
Batches = Sequence[tuple[np.ndarray, np.ndarray]]  # images [B H W C] float32, labels [B]
MakeOptimiser = Callable[[Any, Script], torch.optim.Optimizer]


@dataclass(frozen=True)
class Trained:
    """Loss and norm of the gradient at each step, and what the parameters and their average came to, as a file names
    them."""

    losses: list[float]
    norms: list[float]  # before clipping
    params: Tensors
    average: Tensors
    gradients: Tensors = field(
        default_factory=dict
    )  # of the first step, after clipping; timm's only


def build(backbone: Backbone, file: Tensors) -> torch.nn.Module:
    """timm's model of a backbone, every tensor of it read from a file."""
    import timm

    model = timm.create_model(
        backbone.timm,
        depth=DEPTH,
        embed_dim=WIDTH,
        num_heads=HEADS,
        mlp_ratio=backbone.mlp_dim / WIDTH,
        img_size=GRID * backbone.spec.patch_size,
        num_classes=CLASSES,
    )
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in file.items()}
    model.load_state_dict(tensors, strict=True)
    return model


def optimiser(model: Any, script: Script) -> torch.optim.Optimizer:
    """AdamW over timm's groups, where there is a decay over layers, or over all parameters alike."""
    from timm.optim import create_optimizer_v2

    numbers = {
        "lr": script.lr,
        "weight_decay": script.weight_decay,
        "betas": script.opt_betas,
        "eps": script.opt_eps,
    }
    if script.layer_decay is None:
        return torch.optim.AdamW(model.parameters(), **numbers)
    # param_groups_layer_decay, with the model's own no_weight_decay() and group_matcher()
    return create_optimizer_v2(model, "adamw", layer_decay=script.layer_decay, **numbers)


def schedule(optimiser: torch.optim.Optimizer, script: Script, steps: int) -> Any:
    """timm's cosine, told to start as ours does: update t of a warm-up of w has t/w of the rate."""
    from timm.scheduler import CosineLRScheduler

    # its warm-up counts from 0, so that one update fewer lies between the first rate and the whole
    between = script.warmup_updates - 1
    return CosineLRScheduler(
        optimiser,
        t_initial=steps - between,
        lr_min=script.min_lr,
        warmup_t=between,
        warmup_lr_init=script.lr / script.warmup_updates,
        warmup_prefix=True,
        t_in_epochs=False,
    )


def train(
    model: torch.nn.Module,
    batches: Batches,
    script: Script,
    *,
    dtype: torch.dtype = torch.float32,
    make_optimiser: MakeOptimiser = optimiser,
) -> Trained:
    """Trains on every batch once, computing in a dtype. make_optimiser: to see what another one would come to."""
    from timm.utils import ModelEmaV3

    model = model.to(dtype).train()
    moves = make_optimiser(model, script)
    rates = schedule(moves, script, len(batches))
    average = ModelEmaV3(model, decay=script.model_ema_decay) if script.model_ema_decay else None
    losses, norms, gradients = [], [], {}
    # the order of timm's train.py: gradient, clipping, update, average, next rate
    for number, (images, labels) in enumerate(batches, 1):
        pictures = torch.tensor(images.transpose(0, 3, 1, 2), dtype=dtype)
        moves.zero_grad()
        losses.append(_backward(model, pictures, torch.tensor(labels).long(), script))
        # without a bound it only measures
        bound = float("inf") if script.clip_grad is None else script.clip_grad
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), bound)
        norms.append(norm.item())
        gradients = gradients or _gradients(model)
        moves.step()
        if average is not None:
            average.update(model)
        rates.step_update(number)
    tensors = numpy_tensors(average.module.state_dict()) if average is not None else {}
    return Trained(losses, norms, numpy_tensors(model.state_dict()), tensors, gradients)


def _gradients(model: torch.nn.Module) -> Tensors:
    found = {name: value.grad for name, value in model.named_parameters()}
    # copies: the next step writes into the same memory
    return numpy_tensors({name: grad.clone() for name, grad in found.items() if grad is not None})


def _backward(
    model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, script: Script
) -> float:
    """Adds up the gradients of equal parts of a batch, each divided by their number; returns the loss."""
    parts, total = script.grad_accum_steps, 0.0
    for part in range(parts):
        logits = model(images[part::parts])
        loss = torch.nn.functional.cross_entropy(logits, labels[part::parts]) / parts
        loss.backward()
        total += loss.item()
    return total
