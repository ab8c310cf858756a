"""What the comparisons with the authors' own code gave: a file of results, and their part of docs/parity.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import fill

from fmjax import zoo
from fmjax.names import get_weights, list_models
from fmjax.specs import Weights
from tests.parity.authors.compare import ORIGINALS, Comparison
from tests.parity.bounds import FORWARD

OWN = "demo_vit_ti4"  # trained here: it has no other authors
# tags of what open_clip itself trained, for its own architectures
OPEN_CLIP = ("laion", "datacomp", "commonpool")
TEXT = """## Beside the authors' own code

The table at the end holds a dialect against the package that reads it here, which need not be its authors'. This one
holds it against the network that the authors' own code builds. `python -m weights_conversion parity --authors DIR` runs
it, and `pytest tests/parity --authors DIR` asserts it, for those of these checkouts that DIR holds:
{folders}
CI has none of them, and so there are no such tests in it.

Every tensor of the authors' network is randomised and saved as they publish theirs, the last layers left out where it
is large; fmjax is not told the dialect. All tokens, the pooled output and the gradient of the image are compared, in
float32 at the highest precision, at the native size, at a smaller square and at one that is not square. Errors are the
largest over the sizes, relative to the largest value; bound {bound:.0e}. For packages that this code asks for and that
are not installed there are stand-ins in plain torch (tests/parity/authors/imports.py). Weights given as `.tag` beside a
name are computed by the same code from the same keys, and were not run again. No published file was opened.

{verdict}

| weights | authors' code | commit | compared | layers | sizes | tensors | tokens | pooled | image gradient |
|---|---|---|---|---|---|---|---|---|---|
{lines}

{by_name}
open_clip trained its weights `laion*`, `datacomp*` and `commonpool*` itself: for those the table at the end, in the
dialect `open_clip`, is a comparison with their authors' code. **Not yet** compared with theirs:

| backbone | weights |
|---|---|
{rest}
"""


def load(path: Path) -> list[Comparison]:
    """The stored comparisons of the originals that there are, in their order; none where there is no file."""
    rows = json.loads(path.read_text()) if path.exists() else []
    found = {row["name"]: Comparison(**row) for row in rows}
    return [found[original.name] for original in ORIGINALS if original.name in found]


def store(path: Path, new: Sequence[Comparison]) -> None:
    """Puts comparisons in the place of earlier ones of the same weights."""
    rows = {row.name: row for row in (*load(path), *new)}
    _write(path, [rows[original.name] for original in ORIGINALS if original.name in rows])


def forget(path: Path, name: str) -> None:
    """Leaves out a comparison that can no longer be made: the page is not to say that it holds."""
    _write(path, [row for row in load(path) if row.name != name])


def section(comparisons: Sequence[Comparison]) -> str:
    """Of every published row of the zoo, when it was compared with its authors' own code and how close it is, or that
    it was not yet."""
    folders = dict.fromkeys(
        f"`{original.folder}` ({original.repository})" for original in ORIGINALS
    )
    return TEXT.format(
        folders=_wrapped(f"{', '.join(folders)}."),
        bound=FORWARD,
        verdict=_wrapped(f"Compared: {len(comparisons)}; {verdict(comparisons)}."),
        lines="\n".join(line(row, same_function(row, comparisons)) for row in comparisons),
        by_name=by_name(comparisons),
        rest="\n".join(remaining(comparisons)),
    )


def verdict(comparisons: Sequence[Comparison]) -> str:
    """Which of them are beyond the bound, in words."""
    over = [row.name for row in comparisons if row.over]
    if not over:
        return "all are within the bound"
    return f"beyond the bound, and so another function than that code computes: {', '.join(over)}"


def by_name(comparisons: Sequence[Comparison]) -> str:
    """Of weights whose name is computed otherwise than the authors' file, in words."""
    groups: dict[str, list[str]] = {}
    for row in comparisons:
        groups.setdefault(row.by_name, []).append(row.name)
    groups.pop("", None)
    if not groups:
        return "Loaded by name instead of from that file, all of these are computed the same.\n"
    other = "; ".join(f"{', '.join(names)} by {what}" for what, names in groups.items())
    return (
        _wrapped(
            f"Loaded by name instead of from that file, these are computed otherwise: {other}."
        )
        + "\n"
    )


def line(row: Comparison, alike: Sequence[Weights]) -> str:
    """A row of the table; a number beyond the bound is set in bold."""
    sizes = ", ".join(f"{height} x {width}" for height, width in row.sizes)
    values = [
        ", ".join([row.name, *(f".{weights.tag}" for weights in alike)]),
        row.repository,
        f"{row.commit[:7]} of {row.committed}" if row.committed else row.commit,
        row.compared,
        f"{row.depth} of {row.layers}",
        f"{sizes} (their code {row.missing_sizes})" if row.missing_sizes else sizes,
        f"{row.tensors}/{row.tensors} + {row.extras}",
        *map(_number, (row.tokens, row.pooled, row.image_gradient)),
    ]
    return f"| {' | '.join(values)} |"


def same_function(row: Comparison, comparisons: Sequence[Comparison]) -> list[Weights]:
    """Other weights of the architecture, not compared themselves, that the same authors publish in the same dialect
    and of which the zoo says nothing else."""
    own, named = get_weights(row.name), {other.name for other in comparisons}
    others = [
        other for other in _published() if other.model == own.model and other.name not in named
    ]
    alike = [other for other in others if other.overrides == own.overrides]
    return [other for other in alike if row.dialect in {source.dialect for source in other.sources}]


def remaining(comparisons: Sequence[Comparison]) -> list[str]:
    """Rows for the weights that were not compared with their authors' code, and for architectures without weights."""
    spoken_of = {row.name for row in comparisons}
    for row in comparisons:
        spoken_of |= {weights.name for weights in same_function(row, comparisons)}
    rows = []
    for model in list_models():
        own = [weights for weights in _published() if weights.model == model]
        theirs = spoken_of | {weights.name for weights in own if by_open_clip(weights)}
        left = [f".{weights.tag}" for weights in own if weights.name not in theirs]
        if model != OWN and (left or not own):
            rows.append(f"| {model} | {', '.join(left)} |")
    return rows


def by_open_clip(weights: Weights) -> bool:
    """Whether open_clip trained them, which is the reference of their dialect in the main table."""
    own = {spec.name for spec in zoo.clip.SPECS}
    return weights.model in own and weights.tag.startswith(OPEN_CLIP)


def _published() -> list[Weights]:
    rows = [get_weights(name) for name in list_models(pretrained=True)]
    return [row for row in rows if row.model != OWN]


def _wrapped(text: str) -> str:
    return fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _write(path: Path, rows: Sequence[Comparison]) -> None:
    lines = ",\n".join(json.dumps(asdict(row)) for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[\n{lines}\n]\n")


def _number(value: float) -> str:
    return f"{value:.1e}" if value < FORWARD else f"**{value:.1e}**"
