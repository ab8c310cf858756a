"""`fmjax doctor`: what there is to compute with, what would go wrong, and how each of it is mended."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from fmjax.console import console, show_page
from fmjax.errors import TroubleError, in_bytes, in_gib
from fmjax.programs.ailments import Finding, findings
from fmjax.programs.machine import Facts, Place, gathered

# the packages whose versions a report of a fault has to have
SHOWN = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "huggingface_hub")


def main(*, offline: bool = False, as_json: bool = False, own: Sequence[str] = ()) -> Facts:
    """Prints the facts and what is found, as a page or as JSON, and returns the facts. own: the variables that the
    command has set itself. Raises TroubleError where something is to be mended."""
    facts = dataclasses.replace(gathered(offline=offline), own=tuple(own))
    found = findings(facts)
    if as_json:
        sys.stdout.write(json.dumps(record(facts, found), indent=2) + "\n")
    else:
        show(facts, found)
    troubles = [finding for finding in found if finding.severity == "trouble"]
    if troubles:
        raise TroubleError(f"{len(troubles)} to mend; each has its fix behind it")
    return facts


def record(facts: Facts, found: list[Finding]) -> dict[str, Any]:
    """All of it, for machines."""
    return {
        "well": all(finding.severity == "note" for finding in found),
        "findings": [dataclasses.asdict(finding) for finding in found],
        "facts": dataclasses.asdict(facts),
    }


def show(facts: Facts, found: list[Finding]) -> None:
    """The facts as a page, and below it what is found, a line each."""
    show_page(f"fmjax {facts.fmjax}", rows(facts))
    console.print("")
    for finding in found:
        console.print(f"{finding.severity:<9}{finding.what}; fix: {finding.fix}")
    if all(finding.severity == "note" for finding in found):
        console.print("result   all is well")


def rows(facts: Facts) -> list[tuple[str, str]]:
    """The facts in words."""
    # the packages first, then where a run computes, then what it reads and writes; what is not there has no row
    there = {name: facts.packages[name] for name in SHOWN if facts.packages.get(name)}
    versions = ", ".join(
        f"{name} {version}" for name, version in {**there, **facts.plugins}.items()
    )
    told = {
        "python": f"{facts.python} on {facts.system}",
        "packages": versions,
        "extras": ", ".join(_extra(name, lacks) for name, lacks in facts.extras.items()),
        "devices": _devices(facts),
        "dtype": facts.devices.dtype and f"{facts.devices.dtype}, by --model.dtype auto",
        "attention": facts.devices.attention,
        "norms": facts.devices.norms,
        "activations": facts.devices.activations,
        "gpus": ", ".join(
            f"{gpu.name} ({in_gib(gpu.memory_bytes)}, driver {gpu.driver})" for gpu in facts.gpus
        ),
        "model cache": _place(facts.model_cache),
        "hub cache": _place(facts.hub_cache),
        "compiled": _place(facts.compile_cache),
        "hub": _hub(facts),
        "host": _host(facts),
        "variables": " ".join(_variable(name, facts) for name in facts.environment),
    }
    return [(name, text) for name, text in told.items() if text]


def _variable(name: str, facts: Facts) -> str:
    # what the user has not said is not looked for in a shell's files
    whose = " (by fmjax)" if name in facts.own else ""
    return f"{name}={facts.environment[name]}{whose}"


def _extra(name: str, lacks: tuple[str, ...]) -> str:
    if not lacks:
        return f"{name} here"
    return f"{name} not here (pip install 'fmjax[{name}]')"


def _devices(facts: Facts) -> str:
    devices = facts.devices
    if devices.error:
        return "none"
    # eight cards of a kind in a word
    kinds = ", ".join(f"{count} x {kind}" for kind, count in Counter(devices.kinds).items())
    memory = f", {in_gib(devices.memory_bytes)} for a run" if devices.memory_bytes else ""
    return f"{devices.platform}: {kinds}{memory}"


def _place(place: Place | None) -> str:
    if place is None:
        return "nowhere"
    if place.wrong:
        return place.path
    used = f"{in_bytes(place.used_bytes)} kept, " if place.used_bytes else ""
    return f"{place.path}, {used}{in_bytes(place.free_bytes)} free"


def _hub(facts: Facts) -> str:
    if facts.offline:
        return f"not asked ({facts.offline})"
    return f"{facts.hub} {'not reached' if facts.hub_wrong else 'reached'}"


def _host(facts: Facts) -> str:
    parts = [f"{facts.cores} cores", f"{in_gib(facts.memory_bytes)} of memory"]
    if facts.open_files is not None:
        parts.append(f"{facts.open_files:,} open files")
    if facts.shared_memory_bytes is not None:
        parts.append(f"{in_bytes(facts.shared_memory_bytes)} of shared memory free")
    return ", ".join(parts)
