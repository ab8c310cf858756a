"""docs/speed.md's tables of what was measured on GPUs: each call's own, so that no two devices and no two hours mix.

python -m benchmarks.gpu.page. From the files in benchmarks/results/gpu, one a call; a cell without a figure is empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.record import NOMINAL
from benchmarks.pages import header, line, part, put

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "speed.md"
RESULTS = ROOT / "benchmarks" / "results" / "gpu"
PREDICTED = ROOT / "benchmarks" / "results" / "compiled.json"
START, END = "<!-- python -m benchmarks.gpu.page -->", "<!-- end of benchmarks.gpu.page -->"

Row = dict[str, Any]
COLUMNS = (
    "predicted for an H100, ms",
    "ms (least to most)",
    "images/s",
    f"of {NOMINAL / 1e12:.0f} TFLOP/s",
    "of the product in this run",
    "memory, GiB",
    "compiling or first step, s",
)
TITLES = {"train": "training", "forward": "forward"}
MODES = {
    "no": "eager",
    "default": "torch.compile",
    "max-autotune-no-cudagraphs": "max-autotune",
    "step": "torch.compile of the whole step",
}
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


def calls() -> list[dict[str, Any]]:
    """What each call to a device found, the newest last."""
    return [json.loads(file.read_text()) | {"file": file.name} for file in files()]


def files() -> list[Path]:
    """Those of the calls, by their dates, with which their names begin."""
    return sorted(RESULTS.glob("*.json"))


def tables() -> str:
    """All that the page shows."""
    found, lines = calls(), []
    measured = {row["row"] for call in found for row in call["rows"] if "left_out" not in row}
    for number, call in enumerate(found):
        # what no call had time for is an empty row of the last one that meant to measure it
        shown = {row["row"] for later in found[number + 1 :] for row in later["rows"]}
        rows = [x for x in call["rows"] if "left_out" not in x or x["row"] not in measured | shown]
        lines += [*head(call), *agreement(rows), "", *steps(rows), *products(rows)]
        lines += [*attention(rows), *profiles(rows), *failures(rows), ""]
    return "\n".join(lines).rstrip()


def head(call: dict[str, Any]) -> Iterator[str]:
    """The device, the date, and the versions."""
    device, versions = call["device"], call["versions"]
    yield f"### {device['name']}, {call['date'][:16].replace('T', ' ')} UTC"
    yield ""
    yield f"Commit {call['commit']}, Python {call['python']}, driver {device['driver_version']},"
    yield f"{device['power.limit']} at most (`benchmarks/results/gpu/{call['file']}`);"
    yield ", ".join(f"{name} {version}" for name, version in versions.items() if version) + "."


def agreement(rows: list[Row]) -> Iterator[str]:
    """How far both libraries are apart, which is looked at before any time is taken."""
    for row in rows:
        if "agrees" not in row:
            continue
        ways = [name for name in row if name.startswith(("float32", "bfloat16"))]
        shown = [f"{name} {_apart(row[name], '')}" for name in ways]
        shown.append(f"torch by autocast {_apart(row['float32'], 'torch ')}")
        whose = f"{_library(row)}'s in float32 with the same weights"
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
            yield line(_named(row), *_cells(row, known))


def predictions() -> dict[str, float]:
    """Row -> milliseconds, of what was compiled without a device."""
    if not PREDICTED.exists():
        return {}
    return {row["row"]: row["predicted_ms"] for row in json.loads(PREDICTED.read_text())["rows"]}


def _named(row: Row) -> str:
    """Who computed, and how."""
    options = dict(row["options"])
    mode = options.pop("compile", "")
    options.pop("library", "")
    told = [f"{name} {value}" for name, value in options.items()]
    library = _who(row)
    return ", ".join([library, *filter(None, (MODES.get(mode, mode),)), *told]).replace(" True", "")


def _who(row: Row) -> str:
    return "fmjax" if row["side"] == "ours" else f"{_library(row)} in torch"


def _library(row: Row) -> str:
    return row["options"].get("library", "timm")


def _cells(row: Row, known: dict[str, float]) -> list[str]:
    """What the columns say; nothing of what was not measured."""
    predicted = _said(known, row["row"], ".1f")
    if "ms" not in row:
        return [predicted] + [""] * (len(COLUMNS) - 1)
    timing = row["timing"]
    spread = f"{timing['least'] * 1e3:.1f} to {timing['most'] * 1e3:.1f}"
    return [
        predicted,
        f"{row['ms']:.1f} ({spread})",
        f"{row['images_per_s']:,.0f}",
        f"{row['mfu']:.3f}",
        _said(row, "of_measured_product", ".3f"),
        _said(row, "planned_gib", ".1f") or _said(row, "peak_gib", ".1f"),
        _said(row, "compiling_s", ".1f") or _said(row, "first_step_s", ".1f"),
    ]


def _said(row: Row, name: str, form: str) -> str:
    """A figure; nothing where there is none."""
    return f"{row[name]:{form}}" if name in row else ""


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
        by = f"{_who(row)}, {each['way']}"
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
        title = f"{row['model']}, {row['batch']} images: {_named(row)}"
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
