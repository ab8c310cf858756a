"""fmjax's rows."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.profiler import ProfileData
from jax.sharding import Mesh
from jaxtyping import Array

import fmjax
import weights_conversion as wc
from benchmarks.gpu import cases, record, work
from benchmarks.gpu.cases import Case
from fmjax.bench import compiled, noise
from fmjax.bench.compiled import Step
from fmjax.bench.plans import planned
from fmjax.bench.timing import SHORT_S, timed
from fmjax.config import ModelConfig, RunConfig
from fmjax.kernels.attention import KERNELS, unfit
from fmjax.models.build import abstract, param_shapes, resized
from fmjax.models.flops import attention_flops
from fmjax.models.functional import functional
from fmjax.preprocessing import preprocess_config
from fmjax.sharding import make_mesh
from fmjax.specs import ViTSpec
from fmjax.trees import Params, flat
from fmjax.weights.load import fill

GIB = 2**30
Row = dict[str, Any]
# errors relative to the largest value of a tensor: of float32 the order of sums alone; of bfloat16 at most so many
# times torch's own, both against torch's float32
FLOAT32 = {"logits": 1e-4, "gradients": 1e-3}
BFLOAT16_TIMES = 2.0
DIALECTS = {"timm": "timm", "open_clip": "open_clip", "transformers": "hf_clip"}  # of CLIP's towers


def train(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """The engine's own step: AdamW, clipping, bfloat16 compute, float32 parameters, the state given up."""
    model, batch = cases.model_of(case, tiny=tiny), cases.batch_of(case, tiny=tiny)
    step = step_of(case, tiny=tiny)
    facts = {
        "lowering_s": round(step.ahead.lowering_s, 1),
        "compiling_s": round(step.ahead.compiling_s, 1),
        "planned_gib": round(step.ahead.memory.total / GIB, 2),
    }
    if step.too_large:
        return facts | {"failed": step.too_large}
    step.begin()
    timing = timed(step.run, **cases.length_of(tiny=tiny))
    count = work.training_flops(model, patches=False)
    rates = record.rates(path, images=batch, seconds=timing.median, flops=count)
    text = gzip.compress(step.ahead.program.as_text().encode())
    (folder / f"{case.slug}.hlo.gz").write_bytes(text)
    return rates | facts | {"logs": step.told, "timing": asdict(timing)}


def profile(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """The kernels of a step, the slowest first: milliseconds and how often, of one step."""
    step, steps = step_of(case, tiny=tiny), 3
    step.begin()
    step.run(steps)
    traces = folder / case.slug
    with jax.profiler.trace(str(traces)):
        step.run(steps)
    seconds, counts = Counter(), Counter()
    for file in traces.rglob("*.xplane.pb"):
        for event in _on_device(ProfileData.from_file(str(file))):
            seconds[event.name] += event.duration_ns
            counts[event.name] += 1
    slowest = seconds.most_common(60)
    return {
        "device_ms": round(seconds.total() / steps / 1e6, 3),
        "kernels": [
            [name[:100], round(time / steps / 1e6, 4), counts[name] / steps]
            for name, time in slowest
        ],
    }


def _on_device(data: ProfileData) -> Iterator[Any]:
    """What ran on a device's streams."""
    for plane in data.planes:
        lines = plane.lines if plane.name.startswith("/device:") else ()
        for line in lines:
            if line.name.startswith("Stream"):
                yield from line.events


def step_of(case: Case, *, tiny: bool) -> Step:
    """The compiled step of a row, on the first device."""
    mesh = make_mesh(devices=jax.devices()[:1])
    return Step(planned(config_of(case, tiny=tiny), mesh), mesh)


def config_of(case: Case, *, tiny: bool = False) -> RunConfig:
    """The run whose step a row is of."""
    model, batch = cases.model_of(case, tiny=tiny), cases.batch_of(case, tiny=tiny)
    side = (model.size, model.size)
    return RunConfig(
        model=ModelConfig(name=model.ours, init="random", image_size=side, dtype="bfloat16"),
        batch_size=batch,
        **case.options,
    )


def embedder(case: Case, mesh: Mesh | None = None, *, tiny: bool = False) -> tuple[Any, Params]:
    """A function of parameters and bytes of pictures to embeddings, all in bfloat16, and the parameters' shapes."""
    model = cases.model_of(case, tiny=tiny)
    spec = resized(fmjax.get_spec(model.ours), model.size)
    half = {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16}
    outline = abstract(spec, mesh=mesh, **half, **case.options)
    return compiled.embedder(outline, preprocess_config(model.ours, model.size))


def forward(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """Bytes of pictures to embeddings, parameters and compute in bfloat16."""
    model, batch = cases.model_of(case, tiny=tiny), cases.batch_of(case, tiny=tiny)
    function, shapes = embedder(case, tiny=tiny)
    images = jnp.asarray(noise.pictures(batch, (model.size, model.size)))
    ready = compiled.ready(function, noise.filled(shapes), images)
    compiling = {"compiling_s": round(ready.lowering_s + ready.compiling_s, 1)}
    timing = timed(ready.run, **cases.length_of(tiny=tiny))
    count = work.forward_flops(model, patches=False)
    rates = record.rates(path, images=batch, seconds=timing.median, flops=count)
    return rates | compiling | {"timing": asdict(timing)}


def products(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """Products of matrices in bfloat16, which are what a device can do, or in FP8."""
    if case.options:
        return {"products_fp8": work.products(_in_fp8, tiny=tiny)["products"]}
    return work.products(
        lambda m, k, n: compiled.product(m, k, n, dtype=jnp.bfloat16).run, tiny=tiny
    )


def _in_fp8(rows: int, inner: int, columns: int) -> Callable[[int], None]:
    """A product of arrays that are in FP8 already, both as Hopper's matrix units take them: [.. inner]."""
    shapes = ((rows, inner), (columns, inner))
    a, b = (jax.random.normal(jax.random.key(0), shape, jnp.float8_e4m3fn) for shape in shapes)

    def product(a: Array, b: Array) -> Array:
        axes = (((1,), (1,)), ((), ()))
        return jax.lax.dot_general(a, b, axes, preferred_element_type=jnp.bfloat16)

    return compiled.ready(product, a, b).run


def attention(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """Attention alone, there and back: XLA's and cuDNN's."""
    batch, shapes = cases.attention_of(tiny=tiny)
    rows = []
    for tokens, width in shapes:
        for name, function in KERNELS.items():
            row = {"tokens": tokens, "width": width, "way": name}
            rows.append(row | _attention(function, batch, tokens, width, tiny))
    return {"attention": rows}


def _attention(function: Any, batch: int, tokens: int, width: int, tiny: bool) -> Row:
    shape = (batch, cases.HEADS, tokens, width)
    out: Row = {}
    for name in ("forward", "both"):
        training = name == "both"
        try:
            ready = compiled.attention(function, shape, dtype=jnp.bfloat16, training=training)
        except Exception as error:
            out[name] = {"failed": " ".join(str(error).split())[:160]}
            continue
        timing = timed(ready.run, **cases.length_of(tiny=tiny, seconds=SHORT_S))
        rate = attention_flops(*shape, training=training) / timing.median / 1e12
        out[name] = {"ms": round(timing.median * 1e3, 4), "tflops": round(rate, 1)}
    return out


def agreement(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """Logits and one step's gradients beside a torch library's of the same weights, which the reference's row has left
    in the folder: in float32, and in bfloat16 by each way of computing attention."""
    model, library = cases.model_of(case, tiny=tiny), cases.library_of(case)
    with np.load(folder / f"{library}.npz") as file:
        known = Reference(library, model, {name: file[name] for name in file.files})
    out: Row = {"float32": compared(known, jnp.float32)}
    out["agrees"] = all(out["float32"][name] <= most for name, most in FLOAT32.items())
    device, width = jax.devices()[0], known.spec.head_dim
    for name in KERNELS:
        # where a kernel cannot run, nothing is said of it
        if name != "xla" and unfit(name, device=device, dtype=jnp.bfloat16, head_dim=width):
            continue
        found = compared(known, jnp.bfloat16, attention=name)
        out[f"bfloat16 {name}"] = found
        for part in FLOAT32:
            out["agrees"] &= found[part] <= BFLOAT16_TIMES * found[f"torch {part}"]
    return out


@dataclass(frozen=True)
class Reference:
    """What a torch library has said of its network: weights, logits and gradients, by its own names."""

    library: str
    model: cases.Model
    file: dict[str, np.ndarray]

    @property
    def classes(self) -> int | None:
        """Of a classifier; None where the published projection gives what is compared."""
        return cases.CLASSES if self.library == "timm" else None

    @property
    def spec(self) -> ViTSpec:
        spec = cases.spec_of(self.model)
        return spec if self.classes is None else replace(spec, embed_dim=0)

    def converted(self, part: str) -> Any:
        """Its tensors of a part of the file -> fmjax's, by their paths."""
        found = {
            name.removeprefix(part): x for name, x in self.file.items() if name.startswith(part)
        }
        tree, shapes = wc.in_memory_tree(found), param_shapes(self.spec, self.classes)
        names = wc.named(tree, DIALECTS[self.library])
        return wc.to_jax(tree, names, shapes, heads=self.spec.num_heads).params


def compared(known: Reference, dtype: Any, **options: Any) -> Row:
    """Errors of logits and gradients, and torch's own in bfloat16."""
    file, classes = known.file, known.classes
    # scanned: in float32 a program of each block takes minutes to compile
    outline = abstract(known.spec, num_classes=classes, dtype=dtype, unroll=False, **options)
    apply, params = functional(fill(outline, known.converted("weight/")))
    labels = jnp.asarray(file["labels"])

    def loss(params: Params) -> Any:
        out: Any = apply(params, jnp.asarray(file["images"], dtype))
        logits = (out.logits if classes else out.pooled).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

    # float32 as torch has it, not the product of rounded numbers that is faster
    with jax.default_matmul_precision("highest" if dtype == jnp.float32 else "default"):
        gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    ours = {name: np.asarray(x, np.float32) for name, x in flat(gradients).items()}
    theirs = {name: x.read(()) for name, x in known.converted("gradient/").items()}
    half = {name: x.read(()) for name, x in known.converted("half gradient/").items()}
    return {
        "logits": far(np.asarray(logits), file["logits"]),
        "gradients": far_apart(ours, theirs),
        "torch logits": far(file["half logits"], file["logits"]),
        "torch gradients": far_apart(half, theirs),
    }


def far(found: np.ndarray, true: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(found - true).max() / np.abs(true).max())


def far_apart(found: dict[str, np.ndarray], true: dict[str, np.ndarray]) -> float:
    """Of all gradients together: the length of the difference over their length."""
    difference = sum(float(np.square(found[name] - true[name]).sum()) for name in true)
    length = sum(float(np.square(x).sum()) for x in true.values())
    return float(np.sqrt(difference / length))


ROWS = {
    "train": train,
    "profile": profile,
    "forward": forward,
    "product": products,
    "attention": attention,
    "agreement": agreement,
}
