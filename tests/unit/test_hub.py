"""Files of plain addresses: the right bytes or one sentence, whatever the server does."""

from __future__ import annotations

import email.utils
import errno
import hashlib
import json
import shutil
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from fmjax.specs import Source
from fmjax.store import http, huggingface, locate, network, part, record
from tests.support.locate import weights
from tests.support.misbehaving_server import Reply, closed_port, serving
from tests.support.plain_host import CONTENT, OTHER, PATH, SHA256, files, refused, url

ROOT = Path(__file__).parents[2]
CHUNK = http.CHUNK
pytestmark = pytest.mark.usefixtures("online")


def test_a_file_is_fetched_once_checked_and_recorded(server, own_cache):
    row = weights(url(server))
    path, source = locate.locate(row)
    assert path.read_bytes() == CONTENT
    assert source == row.sources[0]
    assert locate.locate(row, offline=True) == locate.locate(row) == (path, source)
    assert len(server.gets()) == 1
    kept = json.loads((own_cache / record.NAME).read_text())["files"][server.base + PATH]
    assert (kept["sha256"], kept["size"]) == (SHA256, len(CONTENT))
    assert len(files(own_cache)) == 1


def test_the_licence_is_shown_once_per_weights_and_machine(server, capsys):
    row = weights(url(server), Source("hf", "org/repo", "pytorch_model.bin", "timm"))
    locate.locate(row)
    said = "ViT-B-16.test: CC-BY-NC-4.0 (non-commercial) - https://huggingface.co/org/repo\n"
    assert capsys.readouterr().err == said
    locate.locate(row)
    assert capsys.readouterr().err == ""
    locate.locate(weights(url(server), name="ViT-B-32.other", licence="MIT"))
    assert capsys.readouterr().err == f"ViT-B-32.other: MIT - {server.base}{PATH}\n"


def test_a_broken_connection_is_resumed(server):
    server.replies[PATH] = [Reply(cut=CHUNK), Reply(cut=2 * CHUNK)]
    assert locate.locate(weights(url(server, sha256=SHA256)))[0].read_bytes() == CONTENT
    first, second, third = server.gets()
    assert "Range" not in first.headers
    assert second.headers["Range"] == "bytes=65536-"
    assert second.headers["If-Range"].strip('"') == SHA256[:16]
    assert third.headers["Range"] == "bytes=196608-"


def test_a_part_is_resumed_by_the_next_call(server, own_cache):
    server.replies[PATH] = [Reply(cut=CHUNK), *[Reply(503)] * 6]
    assert "answered 503" in refused(url(server))
    assert locate.locate(weights(url(server)))[0].read_bytes() == CONTENT
    assert server.gets()[-1].headers["Range"] == "bytes=65536-"
    assert len(files(own_cache)) == 1


def test_a_host_that_drips_is_given_up_and_its_part_gone_on_from(server, own_cache, monkeypatch):
    monkeypatch.setattr(http, "PROGRESS", 0.5)
    monkeypatch.setenv("FMJAX_TIMEOUT_S", "1")
    head = f'HTTP/1.1 200 OK\r\nContent-Length: {len(CONTENT)}\r\nETag: "{SHA256[:16]}"\r\n\r\n'.encode()

    def drip():
        yield head + CONTENT[:100]
        for byte in CONTENT[100:120]:
            time.sleep(0.1)
            yield bytes([byte])

    server.replies[PATH] = [Reply(raw=drip)]
    assert "sent less than 65,536 bytes in" in refused(url(server))
    kept = next((own_cache / "files").rglob("*.part")).stat().st_size
    assert 100 < kept < 120
    assert locate.locate(weights(url(server)))[0].read_bytes() == CONTENT
    assert server.gets()[-1].headers["Range"] == f"bytes={kept}-"


def test_a_part_of_changed_content_or_of_a_server_without_ranges_starts_over(server):
    server.replies[PATH] = [Reply(cut=CHUNK), Reply(ranges=False)]
    assert locate.locate(weights(url(server)))[0].read_bytes() == CONTENT
    server.files["/b.pt"] = OTHER
    server.replies["/b.pt"] = [Reply(body=CONTENT, cut=CHUNK)]
    assert locate.locate(weights(url(server, "/b.pt")))[0].read_bytes() == OTHER


@pytest.mark.parametrize("status", [206, 416])
def test_an_answer_that_does_not_continue_the_part_starts_over(server, status):
    wrong = Reply(status, {"Content-Range": "bytes 7-9/10", "Content-Length": "7"})
    server.replies[PATH] = [Reply(cut=CHUNK), wrong]
    assert locate.locate(weights(url(server)))[0].read_bytes() == CONTENT
    assert "Range" not in server.gets()[-1].headers


def test_a_file_that_stays_short_is_refused(server, own_cache):
    server.always[PATH] = Reply(cut=0)
    assert (
        f"the connection to 127.0.0.1 broke after 0 of {len(CONTENT):,} bytes, 6 times"
        in refused(url(server))
    )
    server.always[PATH] = Reply(body=b"")
    assert "ended the file after 0 of 0 bytes" in refused(url(server))
    assert not [name for name in files(own_cache) if name.endswith(".pt")]


def test_a_corrupt_file_is_deleted_and_fetched_once_more(server):
    server.replies[PATH] = [Reply(body=OTHER)]
    assert locate.locate(weights(url(server, sha256=SHA256)))[0].read_bytes() == CONTENT
    assert len(server.gets()) == 2


def test_a_file_that_stays_corrupt_is_refused_and_nothing_is_left(server, own_cache):
    server.files[PATH] = OTHER
    text = refused(url(server, sha256=SHA256))
    assert f"is not the published {SHA256}" in text
    assert "fetched twice" in text
    assert len(server.gets()) == 2
    assert files(own_cache) == []
    assert record.get("files", server.base + PATH) is None


def test_a_tampered_cache_is_detected(server, capsys):
    row = weights(url(server))
    path = locate.locate(row)[0]
    path.write_bytes(OTHER)
    text = refused(*row.sources, offline=True)
    assert f"is not the {SHA256} recorded on" in text
    assert path.exists()
    assert locate.locate(row)[0].read_bytes() == CONTENT
    assert "it was deleted, to be fetched again" in capsys.readouterr().err
    assert len(server.gets()) == 2


def test_content_that_changed_upstream_is_refused_until_it_is_accepted(server, own_cache):
    row = weights(url(server))
    locate.locate(row)[0].unlink()
    server.files[PATH] = OTHER
    text = refused(*row.sources)
    assert "has changed" in text
    assert "`fmjax download ViT-B-16.test --accept-new`" in text
    assert files(own_cache) == []
    found = locate.obtain(row, accept_new=True)
    assert found.sha256 == hashlib.sha256(OTHER).hexdigest()
    assert locate.obtain(row, offline=True) == found


def test_a_sha256_in_the_address_or_the_first_digits_in_the_name_are_checked(server, own_cache):
    good = (f"/clip/models/{SHA256}/ViT.pt", f"/release/vit-{SHA256[:8]}.pth")
    bad = (f"/clip/models/{'0' * 64}/ViT.pt", "/release/vit-00000000.pt")
    for path in (*good, *bad):
        server.files[path] = CONTENT
    assert [
        locate.locate(weights(url(server, path)))[0].read_bytes() == CONTENT for path in good
    ] == [True, True]
    assert f"is not the published {'0' * 64}" in refused(url(server, bad[0]))
    text = refused(url(server, bad[1]))
    assert "does not begin with the 00000000 of its name" in text
    assert "--accept-new" not in text


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "answered 401 (not logged in)"),
        (403, "answered 403 (forbidden)"),
        (404, "answered 404 (not there)"),
        (410, "answered 410 (removed)"),
        (418, "answered 418"),
    ],
)
def test_a_refusal_names_the_status_the_address_and_the_way_out(server, status, words):
    server.always[PATH] = Reply(status)
    text = refused(url(server))
    assert words in text
    assert server.base + PATH in text
    assert text.startswith(
        'ViT-B-16.test could not be fetched: pass the file as checkpoint="/path/to/vit.pt" (--checkpoint)'
    )
    assert len(server.gets()) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server, status):
    server.replies[PATH] = [Reply(status), Reply(status)]
    assert locate.locate(weights(url(server)))[0].read_bytes() == CONTENT
    server.always["/b.pt"] = Reply(status)
    assert f"answered {status}" in (text := refused(url(server, "/b.pt")))
    assert "6 times: run the same command again later" in text


def test_retry_after_is_honoured_up_to_a_bound(server):
    server.replies[PATH] = [Reply(429, {"Retry-After": "1"})]
    start = time.monotonic()
    locate.locate(weights(url(server)))
    assert 1.0 <= time.monotonic() - start < 5
    server.replies["/b.pt"] = [Reply(429, {"Retry-After": "3600"})]
    assert "(too many requests)" in (text := refused(url(server, "/b.pt")))
    assert "asks to wait 3600 s" in text
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 25 < (network.retry_after({"Retry-After": date}) or 0) <= 31
    assert network.retry_after({"Retry-After": "soon"}) is None


def test_redirects_are_followed_and_circles_are_not(server):
    server.always["/old.pt"] = Reply(302, {"Location": PATH})
    server.always["/a.pt"] = Reply(302, {"Location": "/a.pt"})
    assert locate.locate(weights(url(server, "/old.pt")))[0].read_bytes() == CONTENT
    assert "is redirected in a circle" in refused(url(server, "/a.pt"))


def test_a_login_page_is_not_a_file(server, own_cache):
    server.always[PATH] = Reply(headers={"Content-Type": "text/html"}, body=b"<html>log in</html>")
    assert "answered with a web page, not a file" in refused(url(server))
    assert files(own_cache) == []


def test_metas_gated_addresses_say_where_to_ask(server):
    server.always["/dinov3/vit.pth"] = Reply(403)
    assert "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/" in refused(
        url(server, "/dinov3/vit.pth")
    )


@pytest.mark.parametrize("name", ["", *locate.OFFLINE])
def test_offline_fails_within_a_second_with_the_command_to_fetch(server, monkeypatch, name):
    if name:
        monkeypatch.setenv(name, "1")
    start = time.monotonic()
    text = refused(url(server), offline=not name)
    assert time.monotonic() - start < 1
    assert "run `fmjax download ViT-B-16.test`" in text
    assert "nothing is fetched offline (--offline, FMJAX_OFFLINE=1, HF_HUB_OFFLINE=1)" in text
    assert server.seen == []


def test_an_unreachable_host_is_named_within_ten_seconds_and_asked_once():
    port = closed_port()
    sources = [
        Source("url", f"http://127.0.0.1:{port}/{i}.pt", f"{i}.pt", "timm") for i in range(3)
    ]
    start = time.monotonic()
    text = refused(*sources)
    assert time.monotonic() - start < 10
    assert f"127.0.0.1:{port} cannot be reached" in text
    assert "HTTPS_PROXY" in text
    assert text.count("\n") == 1
    assert "its name is not known" in refused(
        Source("url", "http://no-such-host.invalid/x.pt", "x.pt", "timm")
    )


def test_a_host_that_takes_no_connection_or_gives_no_answer_is_given_up(server, monkeypatch):
    monkeypatch.setenv("FMJAX_TIMEOUT_S", "0.5")
    start = time.monotonic()
    with monkeypatch.context() as patched:
        patched.setattr(network, "_knock", lambda *_: time.sleep(2))
        assert "no connection within 0.2 s" in refused(url(server))
    server.replies[PATH] = [Reply(wait_s=1.0)]
    assert "did not answer (ReadTimeout)" in refused(url(server))
    assert time.monotonic() - start < 3
    monkeypatch.setenv("FMJAX_TIMEOUT_S", "soon")
    assert "FMJAX_TIMEOUT_S='soon' is not a number" in refused(url(server))


def test_the_next_source_is_tried_and_all_reasons_are_listed(server, capsys):
    server.files["/second.pt"] = CONTENT
    gone, second = url(server, "/gone.pt"), url(server, "/second.pt")
    assert locate.locate(weights(gone, second))[1] == second
    assert "answered 404" in capsys.readouterr().err
    text = refused(gone, url(server, "/also.pt"))
    assert (
        f"\n  127.0.0.1 answered 404 (not there) for {gone.location}\n  127.0.0.1 answered 404"
        in text
    )


def test_a_file_that_is_here_is_preferred_to_a_fetch(server):
    second = url(server, "/second.pt")
    server.files["/second.pt"] = CONTENT
    locate.locate(weights(second))
    assert locate.locate(weights(url(server), second))[1] == second
    assert len(server.gets()) == 1


def test_a_mirror_and_a_proxy_take_the_place_of_the_host(server, monkeypatch, own_cache):
    source = Source("url", "https://weights.invalid/models/vit.pt?a=b", "vit.pt", "open_clip")
    server.files["/base/models/vit.pt?a=b"] = CONTENT
    monkeypatch.setenv("FMJAX_MIRROR", server.base + "/base/")
    path = locate.locate(weights(source))[0]
    assert path.read_bytes() == CONTENT
    assert path == own_cache / "files/weights.invalid/models/vit.pt"
    monkeypatch.setenv("FMJAX_MIRROR", "mirror")
    assert "FMJAX_MIRROR 'mirror' cannot be asked: only http:// and https:// can" in refused(
        url(server)
    )
    monkeypatch.delenv("FMJAX_MIRROR")
    monkeypatch.setenv("http_proxy", server.base)
    assert (
        locate.locate(weights(Source("url", f"http://host.invalid{PATH}", "vit.pt", "timm")))[
            0
        ].read_bytes()
        == CONTENT
    )
    assert server.seen[-1].path == f"http://host.invalid{PATH}"
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    assert "the proxy 127.0.0.1:" in refused(
        Source("url", "http://host.invalid/x.pt", "x.pt", "timm")
    )


def test_a_full_disk_is_said_with_the_figures_and_nothing_is_left(server, own_cache, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        assert f"{len(CONTENT):,} bytes are needed and the disk of" in (
            text := refused(url(server))
        )
    assert "has 1,000 left: free some, or set FMJAX_CACHE" in text

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(part.Part, "add", full)
    assert "(the disk is full)" in refused(url(server))
    assert files(own_cache) == []


def test_two_processes_fetch_once(server, own_cache):
    server.always[PATH] = Reply(wait_s=0.5)
    asked = json.dumps({"sources": [vars(url(server))]})
    command = [sys.executable, "-m", "tests.support.locate", asked]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    done = [process.communicate(timeout=60) for process in running]
    assert [json.loads(out)["sha256"] for out, _ in done] == [SHA256] * 3
    assert len(server.gets()) == 1
    assert sum(err.count(b"CC-BY-NC-4.0") for _, err in done) == 1
    assert len(files(own_cache)) == 1


def test_no_password_is_printed_recorded_or_sent_to_another_host(
    server, monkeypatch, own_cache, capsys
):
    source = Source(
        "url", f"http://me:secret@weights.invalid{PATH}?sign=secret", "vit.pt", "open_clip"
    )
    with serving() as other:
        monkeypatch.setenv("FMJAX_MIRROR", server.base.replace("//", "//you:secret@"))
        for reply in (
            Reply(404),
            Reply(503),
            Reply(headers={"Content-Length": "none"}),
            Reply(403),
        ):
            server.always[f"{PATH}?sign=secret"] = reply
            assert "secret" not in refused(source)
        assert all("Authorization" in seen.headers for seen in server.gets())
        server.always[f"{PATH}?sign=secret"] = Reply(302, {"Location": other.base + "/vit.pt"})
        other.files["/vit.pt"] = CONTENT
        path = locate.locate(weights(source))[0]
        assert ["Authorization" in seen.headers for seen in other.gets()] == [False]
    assert path == own_cache / "files/weights.invalid/models/vit.pt"
    kept = json.loads((own_cache / record.NAME).read_text())["files"]
    assert list(kept) == [f"http://weights.invalid{PATH}?sign=secret"]
    assert "secret" not in capsys.readouterr().err


def test_a_redirect_from_outside_into_this_machine_is_refused(server, monkeypatch, own_cache):
    monkeypatch.setenv("http_proxy", server.base)
    server.always[PATH] = Reply(302, {"Location": f"{server.base}/metadata"})
    server.files["/metadata"] = b"hello world!"
    assert "inside your own network" in refused(
        Source("url", f"http://host.invalid{PATH}", "vit.pt", "timm")
    )
    assert files(own_cache) == []
    assert len(server.seen) == 1


def test_the_first_words_say_what_helps_without_a_network(monkeypatch):
    gone = [
        Source("url", f"http://127.0.0.1:{closed_port()}/{i}.pt", f"{i}.pt", "timm")
        for i in range(2)
    ]
    first, *reasons = refused(*gone, Source("ngc", "a/b:1", "x.ckpt", "tao")).split("\n")
    assert first == (
        'ViT-B-16.test could not be fetched: pass the file as checkpoint="/path/to/0.pt" (--checkpoint), '
        "or mend one of these:"
    )
    assert [reason.partition(" ")[0] for reason in (line.strip() for line in reasons)] == [
        urlsplit(gone[0].location).netloc,
        urlsplit(gone[1].location).netloc,
        "x.ckpt",
    ]


def test_a_cache_that_cannot_be_written_is_named(server, own_cache, monkeypatch):
    (own_cache / "file").write_text("")
    monkeypatch.setenv("FMJAX_CACHE", str(own_cache / "file"))
    assert "cannot be written (" in (text := refused(url(server)))
    assert "set FMJAX_CACHE" in text


def test_the_file_inside_the_package_needs_no_network_and_no_line(capsys, own_cache):
    from fmjax.names import get_weights

    path, source = locate.locate(get_weights("demo_vit_ti4"), offline=True)
    assert path.is_file()
    assert source.kind == "package"
    assert capsys.readouterr().err == ""
    assert not (own_cache / record.NAME).exists()


def test_ngc_says_how_to_fetch():
    text = refused(Source("ngc", "nvaie/model:v1", "x.ckpt", "tao"))
    assert "`ngc registry model download-version nvaie/model:v1`" in text
    assert "checkpoint=" in text


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("FMJAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert record.cache_folder() == tmp_path / "fmjax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert record.cache_folder() == Path.home() / ".cache/fmjax"


def test_a_file_of_unknown_length_is_not_taken():
    with socketserver.TCPServer(("127.0.0.1", 0), Endless) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        message = refused(
            Source(
                "url", f"http://127.0.0.1:{running.server_address[1]}/vit.pt", "vit.pt", "open_clip"
            )
        )
        running.shutdown()
        thread.join()
    assert "does not say how long" in message


class Endless(socketserver.StreamRequestHandler):
    """Answers without a length and closes, as after a cut."""

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + CONTENT[:1000])


def test_only_the_caches_own_content_is_deleted(tmp_path):
    repository, own = tmp_path / "models--a--b", tmp_path / "mine.safetensors"
    for folder in ("blobs", "snapshots/c"):
        (repository / folder).mkdir(parents=True)
    blob, link, stray = (
        repository / "blobs/1",
        repository / "snapshots/c/x",
        repository / "snapshots/c/y",
    )
    for path in (blob, own):
        path.write_bytes(b"x")
    link.symlink_to(blob)
    stray.symlink_to(own)
    huggingface.remove(link)
    huggingface.remove(stray)
    assert own.exists()
    assert not any(path.is_symlink() or path.exists() for path in (blob, link, stray))
