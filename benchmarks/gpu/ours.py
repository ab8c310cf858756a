"""fmjax's rows."""

from __future__ import annotations

import gzip
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.profiler import ProfileData
from jax.sharding import Mesh

import fmjax
import weights_conversion as wc
from benchmarks.gpu import cases, record, work
from benchmarks.gpu.cases import Case
from benchmarks.gpu.clock import SHORT_S, timed
from benchmarks.plans import planned
from fmjax.config import ModelConfig, RunConfig
from fmjax.engine.ahead import compiled_ahead
from fmjax.engine.plan import Plan
from fmjax.engine.state import begin, net_shardings
from fmjax.kernels.attention import KERNELS, unfit
from fmjax.models.build import abstract, param_shapes, resized
from fmjax.models.functional import functional
from fmjax.preprocessing import normalise, preprocess_config
from fmjax.sharding import batch_sharding, make_mesh
from fmjax.trees import Params, flat, nested
from fmjax.weights.load import fill

GIB = 2**30
Row = dict[str, Any]
# errors relative to the largest value of a tensor: of float32 the order of sums alone; of bfloat16 at most so many
# times torch's own, both against torch's float32
FLOAT32 = {"logits": 1e-4, "gradients": 1e-3}
BFLOAT16_TIMES = 2.0


def train(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """The engine's own step: AdamW, clipping, bfloat16 compute, float32 parameters, the state given up."""
    model, batch = cases.model_of(case, tiny=tiny), cases.batch_of(case, tiny=tiny)
    step = Step(case, tiny)
    if step.too_large:
        return step.facts | {"failed": step.too_large}
    step.begin()
    timing = timed(step.run, tiny=tiny)
    count = work.training_flops(model)
    rates = record.rates(path, images=batch, seconds=timing.median, flops=count)
    text = gzip.compress(step.program.as_text().encode())
    (folder / f"{case.slug}.hlo.gz").write_bytes(text)
    return rates | step.facts | {"logs": step.told, "timing": asdict(timing)}


def profile(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """The kernels of a step, the slowest first: milliseconds and how often, of one step."""
    step, steps = Step(case, tiny), 3
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


class Step:
    """A compiled step of training on images of noise, and its state."""

    def __init__(self, case: Case, tiny: bool) -> None:
        self.mesh = make_mesh(devices=jax.devices()[:1])
        self.plan = planned(config_of(case, tiny=tiny), self.mesh)
        ahead = compiled_ahead(self.plan, self.mesh)
        self.program, self.size = ahead.program, ahead.memory.total
        self.facts = {
            "lowering_s": round(ahead.lowering_s, 1),
            "compiling_s": round(ahead.compiling_s, 1),
            "planned_gib": round(self.size / GIB, 2),
        }

    @property
    def too_large(self) -> str:
        """Why the step cannot run; "" where it can."""
        limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", np.inf)
        return f"does not fit: {limit / GIB:.1f} GiB are jax's" if self.size > limit else ""

    def begin(self) -> None:
        """Makes the state and the batch."""
        self.state = begin(self.plan, noise_of(self.plan, self.mesh), self.mesh)
        self.batch = batch_of(self.plan, self.mesh)

    def run(self, steps: int) -> None:
        """So many steps, to the end of the last."""
        for _ in range(steps):
            self.state, self.logs = self.program(self.state, self.batch)
        jax.block_until_ready(self.logs)

    @property
    def told(self) -> dict[str, float]:
        """What the last step says of itself."""
        return {name: float(self.logs[name]) for name in ("loss", "grad_norm")}


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
    apply, shapes = functional(abstract(spec, mesh=mesh, **half, **case.options))
    config = preprocess_config(model.ours, model.size)
    return jax.jit(lambda params, images: apply(params, normalise(images, config)).pooled), shapes


def forward(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """Bytes of pictures to embeddings, parameters and compute in bfloat16."""
    model, batch = cases.model_of(case, tiny=tiny), cases.batch_of(case, tiny=tiny)
    function, shapes = embedder(case, tiny=tiny)
    leaves = flat(shapes).items()
    params = nested({name: jnp.asarray(noise(name, x.shape), x.dtype) for name, x in leaves})
    images = jnp.asarray(pictures(batch, model.size))
    start = time.perf_counter()
    program = function.lower(params, images).compile()
    compiling = {"compiling_s": round(time.perf_counter() - start, 1)}

    def run(steps: int) -> None:
        out: Any = None
        for _ in range(steps):
            out = program(params, images)
        jax.block_until_ready(out)

    timing = timed(run, tiny=tiny)
    count = work.forward_flops(model)
    rates = record.rates(path, images=batch, seconds=timing.median, flops=count)
    return rates | compiling | {"timing": asdict(timing)}


def products(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """Products of matrices in bfloat16, which are what a device can do."""
    found = []
    for m, k, n in cases.products_of(tiny=tiny):
        a, b = (jax.random.normal(jax.random.key(0), s, jnp.bfloat16) for s in ((m, k), (k, n)))
        program = jax.jit(jnp.matmul).lower(a, b).compile()
        timing = timed(partial(repeated, program, a, b), seconds=SHORT_S, tiny=tiny)
        found.append({"shape": [m, k, n], "flops": 2 * m * k * n / timing.median, **asdict(timing)})
    return {"products": found}


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
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, g = (jax.random.normal(key, shape, jnp.bfloat16) for key in keys)

    def backward(q: Any, k: Any, v: Any, g: Any) -> Any:
        out, pulled = jax.vjp(function, q, k, v)
        return out, pulled(g)

    count = work.attention_flops(*shape)
    out: Row = {}
    ways = (("forward", function, (q, k, v), 1.0), ("both", backward, (q, k, v, g), 3.5))
    for name, way, arguments, times in ways:
        try:
            program = jax.jit(way).lower(*arguments).compile()
        except Exception as error:
            out[name] = {"failed": " ".join(str(error).split())[:160]}
            continue
        timing = timed(partial(repeated, program, *arguments), seconds=SHORT_S, tiny=tiny)
        rate = times * count / timing.median / 1e12
        out[name] = {"ms": round(timing.median * 1e3, 4), "tflops": round(rate, 1)}
    return out


def agreement(case: Case, path: Path, folder: Path, tiny: bool) -> Row:
    """Logits and one step's gradients beside timm's of the same weights, which the reference's row has left in the
    folder: in float32, and in bfloat16 by each way of computing attention."""
    model = cases.model_of(case, tiny=tiny)
    with np.load(folder / "reference.npz") as file:
        known_file = {name: file[name] for name in file.files}
    out: Row = {"float32": compared(model.ours, model.size, known_file, jnp.float32)}
    out["agrees"] = all(out["float32"][name] <= most for name, most in FLOAT32.items())
    device, width = jax.devices()[0], fmjax.get_spec(model.ours).head_dim
    for name in KERNELS:
        # where a kernel cannot run, nothing is said of it
        if name != "xla" and unfit(device, dtype=jnp.bfloat16, head_dim=width):
            continue
        found = compared(model.ours, model.size, known_file, jnp.bfloat16, attention=name)
        out[f"bfloat16 {name}"] = found
        for part in FLOAT32:
            out["agrees"] &= found[part] <= BFLOAT16_TIMES * found[f"torch {part}"]
    return out


def compared(name: str, size: int, file: dict[str, np.ndarray], dtype: Any, **options: Any) -> Row:
    """Errors of logits and gradients, and torch's own in bfloat16."""
    spec = replace(resized(fmjax.get_spec(name), size), embed_dim=0)
    outline = abstract(spec, num_classes=cases.CLASSES, dtype=dtype, **options)
    apply, params = functional(fill(outline, converted(spec, file, "weight/")))
    labels = jnp.asarray(file["labels"])

    def loss(params: Params) -> Any:
        logits: Any = apply(params, jnp.asarray(file["images"], dtype)).logits
        logits = logits.astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

    # float32 as torch has it, not the product of rounded numbers that is faster
    with jax.default_matmul_precision("highest" if dtype == jnp.float32 else "default"):
        gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    ours = {name: np.asarray(x, np.float32) for name, x in flat(gradients).items()}
    theirs = {name: x.read(()) for name, x in converted(spec, file, "gradient/").items()}
    half = {name: x.read(()) for name, x in converted(spec, file, "half gradient/").items()}
    return {
        "logits": far(np.asarray(logits), file["logits"]),
        "gradients": far_apart(ours, theirs),
        "torch logits": far(file["half logits"], file["logits"]),
        "torch gradients": far_apart(half, theirs),
    }


def converted(spec: Any, file: dict[str, np.ndarray], part: str) -> Any:
    """timm's tensors of a part of the file -> fmjax's, by their paths."""
    tensors = {
        name.removeprefix(part): tensor for name, tensor in file.items() if name.startswith(part)
    }
    tree, shapes = wc.in_memory_tree(tensors), param_shapes(spec, cases.CLASSES)
    return wc.to_jax(tree, wc.named(tree, "timm"), shapes, heads=spec.num_heads).params


def far(found: np.ndarray, true: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(found - true).max() / np.abs(true).max())


def far_apart(found: dict[str, np.ndarray], true: dict[str, np.ndarray]) -> float:
    """Of all gradients together: the length of the difference over their length."""
    difference = sum(float(np.square(found[name] - true[name]).sum()) for name in true)
    length = sum(float(np.square(x).sum()) for x in true.values())
    return float(np.sqrt(difference / length))


def noise_of(plan: Plan, mesh: Mesh) -> Params:
    """Parameters of a plan's net, on the mesh."""
    leaves = flat(plan.net)
    places = net_shardings({name: x.shape for name, x in leaves.items()}, mesh)
    return nested(
        {name: jax.device_put(noise(name, x.shape), places[name]) for name, x in leaves.items()}
    )


def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers like those of a parameter: a device takes more power for them than for zeros, and is slower."""
    if name.endswith("scale"):
        return np.ones(shape, np.float32)
    return np.resize(POOL, shape)


POOL = np.random.default_rng(0).standard_normal(2**22 + 1, np.float32) * np.float32(0.02)


def batch_of(plan: Plan, mesh: Mesh) -> dict[str, Any]:
    """A batch of noise, on the mesh."""
    rng = np.random.default_rng(1)
    count, size, _, _ = plan.batch["image"].shape
    batch = {
        "image": pictures(count, size),
        "label": rng.integers(0, cases.CLASSES, count, np.int32),
        "weight": np.ones(count, np.float32),
    }
    return jax.device_put(batch, batch_sharding(mesh))


def pictures(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (count, size, size, 3), np.uint8)


def repeated(program: Any, *rest: Any) -> None:
    """program, arguments, steps: waits for the last."""
    *arguments, steps = rest
    out: Any = None
    for _ in range(steps):
        out = program(*arguments)
    jax.block_until_ready(out)


ROWS = {
    "train": train,
    "profile": profile,
    "forward": forward,
    "product": products,
    "attention": attention,
    "agreement": agreement,
}
