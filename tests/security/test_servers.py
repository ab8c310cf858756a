"""Whatever a server answers: the right file or one sentence, at once, and nothing outside the cache folders."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.hub_servers import HUB
from tests.security.servers import CONTENT, PLAIN, Case, answers
from tests.support.misbehaving_server import Reply, serving

ROOT = Path(__file__).parents[2]
CASES = {f"url-{name}": case for name, case in PLAIN.items()} | {
    f"hub-{name}": case for name, case in HUB.items()
}
CONTROLS = {
    "control-url": Case(answers(Reply())),
    "control-hub": HUB["right-under-gits-name"],
    "control-refused": Case(answers(Reply(404)), "answered 404"),
}
MAX_SECONDS = 1.0  # of processor time
MAX_WALL_SECONDS = 6.0  # a slow host is given up after two and a half on an idle machine
MAX_MEGABYTES = 100
MAX_BYTES = 1 << 20  # of parts that stay, to go on from


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict[str, dict]:
    """What one process reports of all servers."""
    folder = tmp_path_factory.mktemp("servers")
    (folder / "inside").mkdir()
    environment = {
        **os.environ,
        "HF_HOME": str(folder / "inside/hf"),
        "PYTHONPATH": str(ROOT),
        "FMJAX_TIMEOUT_S": "1",
    }
    for name in (
        "HF_HUB_OFFLINE",
        "FMJAX_OFFLINE",
        "FMJAX_MIRROR",
        "HF_TOKEN",
        "HF_HUB_CACHE",
        "http_proxy",
        "HTTP_PROXY",
    ):
        environment.pop(name, None)
    with serving() as server:
        jobs = {key: _job(key, case, server, folder) for key, case in (CONTROLS | CASES).items()}
        (folder / "jobs.json").write_text(json.dumps(jobs))
        command = [
            sys.executable,
            "-W",
            "error",
            "-m",
            "tests.security.server_worker",
            "jobs.json",
            "report.json",
        ]
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment | {"HF_ENDPOINT": server.base},
            capture_output=True,
            timeout=200,
        )
        heads = [seen.path for seen in server.seen if seen.method == "HEAD"]
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    rows = json.loads((folder / "report.json").read_text())
    for key, row in rows.items():
        row["left"] = sorted(
            str(p) for p in _places(key, folder) if p.is_file() and p.suffix != ".lock"
        )
        row["heads"] = sum(f"/x/{key}/" in path for path in heads)
    rows["outside"] = sorted(p.name for p in folder.iterdir())
    return rows


def _job(key: str, case: Case, server, folder: Path) -> dict:
    is_hub = key.startswith("hub") or key == "control-hub"
    place = f"x/{key}" if is_hub else f"/{key}/{case.name}"
    case.setup(server, place)
    location = place if is_hub else server.base + place
    source = {
        "kind": "hf" if is_hub else "url",
        "location": location,
        "filename": case.name,
        "dialect": "timm",
    }
    return {
        "source": source | case.source,
        "environment": {"FMJAX_CACHE": str(folder / "inside" / key)},
        "resume": case.resume,
    }


def _places(key: str, folder: Path) -> list[Path]:
    roots = (folder / "inside" / key, folder / "inside/hf/hub" / f"models--x--{key}")
    return [path for root in roots for path in root.rglob("*")]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.expected])
def test_a_hostile_answer_is_refused_in_one_sentence_and_leaves_nothing(report, name):
    row, case = report[name], CASES[name]
    assert row["kind"] == "CheckpointError", row
    first, reason = row["error"].split("\n")
    assert first.startswith("ViT-B-16.test could not be fetched: pass the file as checkpoint=")
    assert re.search(case.expected, reason), reason
    assert reason.isprintable()
    assert reason.isascii()
    assert len(reason) < 500
    parts = [path for path in row["left"] if path.endswith((".part", ".part.json"))]
    assert row["left"] == parts
    assert bool(parts) == case.keeps


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.expected])
def test_a_lie_that_can_be_seen_through_gives_the_right_file(report, name):
    assert report[name]["error"] == ""
    assert report[name]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert not [path for path in report[name]["left"] if ".part" in path]


@pytest.mark.parametrize("name", [*CASES, *CONTROLS])
def test_a_server_moves_nothing_outside_the_cache_and_costs_little(report, name):
    row = report[name]
    assert row["events"] == []
    assert row["seconds"] < MAX_SECONDS
    assert row["wall"] < MAX_WALL_SECONDS
    assert row["megabytes"] < MAX_MEGABYTES
    assert sum(Path(path).stat().st_size for path in row["left"]) < MAX_BYTES


def test_the_hub_is_asked_for_the_facts_of_a_file_once(report):
    assert {
        name: report[name]["heads"]
        for name in ("hub-second-head-leads-out", "hub-size-is-negative")
    } == {
        "hub-second-head-leads-out": 1,
        "hub-size-is-negative": 1,
    }


def test_the_corpus_is_large_and_nothing_was_written_beside_the_caches(report):
    assert len(CASES) >= 60
    assert report["outside"] == ["inside", "jobs.json", "report.json"]
    assert report["control-url"]["error"] == report["control-hub"]["error"] == ""
