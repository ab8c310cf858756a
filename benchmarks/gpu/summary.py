"""docs/speed.md's table of what was measured on GPUs: a network's newest figures, both libraries' of one call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from benchmarks.gpu.cases import CASES
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
    memory,
    named,
    said,
)
from benchmarks.pages import header, line, part

PAGE = ROOT / "docs" / "speed.md"
START, END = "<!-- python -m benchmarks.gpu.page: the newest -->", "<!-- end of the newest -->"
COLUMNS = (
    "fmjax, images/s",
    f"of {NOMINAL / 1e12:.0f} TFLOP/s",
    "memory, GiB",
    "compiling, s",
    "torch, images/s",
    "memory, GiB",
    "first step, s",
    "the fastest measured of torch",
    "fmjax over torch",
    "measured at, UTC",
)
Found = tuple[Call, Row, Row | None]
Step = tuple[str, str, int]  # the kind of a row, its model and its batch
# a network of the table -> in the order in which they are told
STEPS = tuple(
    dict.fromkeys(
        (case.kind, case.model, case.batch)
        for kind in TITLES
        for case in CASES
        if case.kind == kind
    )
)


def tables() -> str:
    """One for each kind of device, that of the newest call first."""
    by_device: dict[str, list[Call]] = {}
    for call in reversed(calls()):
        by_device.setdefault(call["device"]["name"], []).append(call)
    return "\n".join(text for name, newest in by_device.items() for text in table(name, newest))


def table(device: str, newest: list[Call]) -> Iterator[str]:
    """That of a device, from calls to it, the newest first."""
    known = {step: found(step, newest) for step in STEPS}
    yield f"### {device}"
    yield ""
    yield from header("", *COLUMNS)
    for kind, title in TITLES.items():
        yield part(title, len(COLUMNS))
        for step in (step for step in STEPS if step[0] == kind):
            yield line(f"{step[1]}, {step[2]} images", *cells(known[step]))
    yield ""
    used = {call["file"] for call, *_ in filter(None, known.values())}
    for call in newest:
        if call["file"] in used:
            yield f"- {at(call)} UTC: {agreed(call)}; {described(call)}"
    yield ""


def found(step: Step, newest: Iterable[Call]) -> Found | None:
    """The newest call that has measured a network by fmjax, and the fastest rows there: another call's would be of
    another hour."""
    for call in newest:
        rows = [row for row in call["rows"] if "ms" in row and of(row) == step]
        ours = fastest(row for row in rows if row["side"] == "ours")
        if ours is not None:
            return call, ours, fastest(row for row in rows if row["side"] == "peers")
    return None


def agreed(call: Call) -> str:
    """Whether the call has found both libraries to compute the same function."""
    verdicts = [row["agrees"] for row in call["rows"] if "agrees" in row]
    if not verdicts:
        return "logits and gradients were not compared in this call"
    return "logits and gradients agree" if all(verdicts) else "logits or gradients differ"


def cells(known: Found | None) -> list[str]:
    """What the columns say; nothing of what was not measured."""
    if known is None:
        return [""] * len(COLUMNS)
    call, ours, theirs = known
    return [*by_fmjax(ours), *by_torch(theirs, ours), at(call)]


def of(row: Row) -> Step:
    """What a row has timed."""
    return row["kind"], row.get("model", ""), row.get("batch", 0)


def fastest(rows: Iterable[Row]) -> Row | None:
    """The row with the most images a second."""
    return max(rows, key=lambda row: row["images_per_s"], default=None)


def by_fmjax(row: Row) -> list[str]:
    return [said(row, "images_per_s", ",.0f"), said(row, "mfu", ".3f"), memory(row), compiling(row)]


def by_torch(row: Row | None, ours: Row) -> list[str]:
    if row is None:
        return [""] * 5
    ratio = ours["images_per_s"] / row["images_per_s"]
    shown = [said(row, "images_per_s", ",.0f"), memory(row), compiling(row)]
    return [*shown, named(row), f"{ratio:.2f}"]
