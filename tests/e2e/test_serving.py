"""docs/examples/serve.py as a client meets it, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib.util
import io
import json
import shlex
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fmjax
from tests.support.tiny import known

ROOT = Path(__file__).parents[2]
SERVE = ROOT / "docs" / "examples" / "serve.py"
STORED = ROOT / "tests" / "reliability" / "stored"
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # of the server's own libraries


@pytest.fixture(scope="module")
def serve() -> ModuleType:
    spec = importlib.util.spec_from_file_location("serve_example", SERVE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "run"
    with tarfile.open(STORED / "1.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    with known():
        yield folder


class Served:
    """A server in a thread. batches: how many pictures its model was given at once; held: what it waits for."""

    def __init__(self, serve: ModuleType, model: Any) -> None:
        self.batches: list[int] = []
        self.held = threading.Event()
        self.held.set()
        # the only one that the server makes
        with pytest.MonkeyPatch.context() as patch:
            self.queue = serve.Batches(model)
            patch.setattr(serve, "Batches", lambda model: self.queue)
            app = serve.application(model)
        inner = type(model).predict

        def predict(model: Any, pictures: Any, **options: Any) -> Any:
            self.batches.append(len(pictures))
            self.held.wait()
            return inner(model, pictures, **options)

        self.predict = predict
        # bound here, so that no other test takes its port before it listens there
        place = socket.create_server(("127.0.0.1", 0))
        self.port = place.getsockname()[1]
        settings = serve.uvicorn.Config(app, log_level="error", lifespan="on")
        self.server = serve.uvicorn.Server(settings)
        self.thread = threading.Thread(target=self.server.run, args=([place],), daemon=True)

    def ask(self, content: bytes | None, path: str = "/predict") -> tuple[int, Any]:
        """The status and the answer to a POST, or to a GET without content."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET" if content is None else "POST", path, content)
            answer = connection.getresponse()
            return answer.status, json.load(answer)


@pytest.fixture(scope="module")
def served(serve, run):
    model = fmjax.restore(run)
    one = Served(serve, model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "predict", one.predict)
        one.thread.start()
        while not one.server.started:
            assert one.thread.is_alive()
            time.sleep(0.02)
        yield one
        one.server.should_exit = True
        one.thread.join()


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_the_example_is_short_and_says_what_it_serves(serve, served):
    assert len(SERVE.read_text().splitlines()) <= 100
    status, about = served.ask(None, "/")
    assert (status, about["classes"]) == (200, [str(i) for i in range(10)])


def until(there: Callable[[], bool]) -> None:
    """Waits, a minute at most."""
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_many_clients_at_once_get_their_own_answers_out_of_few_batches(serve, served, run):
    pictures = [picture(seed) for seed in range(41)]
    served.batches.clear()
    served.held.clear()
    with ThreadPoolExecutor(41) as clients:
        # the device is busy with the first while all others come
        asked = [clients.submit(served.ask, pictures[0])]
        until(lambda: served.batches == [1])
        asked += [clients.submit(served.ask, content) for content in pictures[1:]]
        until(lambda: served.queue.waiting.qsize() == 40)
        served.held.set()
        answers = [each.result() for each in asked]
    assert {status for status, _ in answers} == {200}
    assert served.batches == [1, serve.AT_ONCE, 8]
    model = fmjax.restore(run)
    for content, (_, answer) in zip(pictures, answers, strict=True):
        alone = fmjax.predict(model, content)
        assert tuple(answer["classes"]) == alone.classes
        np.testing.assert_allclose(answer["probabilities"], alone.probabilities, rtol=1e-4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (
            b"<html>",
            "it is no JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or PPM, or its header is damaged",
        ),
        (picture(0)[:-60], "image file is truncated"),
    ],
    ids=["empty", "a page", "cut short"],
)
def test_what_is_no_picture_is_a_sentence_and_hurts_nobody_else(served, content, reason):
    with ThreadPoolExecutor(3) as clients:
        found = list(clients.map(served.ask, [picture(1), content, picture(2)]))
    assert [status for status, _ in found] == [200, 422, 200]
    assert found[1][1]["detail"] == f"the content is not a readable image: {reason}"


def test_a_file_that_is_too_long_is_refused_before_all_of_it_is_read(serve, served, monkeypatch):
    monkeypatch.setattr(serve, "MAX_BYTES", 1000)
    status, said = served.ask(b"x" * 1001)
    assert (status, said["detail"]) == (413, "the picture has over 1,000 bytes")


def test_more_than_may_wait_are_told_to_come_again(serve, served, monkeypatch):
    def full(item: Any) -> None:
        raise asyncio.QueueFull

    monkeypatch.setattr(served.queue.waiting, "put_nowait", full)
    assert served.ask(picture(0)) == (503, {"detail": "512 pictures are waiting; try again"})


def test_an_error_of_the_model_is_that_of_its_batch_and_the_server_goes_on(served, monkeypatch):
    def broken(model: Any, pictures: Any) -> Any:
        raise fmjax.DataError("nothing can be said")

    with monkeypatch.context() as patch:
        patch.setattr(fmjax.ViT, "predict", broken)
        assert served.ask(picture(0)) == (422, {"detail": "nothing can be said"})
    assert served.ask(picture(0))[0] == 200


# the script as `python docs/examples/serve.py` starts it, in a process that knows the very small network
STARTED = """
import runpy, sys
from tests.support.tiny import known
sys.argv = sys.argv[1:]
with known():
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def on_the_page(start: str) -> list[str]:
    """The words of the command of docs/serving.md that begins so."""
    lines = (ROOT / "docs" / "serving.md").read_text().splitlines()
    return shlex.split(next(line for line in lines if line.startswith(start)))


def test_the_commands_of_the_page_serve_a_run_and_ask_for_a_picture(run, tmp_path):
    place = socket.create_server(("127.0.0.1", 0))
    port = str(place.getsockname()[1])
    place.close()
    (tmp_path / "cat.jpg").write_bytes(picture(0))
    _, script, _ = on_the_page("python docs/examples/serve.py ")
    serving = [sys.executable, "-c", STARTED, str(ROOT / script), str(run), "--port", port]
    asking = [word.replace("8000", port) for word in on_the_page("curl ")]

    with subprocess.Popen(serving, cwd=ROOT, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert any("Uvicorn running" in line for line in server.stderr)
            asked = subprocess.run(asking, capture_output=True, text=True, check=True, cwd=tmp_path)
        finally:
            server.terminate()
            server.communicate()
    answer = json.loads(asked.stdout)
    assert len(answer["classes"]) == len(answer["probabilities"]) == 5


def test_what_is_no_run_is_refused_in_a_sentence(tmp_path):
    command = [sys.executable, str(SERVE), str(tmp_path / "nothing")]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert found.returncode == 1
    assert "nothing is not the folder of a run" in found.stderr
    assert "Traceback" not in found.stderr
