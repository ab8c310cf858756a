"""The stored parity results in short, as they ship inside the package: `python -m tests.parity.packaged` writes them
anew, of benchmarks/results."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGED = ROOT / "fmjax" / "zoo" / "files" / "parity.json"
ERRORS = ("relative", "image_gradient", "parameter_gradient")


def summary() -> dict[str, Any]:
    """Of each backbone in each dialect the largest error over all sizes, and of each comparison with the authors' own
    code the largest of its tokens and pooled output."""
    stored = json.loads((RESULTS / "parity.json").read_text())
    models: dict[str, dict[str, dict[str, float]]] = {}
    # a size a row
    for row in stored["results"]:
        worst = models.setdefault(row["model"], {}).setdefault(row["dialect"], {})
        for name in ERRORS:
            worst[name] = _short(max(row[name], worst.get(name, 0.0)))
    return {
        "date": stored["date"],
        "versions": stored["versions"],
        "models": models,
        "authors": {row["name"]: _compared(row) for row in _authors()},
    }


def _authors() -> list[dict[str, Any]]:
    return json.loads((RESULTS / "authors.json").read_text())


def _compared(row: dict[str, Any]) -> dict[str, Any]:
    error = max(row["tokens"], row["pooled"])
    return {
        "repository": row["repository"],
        "commit": row["commit"],
        "blocks": row["depth"],
        "of_blocks": row["layers"],
        "relative": _short(error),
    }


def _short(error: float) -> float:
    """Rounded up to two digits: what is printed is never better than what was measured."""
    if error == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(error)) - 1)
    return float(f"{math.ceil(error / unit - 1e-9) * unit:.1e}")


def text() -> str:
    """The packaged file, a backbone a line."""
    found = summary()
    head = {key: found[key] for key in ("date", "versions")}
    parts = [f'"{key}": {{\n{_lines(found[key])}\n}}' for key in ("models", "authors")]
    return f"{json.dumps(head).removesuffix('}')}, {', '.join(parts)}}}\n"


def _lines(rows: dict[str, Any]) -> str:
    return ",\n".join(f"{json.dumps(key)}: {json.dumps(row)}" for key, row in rows.items())


if __name__ == "__main__":
    PACKAGED.write_text(text())
