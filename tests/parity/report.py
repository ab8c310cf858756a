"""`python -m weights_conversion parity`: every backbone in every dialect against its reference, and originals against
their authors' own code, as docs/parity.md."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path

from tests.parity.authors import record
from tests.parity.authors.run import run, tell, tell_failure
from tests.parity.bounds import FORWARD, GRADIENT
from tests.parity.cases import CASES, Case, sample
from tests.parity.measure import Result, measure
from tests.parity.training import page as training

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "timm", "open_clip_torch", "transformers", "jax", "flax")
TEXT = """# Parity

Made by `python -m weights_conversion parity`, which needs a checkout and the `test` extra, on {date} with {versions}
(Python {python}, CPU).

Each line is a backbone in the dialect of one of its published files. A file of that dialect is filled with random
values, at which a swapped name, a missing transpose or a wrong epsilon shows; the reference reads it strictly with its
own loader, fmjax with its table. Both then see the same random image at the native size, at another square one and at
one that is not square. Widths are the published ones; depth is 1 or 2, which leaves out nothing but repetitions.

- **tensors**: how many tensors of the file became parameters, and how many are carried along beside them; there are
  no others.
- **absolute**, **relative**: the largest difference of any token or of the pooled output; relative to the largest
  value of the tensor. Bound {forward:.0e}.
- **cosine**: the smallest of any token or the pooled output, with the reference's, as 1 - cosine.
- **image gradient**, **parameter gradient**: of a random weighted sum of all tokens and the pooled output, relative to
  the largest value of each tensor. Bounds {forward:.0e} and {gradient:.0e}.
- **bfloat16**: relative error in that compute dtype against the reference in float32; in brackets the reference's own
  under torch's autocast.

Relative errors are the largest over the three sizes. References: open_clip's CLIP for `open_clip` and `openai_jit`;
open_clip with timm's trunk for `open_clip_timm`; transformers, from a folder on disk, for `hf_*`; timm for all others,
whose files it reads through its own loaders (`checkpoint_filter_fn`, `load_pretrained`).

What these lines do not show: Meta's, NVIDIA's, Apple's and Google's own code cannot be installed beside these, so here
their dialects are held against timm's reading of them, and their own ways to follow another image size (DINOv2's,
DINO's and NV-CLIP's offset of 0.1, TIPS' antialiased bilinear) against torch's interpolation, in
tests/unit/test_resample.py. No published file was opened; two real
towers, CLIP ViT-B/16 and DINOv2 ViT-S/14, are compared in tests/e2e/test_real_towers.py. transformers' AIMv2 takes one
size only. The gradient of the position table is not compared for `radio` and `hf_vit_mae`, whose references have none.

Tests run the smallest model of every family in every dialect of it. The next section says which weights were also held
against their authors' own code, the one after it how training compares with PyTorch's.

{authors}
{training}
## Every backbone in every dialect

{count} lines, {seconds:.0f} s; largest relative error {worst:.1e}, image gradient {image:.1e}, parameter gradient
{parameter:.1e}.

| backbone | dialect | tensors | absolute | relative | 1 - cosine | image gradient | parameter gradient | bfloat16 |
|---|---|---|---|---|---|---|---|---|
{lines}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measures the cases that match, and returns 1 if any fails or is over a bound; where all were asked for and none
    failed, writes the page. What the authors' code was compared for goes into the page whatever the result."""
    options = _parser().parse_args(argv)
    if options.page:
        options.out.write_text(page(options.json, options.authors_json))
        return 0
    if options.authors:
        code = run(options.authors, options.pattern, options.authors_json)
        if code < 2:  # something was compared
            options.out.write_text(page(options.json, options.authors_json))
        return code
    return _beside_references(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m weights_conversion parity", description=__doc__
    )
    parser.add_argument(
        "pattern", nargs="?", default="*", help="backbones, or BACKBONE-DIALECT, shell style"
    )
    parser.add_argument("--sample", action="store_true", help="what the tests run")
    parser.add_argument(
        "--update", action="store_true", help="take the lines of a part into the page"
    )
    parser.add_argument(
        "--page", action="store_true", help="write the page of the stored results; measure nothing"
    )
    parser.add_argument(
        "--authors",
        type=Path,
        metavar="DIR",
        help="compare with the authors' own code, checked out here",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "parity.md")
    parser.add_argument("--json", type=Path, default=RESULTS / "parity.json")
    parser.add_argument("--authors-json", type=Path, default=RESULTS / "authors.json")
    return parser


def _beside_references(options: argparse.Namespace) -> int:
    """The run over every dialect's reference package."""
    cases = [c for c in (sample() if options.sample else CASES) if _asked(c, options.pattern)]
    if not cases:
        sys.stderr.write(f"no backbone matches {options.pattern!r}; `fmjax models` lists them\n")
        return 2
    found, failed = {}, []
    for case in cases:
        try:
            found[case] = measure(case)
        except Exception as error:  # the other cases are still worth their hour
            failed.append(case.id)
            tell_failure(case.id, error)
            continue
        tell(f"{'over' if over(found[case]) else 'ok':<5}{line(found[case])}")
    whole = options.pattern == "*" and not options.sample
    if (whole or options.update) and not failed:
        results = {case.id: results for case, results in found.items()}
        store(options.json, results if whole else stored(options.json) | results, whole=whole)
        options.out.write_text(page(options.json, options.authors_json))
    bad = failed + [case.id for case, results in found.items() if over(results)]
    tell(f"{len(cases) - len(bad)} of {len(cases)} within bounds {', '.join(bad)}")
    return 1 if bad else 0


def _asked(case: Case, pattern: str) -> bool:
    return any(fnmatchcase(name.lower(), pattern.lower()) for name in (case.model, case.id))


def over(results: Sequence[Result]) -> bool:
    """Whether a case is beyond a bound."""
    forward = all(r.relative < FORWARD and r.image_gradient < FORWARD for r in results)
    return not (forward and all(r.parameter_gradient < GRADIENT for r in results))


def line(results: Sequence[Result]) -> str:
    """A row of the table: the worst over all sizes."""
    first = results[0]
    values = [
        f"{first.tensors}/{first.tensors}" + (f" + {first.extras}" if first.extras else ""),
        *(f"{max(getattr(r, name) for r in results):.1e}" for name in ("absolute", "relative")),
        f"{max(0.0, 1 - min(r.cosine for r in results)):.1e}",
        *(
            f"{max(getattr(r, name) for r in results):.1e}"
            for name in ("image_gradient", "parameter_gradient")
        ),
        f"{first.bfloat16:.1e} ({first.reference_bfloat16:.1e})",
    ]
    return f"| {first.model} | {first.dialect} | " + " | ".join(values) + " |"


def stored(path: Path) -> dict[str, list[Result]]:
    """The results that the page was made of."""
    found: dict[str, list[Result]] = {}
    for row in json.loads(path.read_text())["results"]:
        result = Result(
            **{key: float("nan") if value is None else value for key, value in row.items()}
        )
        found.setdefault(f"{result.model}-{result.dialect}", []).append(result)
    return found


def store(path: Path, found: dict[str, list[Result]], *, whole: bool) -> None:
    """Keeps results, with the date and the packages of the run that all of them are of, or most."""
    today = time.strftime("%Y-%m-%d")
    made = {
        "date": today,
        "versions": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "python": platform.python_version(),
    }
    if not whole:
        made = {key: json.loads(path.read_text())[key] for key in made}
        made["date"] = f"{made['date'].partition(',')[0]}, some lines again on {today},"
    results = [result for case in CASES for result in found.get(case.id, ())]
    rows = [{k: None if v != v else v for k, v in asdict(result).items()} for result in results]
    path.parent.mkdir(parents=True, exist_ok=True)
    # a row a line, so that a difference of two runs shows the rows that changed
    head, lines = json.dumps(made).removesuffix("}"), ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f'{head}, "results": [\n{lines}\n]}}\n')


def page(results_json: Path, authors_json: Path, training_json: Path = training.RESULTS) -> str:
    """docs/parity.md, of stored results alone."""
    found, made = stored(results_json), json.loads(results_json.read_text())
    ordered = [found[case.id] for case in CASES if case.id in found]
    results = [result for rows in ordered for result in rows]
    return TEXT.format(
        date=made["date"],
        versions=made["versions"],
        python=made["python"],
        forward=FORWARD,
        gradient=GRADIENT,
        count=len(ordered),
        seconds=sum(r.seconds for r in results),
        worst=max(r.relative for r in results),
        image=max(r.image_gradient for r in results),
        parameter=max(r.parameter_gradient for r in results),
        lines="\n".join(map(line, ordered)),
        authors=record.section(record.load(authors_json)),
        training=training.section(training_json),
    )
