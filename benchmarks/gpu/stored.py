"""What calls to devices have stored, and how their rows are called on pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "gpu"
PREDICTED = ROOT / "benchmarks" / "results" / "compiled.json"

Row = dict[str, Any]
Call = dict[str, Any]
TITLES = {"train": "training", "forward": "forward"}
MODES = {
    "no": "eager",
    "default": "torch.compile",
    "max-autotune-no-cudagraphs": "max-autotune",
    "step": "torch.compile of the whole step",
}


def calls() -> list[Call]:
    """What each call to a device found, the newest last."""
    return [json.loads(file.read_text()) | {"file": file.name} for file in files()]


def files() -> list[Path]:
    """Those of the calls, by their dates, with which their names begin."""
    return sorted(RESULTS.glob("*.json"))


def at(call: Call) -> str:
    """Its date, in UTC."""
    return call["date"][:16].replace("T", " ")


def described(call: Call) -> str:
    """What was measured on what, by which versions."""
    device, versions = call["device"], call["versions"]
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return (
        f"commit {call['commit']}, Python {call['python']}, driver {device['driver_version']}, "
        f"{device['power.limit']} at most (`benchmarks/results/gpu/{call['file']}`); {told}."
    )


def predictions() -> dict[str, float]:
    """Row -> milliseconds, of what was compiled without a device."""
    if not PREDICTED.exists():
        return {}
    return {row["row"]: row["predicted_ms"] for row in json.loads(PREDICTED.read_text())["rows"]}


def named(row: Row) -> str:
    """Who computed, and how."""
    options = dict(row["options"])
    mode = options.pop("compile", "")
    options.pop("library", "")
    told = [f"{name} {value}" for name, value in options.items()]
    return ", ".join([who(row), *filter(None, (MODES.get(mode, mode),)), *told]).replace(
        " True", ""
    )


def who(row: Row) -> str:
    """The library that computed."""
    return "fmjax" if row["side"] == "ours" else f"{library(row)} in torch"


def library(row: Row) -> str:
    """Whose network torch computed."""
    return row["options"].get("library", "timm")


def said(row: Row, name: str, form: str) -> str:
    """A figure; nothing where there is none."""
    return f"{row[name]:{form}}" if name in row else ""


def memory(row: Row) -> str:
    """GiB: as planned by the compiler, or torch's peak."""
    return said(row, "planned_gib", ".1f") or said(row, "peak_gib", ".1f")


def compiling(row: Row) -> str:
    """Seconds of it, or of a first step that compiles."""
    return said(row, "compiling_s", ".1f") or said(row, "first_step_s", ".1f")
