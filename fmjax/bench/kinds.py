"""The kinds of rows: what of a backbone is timed, and by what it is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax.numpy as jnp

from fmjax.bench import compiled, noise
from fmjax.bench.compiled import Step
from fmjax.bench.inputs import inputs
from fmjax.bench.loading import weights
from fmjax.bench.plans import planned
from fmjax.bench.rows import Row
from fmjax.bench.subject import Subject
from fmjax.bench.timing import timed
from fmjax.config.bench import Kind
from fmjax.engine.throughput import step_flops
from fmjax.kernels.attention import KERNELS, unfit
from fmjax.models.build import abstract
from fmjax.models.flops import attention_flops, embedding_flops, flops

# of a square product: as large as keeps all of a device busy, and as takes a CPU less than a second
SQUARE = {"cpu": 1024}
LARGE = 8192
WAYS = 4  # of attention, at most: two kernels, and whether it is trained


def product(asked: Subject) -> Iterator[Row]:
    """Products of matrices in the compute dtype: those of a block for a batch, and a square one."""
    spec, tokens = asked.spec, asked.config.batch_size * flops(asked.spec).tokens
    side = SQUARE.get(asked.device.platform, LARGE)
    # q, k, v or out; up; down: the share of them that a step reaches is what is left to gain beside them
    shapes = (
        (side, side, side),
        (tokens, spec.width, spec.width),
        (tokens, spec.width, spec.mlp_dim),
        (tokens, spec.mlp_dim, spec.width),
    )
    for rows, inner, columns in shapes:
        ready = compiled.product(rows, inner, columns, dtype=asked.dtype)
        yield Row(
            kind="product",
            what=f"{rows} x {inner} x {columns}",
            timing=timed(ready.run, seconds=asked.config.seconds / len(shapes), least=asked.least),
            flops=2 * rows * inner * columns,
            facts={"shape": (rows, inner, columns)},
        )


def train(asked: Subject) -> Iterator[Row]:
    """The engine's own step: all parameters, a classifier of a thousand classes, AdamW, clipping, the check of every
    gradient; parameters in float32."""
    # what the compiler says is worth a row even where the step cannot run
    plan = planned(asked.run, asked.mesh)
    step = Step(plan, asked.mesh)
    row = {
        "kind": "train",
        "what": f"{asked.config.batch_size} images",
        "memory_bytes": step.ahead.memory.total,
        "lowering_s": step.ahead.lowering_s,
        "compiling_s": step.ahead.compiling_s,
    }
    if step.too_large:
        fix = "take a smaller --batch-size, or --remat full"
        yield Row(**row, failed=f"{step.too_large}; {fix}")
        return
    step.begin()
    timing = timed(step.run, seconds=asked.config.seconds, least=asked.least)
    yield Row(
        **row,
        timing=timing,
        images=asked.config.batch_size,
        flops=step_flops(plan),
        facts=step.told,
    )


def forward(asked: Subject) -> Iterator[Row]:
    """Bytes of pictures to embeddings, the parameters in the compute dtype."""
    config, count = asked.config, asked.config.batch_size
    # cast before and not in every call: whoever only embeds needs no float32 of them
    outline = abstract(
        asked.spec,
        attention=config.attention,
        norms=config.norms,
        activations=config.activations,
        unroll=config.unroll,
        dtype=asked.dtype,
        param_dtype=asked.dtype,
        mesh=asked.mesh,
    )
    embed, shapes = compiled.embedder(outline, asked.images)
    pictures = jnp.asarray(noise.pictures(count, asked.images.image_size))
    ready = compiled.ready(embed, noise.filled(shapes), pictures)
    yield Row(
        kind="forward",
        what=f"{count} images",
        timing=timed(ready.run, seconds=config.seconds, least=asked.least),
        images=count,
        flops=count * embedding_flops(asked.spec).forward,
        memory_bytes=ready.memory.total,
        lowering_s=ready.lowering_s,
        compiling_s=ready.compiling_s,
    )


def attention(asked: Subject) -> Iterator[Row]:
    """Attention of one block for a batch, by each kernel that can run here: there, and both ways."""
    spec, count = asked.spec, asked.config.batch_size
    # of heads before tokens, as the blocks have them
    tokens = flops(spec).tokens
    shape = (count, spec.num_heads, tokens, spec.head_dim)
    for name, training in _attends(asked):
        ready = compiled.attention(
            KERNELS[name].attend, shape, dtype=asked.dtype, training=training
        )
        way = "both ways" if training else "forward"
        yield Row(
            kind="attention",
            what=f"{name}, {tokens} tokens, {way}",
            timing=timed(ready.run, seconds=asked.config.seconds / WAYS, least=asked.least),
            flops=attention_flops(*shape, training=training),
            memory_bytes=ready.memory.total,
            compiling_s=ready.lowering_s + ready.compiling_s,
            facts={"kernel": name, "training": training, "shape": shape},
        )


def _attends(asked: Subject) -> Iterator[tuple[str, bool]]:
    """The kernels that can run here, and whether both ways are timed."""
    kind = {"device": asked.device, "dtype": asked.dtype, "head_dim": asked.spec.head_dim}
    # XLA's runs everywhere
    names = [name for name in KERNELS if name == "xla" or not unfit(name, **kind)]
    yield from ((name, training) for name in names for training in (False, True))


TIMED: dict[Kind, Callable[[Subject], Iterator[Row]]] = {
    "product": product,
    "train": train,
    "forward": forward,
    "attention": attention,
    "weights": weights,
    "input": inputs,
}
