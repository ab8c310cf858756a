"""PyTorch's rows: timm's models, as fast as PyTorch makes them."""

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
from torch.autograd import DeviceType
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

# before timm: torchvision, which it imports, does not load beside a torch without CUDA
from tests.support.torch_reference import numpy_tensors, randomise

from benchmarks.gpu import cases, record, work  # isort: skip
from benchmarks.gpu.cases import Case, Model  # isort: skip
from fmjax.bench.timing import SHORT_S, timed  # isort: skip
from fmjax.models.flops import attention_flops  # isort: skip
import timm  # isort: skip

Row = dict[str, Any]
GIB = 2**30
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
    return row | {"logs": {"loss": float(step.loss.detach())}}


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
        self.net = created(model, num_classes=cases.CLASSES).train()
        self.adam = torch.optim.AdamW(self.net.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
        self.called = as_asked(self.net, case)
        self.images, self.labels = inputs(model, batch)
        self.loss: Any = None

    def run(self, steps: int) -> None:
        """So many steps, to the end of the last."""
        for _ in range(steps):
            with torch.autocast(DEVICE.type, torch.bfloat16):
                self.loss = F.cross_entropy(self.called(self.images), self.labels)
            self.loss.backward()
            self.adam.step()
            self.adam.zero_grad(set_to_none=True)
        waited()


def forward(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """Normalised images to embeddings, parameters and compute in bfloat16."""
    model, batch = cases.model_of(case, tiny=tiny), cases.batch_of(case, tiny=tiny)
    net = created(model).eval().to(torch.bfloat16)
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
    """Weights, logits and one step's gradients, in float32 and by autocast, left in the folder for fmjax's rows."""
    # of float32 all digits
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    model, batch = cases.model_of(case, tiny=tiny), cases.batch_of(case, tiny=tiny)
    net = randomise(created(model, num_classes=cases.CLASSES).cpu(), 0).to(DEVICE)
    images, labels = inputs(model, batch)
    file = {
        "images": images.permute(0, 2, 3, 1).contiguous().cpu().numpy(),
        "labels": labels.to(torch.int32).cpu().numpy(),
    }
    file |= {f"weight/{key}": x for key, x in named(net.state_dict()).items()}
    for prefix, half in (("", False), ("half ", True)):
        net.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=half):
            logits = net(images)
            loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        gradients = {key: x.grad for key, x in net.named_parameters()}
        file[f"{prefix}logits"] = logits.detach().float().cpu().numpy()
        file |= {f"{prefix}gradient/{key}": x for key, x in named(gradients).items()}
    np.savez(folder / "reference.npz", **file)
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


def created(model: Model, **more: Any) -> torch.nn.Module:
    """timm's model with random weights; with num_classes, a classifier in the place of its projection."""
    torch.manual_seed(0)
    return timm.create_model(model.timm, pretrained=False, **model.arguments, **more).to(DEVICE)


def as_asked(net: torch.nn.Module, case: Case) -> Any:
    """The model as it is, or compiled in a mode."""
    mode = case.options["compile"]
    torch._dynamo.reset()
    return net if mode == "no" else torch.compile(net, mode=mode)


def inputs(model: Model, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [B C H W] and labels [B], on the device."""
    torch.manual_seed(1)
    images = torch.randn(batch, 3, model.size, model.size, device=DEVICE)
    return images, torch.randint(0, cases.CLASSES, (batch,), device=DEVICE)


def named(tensors: dict[str, Any]) -> dict[str, np.ndarray]:
    return numpy_tensors({key: x.float().cpu() for key, x in tensors.items()})


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
