"""docs/speed_calls.md's tables of all that was measured on GPUs: each call's own, so that no two devices and no two
hours mix.

python -m benchmarks.gpu.page. From the files in benchmarks/results/gpu, one a call; a cell without a figure is empty.
Writes the newest figures into docs/speed.md too (`summary`).
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpu import summary
from benchmarks.gpu.record import NOMINAL
from benchmarks.gpu.stored import (
    ROOT,
    TITLES,
    Call,
    Row,
    at,
    calls,
    compiling,
    described,
    library,
    memory,
    named,
    predictions,
    said,
    who,
)
from benchmarks.pages import header, line, part, put

PAGE = ROOT / "docs" / "speed_calls.md"
START, END = "<!-- python -m benchmarks.gpu.page -->", "<!-- end of benchmarks.gpu.page -->"

COLUMNS = (
    "predicted for an H100, ms",
    "ms (least to most)",
    "images/s",
    f"of {NOMINAL / 1e12:.0f} TFLOP/s",
    "of the product in this run",
    "memory, GiB",
    "compiling or first step, s",
)
# columns, and whose products they have
PRODUCTS = {"jax": "ours products", "torch": "peers products", "jax, FP8": "ours products_fp8"}
REST = "all else"
# What kernels are for, by a word in their names; the first group that has one
GROUPS = {
    "attention": ("sdpa", "dot_do_o", "convert_dq", "flash", "fmha", "attention"),
    "products": ("nvjet", "gemm", "cutlass", "cublas"),
    "copies of slices": ("memcpy", "Memcpy", "dynamic_slice", "dynamic_update_slice"),
    "zero-filling": ("loop_broadcast", "Memset"),
    REST: (),
}


def tables() -> str:
    """All that the page shows, the newest call first."""
    found, shown = calls(), []
    measured = {row["row"] for call in found for row in call["rows"] if "left_out" not in row}
    for number, call in enumerate(found):
        # what no call had time for is an empty row of the last one that meant to measure it
        later = {row["row"] for other in found[number + 1 :] for row in other["rows"]}
        rows = [x for x in call["rows"] if "left_out" not in x or x["row"] not in measured | later]
        shown.append("\n".join(of_call(call, rows)))
    return "\n\n".join(reversed(shown))


def of_call(call: Call, rows: list[Row]) -> Iterator[str]:
    """What one call found."""
    yield from head(call)
    yield from agreement(rows)
    yield ""
    for table in (steps, products, attention, profiles, failures):
        yield from table(rows)


def head(call: Call) -> Iterator[str]:
    """The device, the date, and the versions."""
    yield f"## {call['device']['name']}, {at(call)} UTC"
    yield ""
    yield f"Of {described(call)}"


def agreement(rows: list[Row]) -> Iterator[str]:
    """How far both libraries are apart."""
    for row in rows:
        if "agrees" not in row:
            continue
        ways = [name for name in row if name.startswith(("float32", "bfloat16"))]
        shown = [f"{name} {_apart(row[name], '')}" for name in ways]
        shown.append(f"torch by autocast {_apart(row['float32'], 'torch ')}")
        whose = f"{library(row)}'s in float32 with the same weights"
        yield f"Logits and one step's gradients of {row['model']}, from {whose}:"
        yield ", ".join(shown) + "."


def _apart(found: Row, whose: str) -> str:
    return f"{found[f'{whose}logits']:.1e} and {found[f'{whose}gradients']:.1e}"


def steps(rows: list[Row]) -> Iterator[str]:
    """The table of training and forward passes, a part for each model."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("kind") in TITLES:
            title = f"{TITLES[row['kind']]}, {row['model']}, {row['batch']} images"
            parts.setdefault(title, []).append(row)
    known = predictions()
    yield from header("", *COLUMNS)
    for title, found in parts.items():
        yield part(title, len(COLUMNS))
        for row in found:
            yield line(named(row), *_cells(row, known))


def _cells(row: Row, known: dict[str, float]) -> list[str]:
    """What the columns say; nothing of what was not measured."""
    predicted = said(known, row["row"], ".1f")
    if "ms" not in row:
        return [predicted] + [""] * (len(COLUMNS) - 1)
    timing = row["timing"]
    spread = f"{timing['least'] * 1e3:.1f} to {timing['most'] * 1e3:.1f}"
    return [
        predicted,
        f"{row['ms']:.1f} ({spread})",
        f"{row['images_per_s']:,.0f}",
        f"{row['mfu']:.3f}",
        said(row, "of_measured_product", ".3f"),
        memory(row),
        compiling(row),
    ]


def products(rows: list[Row]) -> Iterator[str]:
    """What products of matrices reach."""
    found: dict[tuple[int, ...], dict[str, str]] = {}
    for row in rows:
        for name in ("products", "products_fp8"):
            for each in row.get(name, ()):
                rate, side = f"{each['flops'] / 1e12:.0f}", row["side"]
                found.setdefault(tuple(each["shape"]), {})[f"{side} {name}"] = rate
    if not found:
        return
    yield ""
    yield from header("bfloat16 product, TFLOP/s", *PRODUCTS)
    for shape, rates in found.items():
        yield line(" x ".join(map(str, shape)), *(rates.get(by, "") for by in PRODUCTS.values()))


def attention(rows: list[Row]) -> Iterator[str]:
    """Attention alone."""
    found = [(row, each) for row in rows for each in row.get("attention", ())]
    if not found:
        return
    yield ""
    yield from header("attention: tokens, width of a head", "by", "forward, ms", "both ways, ms")
    for row, each in sorted(found, key=lambda pair: (pair[1]["tokens"], pair[1]["width"])):
        times = [each[way].get("ms", "") for way in ("forward", "both")]
        by = f"{who(row)}, {each['way']}"
        yield f"| {each['tokens']}, {each['width']} | {by} | {times[0]} | {times[1]} |"


def profiles(rows: list[Row]) -> Iterator[str]:
    """Where the time of a step goes, by kinds of kernels."""
    found = [row for row in rows if "kernels" in row]
    if not found:
        return
    yield ""
    yield from header("kernels of a step, ms", *GROUPS, "in all")
    for row in found:
        sums = dict.fromkeys(GROUPS, 0.0)
        for name, time, _ in row["kernels"]:
            sums[_group(name)] += time
        # the file lists the slowest kernels by their names; the rest are many and small
        sums[REST] += row["device_ms"] - sum(sums.values())
        shown = " | ".join(f"{time:.1f}" for time in sums.values())
        title = f"{row['model']}, {row['batch']} images: {named(row)}"
        yield f"| {title} | {shown} | {row['device_ms']:.1f} |"


def _group(kernel: str) -> str:
    """What a kernel is for."""
    fits = (group for group, words in GROUPS.items() if any(word in kernel for word in words))
    return next(fits, REST)


def failures(rows: list[Row]) -> Iterator[str]:
    """Rows that did not run, and why."""
    failed = [row for row in rows if "failed" in row]
    for reason in dict.fromkeys(row["failed"] for row in failed):
        names = [row["row"] for row in failed if row["failed"] == reason]
        yield ""
        yield f"{', '.join(names)}: {reason}"


if __name__ == "__main__":
    put(PAGE, START, END, tables())
    put(summary.PAGE, summary.START, summary.END, summary.tables())
