"""PyTorch's rows: the models of timm, open_clip and transformers, as fast as PyTorch makes them."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo
from torch.autograd import DeviceType
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu import cases, record, towers, work
from benchmarks.gpu.cases import Case, Model
from fmjax.bench.timing import SHORT_S, timed
from fmjax.models.flops import attention_flops
from tests.support.torch_reference import randomise

Row = dict[str, Any]
GIB = 2**30
WHOLE = "step"  # forward and backward pass and optimiser, compiled as one
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
# one kernel and no other: a row is of what its name says
SDPA = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}


def train(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """AdamW in one kernel, bfloat16 by autocast, float32 parameters; images are there already, normalised. Unlike
    fmjax's step it neither clips gradients nor looks whether they are finite."""
    model, batch = cases.model_of(case, tiny=tiny), cases.batch_of(case, tiny=tiny)
    step = Step(case, tiny)
    row = measured(step.run, case, path, batch, work.training_flops(model), tiny)
    return row | {"logs": {"loss": float(step.loss)}}


def profile(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """The kernels of a step, the slowest first: milliseconds and how often, of one step."""
    step, steps = Step(case, tiny), 3
    with kernel(case.options["sdpa"]):
        step.run(steps)
        with torch.profiler.profile() as profiler:
            step.run(steps)
    found = [each for each in profiler.key_averages() if each.device_type != DeviceType.CPU]
    found.sort(key=lambda each: -each.self_device_time_total)
    return {
        "device_ms": sum(each.self_device_time_total for each in found) / steps / 1e3,
        "kernels": [
            [each.key[:100], each.self_device_time_total / steps / 1e3, each.count / steps]
            for each in found[:60]
        ],
    }


class Step:
    """A step of training on images of noise."""

    def __init__(self, case: Case, tiny: bool) -> None:
        model, batch = cases.model_of(case, tiny=tiny), cases.batch_of(case, tiny=tiny)
        self.net = created(model, case, cases.CLASSES).train()
        self.adam = torch.optim.AdamW(self.net.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
        whole = case.options["compile"] == WHOLE
        self.called = self.net if whole else as_asked(self.net, case)
        self.one = as_asked(self.step, case) if whole else self.step
        self.images, self.labels = inputs(model, batch)
        self.loss: Any = None

    def run(self, steps: int) -> None:
        """So many steps, to the end of the last."""
        for _ in range(steps):
            self.loss = self.one()
        waited()

    def step(self) -> torch.Tensor:
        """The loss of a step."""
        with torch.autocast(DEVICE.type, torch.bfloat16):
            loss = F.cross_entropy(self.called(self.images), self.labels)
        loss.backward()
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return loss.detach()


def forward(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """Normalised images to embeddings, parameters and compute in bfloat16."""
    model, batch = cases.model_of(case, tiny=tiny), cases.batch_of(case, tiny=tiny)
    net = created(model, case).eval().to(torch.bfloat16)
    called = as_asked(net, case)
    images = inputs(model, batch)[0].to(torch.bfloat16)

    def run(steps: int) -> None:
        with torch.inference_mode():
            for _ in range(steps):
                called(images)
        waited()

    return measured(run, case, path, batch, work.forward_flops(model), tiny)


def measured(
    run: Callable[[int], None], case: Case, path: Path, batch: int, flops: int, tiny: bool
) -> Row:
    """The figures of a row."""
    clean()
    start = time.perf_counter()
    with kernel(case.options["sdpa"]):
        run(1)
        first = time.perf_counter() - start
        timing = timed(run, **cases.length_of(tiny=tiny))
    rates = record.rates(path, images=batch, seconds=timing.median, flops=flops)
    peak = torch.cuda.max_memory_allocated() / GIB if CUDA else 0.0
    facts = {"first_step_s": round(first, 1), "peak_gib": round(peak, 2)}
    return rates | facts | {"timing": asdict(timing)}


def reference(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """Weights, logits and one step's gradients, in float32 and by autocast, left in the folder for fmjax's rows. timm's
    has a classifier; of the others the published projection gives the logits."""
    # of float32 all digits
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    model, batch = cases.model_of(case, tiny=tiny), cases.batch_of(case, tiny=tiny)
    library = cases.library_of(case)
    classes = cases.CLASSES if library == "timm" else None
    net = randomise(created(model, case, classes).cpu(), 0).to(DEVICE)
    images, labels = inputs(model, batch, classes or cases.spec_of(model).embed_dim)
    file = {
        "images": images.permute(0, 2, 3, 1).contiguous().cpu().numpy(),
        "labels": labels.to(torch.int32).cpu().numpy(),
    }
    file |= {f"weight/{key}": x for key, x in towers.named(net.state_dict(), library).items()}
    for prefix, half in (("", False), ("half ", True)):
        net.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=half):
            logits = net(images)
            loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        gradients = {key: x.grad for key, x in net.named_parameters()}
        file[f"{prefix}logits"] = logits.detach().float().cpu().numpy()
        named = towers.named(gradients, library)
        file |= {f"{prefix}gradient/{key}": x for key, x in named.items()}
    np.savez(folder / f"{library}.npz", **file)
    return {"loss": float(loss.detach())}


def products(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """Products of matrices in bfloat16."""

    def ready(m: int, k: int, n: int) -> Callable[[int], None]:
        a, b = (torch.randn(s, device=DEVICE, dtype=torch.bfloat16) for s in ((m, k), (k, n)))

        def run(steps: int) -> None:
            for _ in range(steps):
                a @ b
            waited()

        return run

    return work.products(ready, tiny=tiny)


def attention(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """Attention alone, there and back, by each kernel."""
    batch, shapes = cases.attention_of(tiny=tiny)
    rows = []
    for tokens, width in shapes:
        shape = (batch, cases.HEADS, tokens, width)
        for way in SDPA:
            with kernel(way):
                found = _attention(shape, tiny)
            rows.append({"tokens": tokens, "width": width, "way": way, **found})
    return {"attention": rows}


def _attention(shape: tuple[int, int, int, int], tiny: bool) -> Row:
    q, k, v, g = (torch.randn(shape, device=DEVICE, dtype=torch.bfloat16) for _ in range(4))
    for x in (q, k, v):
        x.requires_grad_()

    def there(steps: int) -> None:
        with torch.no_grad():
            for _ in range(steps):
                F.scaled_dot_product_attention(q, k, v)
        waited()

    def both(steps: int) -> None:
        for _ in range(steps):
            out = F.scaled_dot_product_attention(q, k, v)
            torch.autograd.grad(out, (q, k, v), g)
        waited()

    out: Row = {}
    for name, run in (("forward", there), ("both", both)):
        timing = timed(run, **cases.length_of(tiny=tiny, seconds=SHORT_S))
        rate = attention_flops(*shape, training=name == "both") / timing.median / 1e12
        out[name] = {"ms": round(timing.median * 1e3, 4), "tflops": round(rate, 1)}
    return out


def created(model: Model, case: Case, classes: int | None = None) -> torch.nn.Module:
    """The network of a row, on the device."""
    return towers.created(model, cases.library_of(case), classes).to(DEVICE)


def as_asked(function: Any, case: Case) -> Any:
    """The model, or a whole step, as it is or compiled in a mode."""
    mode = case.options["compile"]
    torch._dynamo.reset()
    # a whole step is traced through its backward pass
    torch._dynamo.config.compiled_autograd = mode == WHOLE
    if mode == "no":
        return function
    return torch.compile(function, mode="default" if mode == WHOLE else mode)


def inputs(
    model: Model, batch: int, classes: int = cases.CLASSES
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [B C H W] and labels [B], on the device."""
    torch.manual_seed(1)
    images = torch.randn(batch, 3, model.size, model.size, device=DEVICE)
    return images, torch.randint(0, classes, (batch,), device=DEVICE)


def kernel(name: str) -> Any:
    """Within it, attention is by this kernel; on a CPU by that which it has."""
    return sdpa_kernel([SDPA[name]]) if CUDA else contextlib.nullcontext()


def waited() -> None:
    if CUDA:
        torch.cuda.synchronize()


def clean() -> None:
    """Memory of rows before this one is given back, and not counted."""
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


ROWS = {
    "train": train,
    "profile": profile,
    "forward": forward,
    "product": products,
    "attention": attention,
    "reference": reference,
}
