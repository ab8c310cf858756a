"""`fmjax download`: published weights -> checked files in the cache, for use without a network."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fmjax.console import console
from fmjax.errors import CheckpointError, UsageError, nearest, safe
from fmjax.names import get_weights, list_models
from fmjax.specs import Source, Weights
from fmjax.store import addresses, locate


def main(
    names: Sequence[str],
    *,
    dry_run: bool = False,
    source: str = "",
    dialect: str = "",
    accept_new: bool = False,
    offline: bool = False,
    as_json: bool = False,
) -> None:
    """Prints path, size, sha256, licence and revision of every file, hashed anew; with dry_run what would be fetched.
    as_json: as one list of records, at the end.

    Raises UsageError for names, CheckpointError after the last one where some could not be had.
    """
    chosen = [narrowed(weights, source, dialect) for weights in matching(names)]
    # one that cannot be had does not keep the others from being fetched
    failed, records = [], []
    for weights in chosen:
        try:
            found = (
                planned(weights)
                if dry_run
                else had(weights, offline=offline, accept_new=accept_new)
            )
        except CheckpointError as error:
            if len(chosen) == 1:
                raise
            sys.stderr.write(safe(f"{error}\n"))
            failed.append(weights.name)
            continue
        records.append(found)
        # a file of gigabytes takes a while: each is told when it is here
        if not as_json:
            console.print(_line(found) if dry_run else _facts(found))
    if as_json:
        sys.stdout.write(json.dumps(records, indent=2) + "\n")
    if failed:
        raise CheckpointError(
            f"{len(failed)} of {len(chosen)} weights could not be had: {', '.join(failed)}"
        )


def matching(names: Sequence[str]) -> list[Weights]:
    """The published weights behind names, aliases and shell-style patterns, each once."""
    found: dict[str, Weights] = {}
    for name in names:
        # a pattern may match nothing; a name that nobody knows is answered with the nearest where it is looked up
        is_pattern = any(letter in name for letter in "*?[")
        rows = [get_weights(n) for n in list_models(name, pretrained=True)] if is_pattern else []
        if is_pattern and not rows:
            known = list_models(pretrained=True)
            raise UsageError(
                f"no published weights match {name!r}{nearest(name.strip('*'), known)}"
            )
        found |= {row.name: row for row in rows or [get_weights(name)]}
    if not found:
        raise UsageError(
            "fmjax download needs a name or a pattern; for example: fmjax download ViT-B-16.openai"
        )
    return list(found.values())


def narrowed(weights: Weights, kind: str, dialect: str) -> Weights:
    """The weights with the sources of one kind and dialect only ("": any). Raises UsageError where none is left."""
    # the flags choose among the sources of a row; they name no others
    kept = tuple(s for s in weights.sources if kind in ("", s.kind) and dialect in ("", s.dialect))
    if not kept:
        has = ", ".join(f"{s.kind} {s.dialect}" for s in weights.sources)
        wanted = " ".join(word for word in (kind, dialect) if word)
        raise UsageError(
            f"{weights.name} has no source {wanted}; it has {has}: change --source or --dialect"
        )
    return replace(weights, sources=kept)


def planned(weights: Weights) -> dict[str, Any]:
    """What would be fetched: asks nobody, as whether a source can be reached is found out by fetching."""
    sources = locate.in_order(weights)
    here = next(((s, copy) for s in sources if (copy := locate.cached(s))), None)
    source = here[0] if here else sources[0]
    return {
        "name": weights.name,
        "here": str(here[1].path) if here else None,
        "licence": weights.licence,
        "filename": source.filename,
        **_source(source),
    }


def _line(plan: dict[str, Any]) -> str:
    if plan["here"]:
        return f"{plan['name']:<44}here: {plan['here']}"
    where = f"{plan['kind']} {plan['location']} {plan['filename']}"
    return f"{plan['name']:<44}{where} ({plan['dialect']}), {plan['licence']}"


def had(weights: Weights, *, offline: bool, accept_new: bool) -> dict[str, Any]:
    """What is here now: all that a paper or a licence file has to say of the weights that were used."""
    found = locate.obtain(weights, offline=offline, accept_new=accept_new, anew=True)
    return {
        "name": weights.name,
        "path": str(found.path),
        "size": found.size,
        "sha256": found.sha256,
        "licence": weights.licence,
        "revision": found.revision,
        **_source(found.source),
    }


def _source(source: Source) -> dict[str, str]:
    location = addresses.shown(source.location)
    return {"kind": source.kind, "location": location, "dialect": source.dialect}


def _facts(found: dict[str, Any]) -> str:
    rows = {
        "path": found["path"],
        "size": f"{found['size']:,} bytes",
        "sha256": found["sha256"],
        "licence": found["licence"],
        "source": f"{found['kind']} {found['location']} ({found['dialect']})",
        "revision": found["revision"] or "-",
    }
    return "\n".join([found["name"], *(f"  {name:<10}{value}" for name, value in rows.items())])
