"""Files of Hugging Face repositories: a loopback server speaks the hub's protocol, the client is the real one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fmjax.errors import CheckpointError
from fmjax.names import get_weights, list_models
from fmjax.specs import Source
from fmjax.store import huggingface
from tests.support.misbehaving_server import Reply, closed_port, serving

ROOT = Path(__file__).parents[2]
REPO, FILE = "org/vit", "model.safetensors"
NUMBERS = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(8000))
CONTENT = save({"w": np.frombuffer(NUMBERS, np.uint8)})
OTHER = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])  # one bit
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FIRST, SECOND = "a" * 40, "b" * 40
RESOLVED = f"/{REPO}/resolve/{FIRST}/{FILE}"


@pytest.fixture
def server():
    with serving() as running:
        running.publish(REPO, FIRST, FILE, CONTENT)
        yield running


@pytest.fixture
def hub(server, tmp_path):
    """Asks for files in a process of its own, whose hub is the server; `hub.cache` is the client's folder."""
    return Hub(server.base, tmp_path / "hf")


class Hub:
    def __init__(self, endpoint: str, home: Path) -> None:
        self.cache = home / "hub"
        dropped = {"HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE"}
        self.environment = {key: value for key, value in os.environ.items() if key not in dropped}
        self.environment |= {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def start(
        self, repo: str = REPO, file: str = FILE, revision: str | None = None, **options
    ) -> subprocess.Popen:
        source = {
            "kind": "hf",
            "location": repo,
            "filename": file,
            "dialect": "timm",
            "revision": revision,
        }
        asked = json.dumps({"sources": [source, *options.pop("more", [])], **options})
        command = [sys.executable, "-m", "tests.support.locate", asked]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=ROOT, env=self.environment, **pipes)

    def ask(self, **options) -> dict:
        """What came back: path, sha256 and revision, or the error."""
        process = self.start(**options)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        return json.loads(out) | {"stderr": err}

    def blobs(self) -> list[Path]:
        """What is in the cache under the name of a whole file; older clients also keep a part, to go on from."""
        kept = [p for p in self.cache.rglob("*") if p.is_file() and p.suffix != ".incomplete"]
        return [p for p in kept if p.parent.name == "blobs" or p.name == FILE]


def test_main_is_resolved_once_and_its_commit_asked_for_ever_after(server, hub):
    first = hub.ask()
    assert Path(first["path"]).read_bytes() == CONTENT
    assert (first["revision"], first["sha256"]) == (FIRST, SHA256)
    assert "CC-BY-NC-4.0 (non-commercial) - https://huggingface.co/org/vit" in first["stderr"]
    server.publish(REPO, SECOND, FILE, OTHER)
    asked = len(server.seen)
    assert hub.ask()["path"] == first["path"]
    assert len(server.seen) == asked
    for path in hub.blobs():
        path.unlink()
    again = hub.ask()
    assert (again["revision"], again["sha256"]) == (FIRST, SHA256)
    assert all(f"/resolve/{FIRST}/" in s.path for s in server.seen[asked:])
    new = hub.ask(accept_new=True)
    assert (new["revision"], new["sha256"]) == (SECOND, hashlib.sha256(OTHER).hexdigest())
    assert hub.ask(offline=True)["revision"] == SECOND


def test_a_pinned_revision_is_the_one_that_is_fetched(server, hub):
    server.publish(REPO, SECOND, FILE, OTHER)
    assert hub.ask(revision=FIRST)["sha256"] == SHA256
    assert not any("/resolve/main/" in s.path for s in server.seen)
    assert hub.ask()["revision"] == SECOND


def test_a_recorded_commit_that_is_gone_says_how_to_take_the_present_one(server, hub):
    hub.ask()
    for path in hub.blobs():
        path.unlink()
    del server.files[RESOLVED]
    server.publish(REPO, SECOND, FILE, OTHER)
    text = hub.ask()["error"]
    assert f"{REPO} has no revision {FIRST} any more" in text
    assert "`fmjax download ViT-B-16.test --accept-new`" in text


def test_a_dropped_connection_is_taken_up_again(server, hub):
    server.replies[RESOLVED] = [Reply(cut=65536)]
    found = hub.ask()
    assert found["sha256"] == SHA256
    assert len(server.gets()) == 2


def test_a_corrupt_file_is_fetched_once_more(server, hub):
    server.replies[RESOLVED] = [Reply(body=OTHER)]
    assert hub.ask()["sha256"] == SHA256
    assert len(server.gets()) == 2


def test_a_file_that_stays_corrupt_or_short_leaves_nothing(server, hub):
    server.always[RESOLVED] = Reply(body=OTHER)
    text = hub.ask()["error"]
    assert f"is not the {SHA256} that the hub names" in text
    assert len(server.gets()) == 2
    assert hub.blobs() == []
    server.always[RESOLVED] = Reply(body=CONTENT[:-9])
    assert f"sends {len(CONTENT) - 9:,} bytes for" in hub.ask()["error"]
    assert hub.blobs() == []


def test_a_tampered_cache_is_fetched_again(server, hub):
    path = Path(hub.ask()["path"])
    path.resolve().write_bytes(OTHER)
    assert "recorded on" in (text := hub.ask(offline=True)["error"]) or "the hub names" in text
    assert path.exists()
    found = hub.ask()
    assert Path(found["path"]).read_bytes() == CONTENT
    assert "it was deleted, to be fetched again" in found["stderr"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "GatedRepo",
            "org/vit is gated: accept its licence at https://huggingface.co/org/vit, then run `hf auth login` or set "
            "HF_TOKEN",
        ),
        ("RepoNotFound", "has no repository org/vit for you"),
        ("EntryNotFound", "org/vit has no file model.safetensors at revision main"),
    ],
)
def test_refusals_name_the_repository_and_the_way_out(server, hub, code, words):
    server.gone[REPO] = code
    found = hub.ask()
    assert words in found["error"]
    assert found["error"].count("\n") == 1
    assert found["seconds"] < 10


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_asked_again(server, hub, status):
    server.always[f"/{REPO}/resolve/main/{FILE}"] = Reply(status)
    found = hub.ask()
    assert f"answered {status}" in found["error"]
    assert "6 times" in found["error"]
    assert found["seconds"] < 10


def test_offline_fails_within_a_second(server, hub):
    found = hub.ask(offline=True)
    assert "run `fmjax download ViT-B-16.test`" in found["error"]
    assert found["seconds"] < 1
    hub.environment["HF_HUB_OFFLINE"] = "1"
    assert "nothing is fetched offline" in hub.ask()["error"]
    assert server.seen == []


def test_an_unreachable_hub_is_named_within_ten_seconds_and_the_next_source_is_taken(server, hub):
    hub.environment["HF_ENDPOINT"] = f"http://127.0.0.1:{closed_port()}"
    found = hub.ask()
    assert "127.0.0.1:" in found["error"]
    assert "cannot be reached" in found["error"]
    assert "HF_ENDPOINT" in found["error"]
    assert found["seconds"] < 10
    server.files["/vit.pt"] = CONTENT
    second = {
        "kind": "url",
        "location": f"{server.base}/vit.pt",
        "filename": "vit.pt",
        "dialect": "timm",
    }
    assert hub.ask(more=[second])["sha256"] == SHA256


def test_what_another_program_cached_is_taken_where_the_hub_cannot_be_reached(
    server, hub, own_cache
):
    hub.ask()
    (own_cache / "weights.lock.json").unlink()
    (hub.cache / "models--org--vit/refs").mkdir(exist_ok=True)
    (hub.cache / "models--org--vit/refs/main").write_text(FIRST)
    hub.environment["HF_ENDPOINT"] = f"http://127.0.0.1:{closed_port()}"
    found = hub.ask()
    assert found["revision"] == FIRST
    assert "cannot be reached" in found["stderr"]


def test_two_processes_fetch_once(server, hub):
    server.always[RESOLVED] = Reply(wait_s=0.3)
    running = [hub.start() for _ in range(2)]
    done = [process.communicate(timeout=60) for process in running]
    assert [json.loads(out)["sha256"] for out, _ in done] == [SHA256] * 2
    assert len(server.gets()) == 1


def test_the_file_lies_where_the_client_and_other_programs_look_for_it(server, hub):
    from huggingface_hub import scan_cache_dir

    path = Path(hub.ask()["path"])
    assert path == hub.cache / f"models--org--vit/snapshots/{FIRST}/{FILE}"
    assert os.readlink(path) == f"../../blobs/{SHA256}"
    scanned = scan_cache_dir(hub.cache)
    assert scanned.warnings == []
    assert [(repo.repo_id, repo.size_on_disk) for repo in scanned.repos] == [(REPO, len(CONTENT))]


def test_a_token_is_sent_to_the_hub_and_not_to_where_it_redirects(server, hub):
    hub.environment |= {"HF_TOKEN": "hf_secret"}
    with serving() as other:
        other.files["/blob"] = CONTENT
        server.always[RESOLVED] = Reply(302, {"Location": other.base + "/blob"})
        assert hub.ask()["sha256"] == SHA256
        assert [seen.headers.get("Authorization") for seen in other.seen] == [None]
    asked = [seen.headers for seen in server.gets()]
    assert [headers.get("Authorization") for headers in asked] == ["Bearer hf_secret"]


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("file:///srv/hub", "HF_ENDPOINT 'file:///srv/hub"),
        ("mirror.example", "HF_ENDPOINT 'mirror.example"),
        ("http://me:secret@127.0.0.1:1", "127.0.0.1:1 cannot be reached"),
    ],
)
def test_an_endpoint_that_cannot_be_asked_is_named_without_its_password(
    server, hub, endpoint, words
):
    hub.environment["HF_ENDPOINT"] = endpoint
    found = hub.ask()
    assert words in found["error"]
    assert "secret" not in found["error"] + found["stderr"]


@pytest.mark.parametrize(
    "file",
    [
        "../x.bin",
        "a/../../x.bin",
        "/etc/x.bin",
        "a//x.bin",
        "..\\x.bin",
        "C:x.bin",
        "x\0.bin",
        "x\x1b.bin",
        "",
    ],
)
def test_a_file_that_is_no_path_inside_its_repository_is_not_asked_for(file):
    with pytest.raises(CheckpointError, match="is no file of a repository: it is a path inside it"):
        huggingface.cached(Source("hf", REPO, file, "timm"), None)


@pytest.mark.parametrize(
    "repo", ["../../x", "a/b/c", "a/..", "/a", "a/", "a--b/c", "a b/c", "https://h/a", "a/b\n", ""]
)
def test_what_is_no_repository_is_not_asked_for(repo):
    with pytest.raises(CheckpointError, match="is no repository of the hub: it is OWNER/NAME"):
        huggingface.cached(Source("hf", repo, FILE, "timm"), None)


@pytest.mark.parametrize("revision", ["main", "../..", "a" * 39, "A" * 40, "a" * 40 + "\n"])
def test_what_is_no_commit_is_not_asked_for(revision):
    with pytest.raises(
        CheckpointError, match="is no commit of the hub: it has 40 hexadecimal digits"
    ):
        huggingface.cached(Source("hf", REPO, FILE, "timm"), revision)


def test_every_row_of_the_zoo_names_a_repository_and_a_file():
    rows = [get_weights(name) for name in list_models(pretrained=True)]
    sources = [source for row in rows for source in row.sources if source.kind == "hf"]
    assert len(sources) > 250
    for source in sources:
        huggingface._check(source, source.revision)
