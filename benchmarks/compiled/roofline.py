"""What a compiled program must take on an H100: each kernel as long as its bytes or its products, whichever is longer.

Launches, exchanges between devices, and what caches save are not in it. Kernels count with their operands and results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.compiled.program import EXCHANGES, MOVES, Kernel, attends

BYTES = 3.0e12  # a second: a copy in an H100's memory
FLOPS = 790e12  # a second: a product of large bfloat16 matrices there
FLOPS_FLOAT32 = 395e12  # a product of float32 numbers, rounded to TF32
# a second, of attention's kernels on full tiles of heads that are 64 wide (arXiv:2407.08608)
FLOPS_ATTENTION = {"attention backward": 250e12, "attention forward": 280e12}
SAVED = 0.4  # of the bytes: a kernel with more of them for a loop's stack is there for the stack
LARGE = 1e8  # bytes: what fills more with one number before a loop fills the loop's stack
FILLS = {"broadcast", "constant", "parameter", "bitcast"}
COMPUTES = (
    "multiply",
    "add",
    "exponential",
    "reduce",
)  # a fusion with one of these does more than to pad


def kinds(kernel: Kernel, scores: frozenset[tuple[int, int]], *, scanned: bool = True) -> str:
    """What a kernel's time goes to. scanned: blocks are in loops; else what is outside of them cannot be told."""
    if kernel.kind in EXCHANGES:
        return "exchanges"
    found = attends(kernel.kind)
    if found is not None:
        return f"attention {found.way}"
    if of_scores(kernel, scores):
        return "scores"
    if kernel.flops:
        return "products"
    if kernel.trips == 1 and scanned:
        filled = "broadcast" in kernel.inner and kernel.inner <= FILLS
        return "zero-filling" if filled and kernel.bytes > LARGE else "outside blocks"
    if kernel.stack > SAVED * kernel.bytes:
        return "the stack"
    return "elementwise"


def of_scores(kernel: Kernel, scores: frozenset[tuple[int, int]]) -> bool:
    """Whether a kernel reads or writes scores of attention, an array [.. tokens tokens] in memory."""
    return any(
        len(sizes) >= 3 and sizes[-2:] in scores for dtype, sizes in kernel.shapes if dtype != "u8"
    )


def squares(tokens: int) -> frozenset[tuple[int, int]]:
    """The last two sizes of scores; XLA fills them up to a multiple of eight."""
    near = (tokens, tokens + 1, -(-tokens // 8) * 8)
    return frozenset((rows, columns) for rows in near for columns in near)


def seconds(kernel: Kernel, kind: str) -> float:
    """That a kernel takes at least, once."""
    single = bool(kernel.flops) and any(dtype == "f32" for dtype, _ in kernel.shapes[:2])
    rate = FLOPS_ATTENTION.get(kind, FLOPS_FLOAT32 if single else FLOPS)
    return max(kernel.bytes / BYTES, kernel.flops / rate)


def moved(kernel: Kernel) -> bool:
    """Whether a kernel computes nothing: it copies, or lays out anew."""
    return kernel.kind.startswith("copy") or (bool(kernel.inner) and kernel.inner <= MOVES)


def padded(kernel: Kernel) -> bool:
    """Whether a kernel does nothing but to fill arrays up."""
    return "pad" in kernel.inner and not kernel.inner & set(COMPUTES)


def figures(kernels: Iterable[Kernel], *, depth: int, tokens: int) -> dict[str, Any]:
    """What is known of a program. Per layer: of the blocks' loops, forward and backward together; of an unrolled
    program all kernels over the depth."""
    found, scores = list(kernels), squares(tokens)
    times, milliseconds = Counter(), Counter()
    # the last block is in no loop where it computes class tokens alone
    loops = (depth, depth - 1)
    scanned = any(kernel.trips in loops for kernel in found)
    layer = [kernel for kernel in found if kernel.trips in loops or not scanned]
    for kernel in found:
        kind = kinds(kernel, scores, scanned=scanned)
        times[kind] += kernel.times
        milliseconds[kind] += kernel.times * seconds(kernel, kind) * 1e3
    counted = [kernel for kernel in layer if kernel.kind not in EXCHANGES]
    inside = [kernel for kernel in counted if of_scores(kernel, scores)]
    return {
        "predicted_ms": round(sum(milliseconds.values()), 2),
        "ms": {kind: round(time, 2) for kind, time in milliseconds.most_common()},
        "kernels": sum(times.values()),
        "layer": {
            "kernels": _each(counted, depth),
            "gigabytes": round(sum(k.times * k.bytes for k in counted) / depth / 1e9, 3),
            "teraflops": round(sum(k.times * k.flops for k in counted) / depth / 1e12, 4),
            "attention forward": times["attention forward"] / depth,
            "attention backward": times["attention backward"] / depth,
            "of scores": _each(inside, depth),
            "copies": _each(filter(moved, counted), depth),
            "pads": _each(filter(padded, counted), depth),
        },
    }


def worse(found: dict[str, Any], known: dict[str, Any], slack: float) -> Iterator[str]:
    """What a program does more of than is known of it: a share of `slack` more, and a sentence for each."""
    pairs = {
        f"{name} a layer": (found["layer"][name], most) for name, most in known["layer"].items()
    }
    for name in ("predicted_ms", "temporary_gib"):
        pairs[name] = (found[name], known[name])
    for name, (value, most) in pairs.items():
        if value > most * (1 + slack):
            yield f"{found['row']}: {name} {value}, where {most} are known"


def _each(kernels: Iterable[Kernel], depth: int) -> float:
    """How many run in a layer."""
    return round(sum(kernel.times for kernel in kernels) / depth, 2)
