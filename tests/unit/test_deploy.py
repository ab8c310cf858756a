"""What leaves fmjax runs without it, says the same, and comes back bit by bit."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import jax
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

import fmjax
import weights_conversion as wc
from fmjax.cli import main
from fmjax.config import RunConfig
from fmjax.data.split import read_split, write_split
from fmjax.deploy import card, onnx, stablehlo
from fmjax.deploy.program import program
from fmjax.errors import CheckpointError, UsageError
from fmjax.models.build import abstract
from fmjax.trees import flat
from fmjax.weights.load import fill
from tests.support import tiny as tiny_network

ROOT = Path(__file__).parents[2]
STORED = ROOT / "tests" / "reliability" / "stored" / "1.tar.xz"
NAME = "stored_vit.none"
SIDE = 8  # pixels


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[RunConfig]:
    """The very small network of the stored run, known while these tests run."""
    with tiny_network.known() as preset:
        yield preset


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with ten classes, at step 4."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    with tarfile.open(STORED) as archive:
        archive.extractall(out, filter="data")
    return out


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return shutil.copytree(run, tmp_path / "run")


def pictures(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).integers(0, 256, (batch, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(run) -> dict[int, dict[str, np.ndarray]]:
    """The model's own answers, by batch."""
    model = fmjax.restore(run)
    config = fmjax.preprocess_config(model)
    assert config.image_size == (SIDE, SIDE)
    answer = jax.jit(lambda model, images: model(images))
    found = {}
    for batch in (1, 4):
        out = answer(model, fmjax.preprocess(pictures(batch), config))
        found[batch] = {"logits": np.asarray(out.logits), "pooled": np.asarray(out.pooled)}
    return found


def exported(source: object, target: object, *flags: str) -> int:
    return main(["export", str(source), str(target), *flags])


def refused(capsys, code: int, *args: object) -> str:
    assert main([str(arg) for arg in args]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


# StableHLO


@pytest.fixture(scope="module")
def hlo(run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("hlo") / "model.stablehlo"
    assert exported(run, path) == 0
    return path


def test_the_program_runs_in_a_process_without_fmjax_at_several_batches(hlo, expected, tmp_path):
    page = (ROOT / "docs" / "export.md").read_text()
    loader = re.search(r"```python\n(import json\n\nimport jax\n.*?)```", page, re.DOTALL)
    assert loader is not None
    np.savez(tmp_path / "pictures.npz", **{str(batch): pictures(batch) for batch in expected})
    code = loader[1] + (
        "import sys\n"
        "assert not {'fmjax', 'flax', 'torch'} & set(sys.modules)\n"
        "assert answer['logits'].shape == (1, len(about['classes']))\n"
        "given = np.load('pictures.npz')\n"
        "answers = {batch: run(params, given[batch]) for batch in given.files}\n"
        "np.savez('out.npz', **{f'{b} {n}': v for b, a in answers.items() for n, v in a.items()})\n"
    )
    shutil.copy(hlo, tmp_path)
    command = [sys.executable, "-I", "-c", code]  # -I: nothing of this checkout is on the path
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    out = np.load(tmp_path / "out.npz")
    for batch, answers in expected.items():
        for name, value in answers.items():
            np.testing.assert_allclose(out[f"{batch} {name}"], value, rtol=0, atol=1e-6)


def test_the_same_model_has_the_same_numbers_and_how_far_it_is_is_printed(
    run, hlo, tmp_path, capsys
):
    target = tmp_path / "again.stablehlo"
    assert exported(run, target) == 0
    # the same but for the places in the source that jax keeps in a program
    one, other = np.load(hlo), np.load(target)
    names = [name for name in one.files if name != "program"]
    assert one["about.json"] == other["about.json"]
    assert all(np.array_equal(one[name], other[name]) for name in names)
    said = capsys.readouterr().out
    assert re.search(r"largest difference \S+ of values up to \S+, at batches of 1 and 3", said)
    assert f"takes uint8 images of batch x {SIDE} x {SIDE} x 3, gives logits, pooled" in said


def test_the_facts_are_in_the_file_beside_the_parameters_and_little_else(run, hlo):
    file = np.load(hlo)
    about = json.loads(file["about.json"])
    assert about["classes"] == [str(digit) for digit in range(10)]
    assert about["preprocessing"]["mean"] == [0.5, 0.5, 0.5]
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    assert len(about["params_xxh3_128"]) == 32
    leaves = flat(fmjax.restore(run))
    found = {name.removeprefix("params/"): file[name] for name in file.files}
    assert all(np.array_equal(leaf, found[path]) for path, leaf in leaves.items())
    assert hlo.stat().st_size < sum(leaf.nbytes for leaf in leaves.values()) + 60_000


def test_images_of_another_size_or_dtype_are_refused_with_both(hlo):
    again = stablehlo.read(hlo)
    wanted = f"takes uint8 images of batch x {SIDE} x {SIDE} x 3"
    with pytest.raises(UsageError, match=f"{wanted}, got uint8 of 2 x 9 x 9 x 3"):
        again(np.zeros((2, 9, 9, 3), np.uint8))
    with pytest.raises(UsageError, match=f"{wanted}, got float32"):
        again(np.zeros((2, SIDE, SIDE, 3), np.float32))
    # without fmjax it is jax that says it
    file = np.load(hlo)
    call = jax.export.deserialize(bytearray(file["program"])).call
    params = {n.removeprefix("params/"): file[n] for n in file.files if n.startswith("params/")}
    with pytest.raises(ValueError, match=r"expected \(batch, 8, 8, 3\) and called with \(2, 9"):
        call(params, np.zeros((2, 9, 9, 3), np.uint8))


def test_a_damaged_program_is_said_to_be_one(hlo, tmp_path):
    for content in (b"", b"PK", hlo.read_bytes()[:5000]):
        (tmp_path / "x.stablehlo").write_bytes(content)
        with pytest.raises(CheckpointError, match="is no whole program"):
            stablehlo.read(tmp_path / "x.stablehlo")
    np.savez(tmp_path / "y.npz", other=np.zeros(2))
    with pytest.raises(CheckpointError, match="is no whole program"):
        stablehlo.read(tmp_path / "y.npz")


def test_other_inputs_and_outputs_and_parameters_in_half_precision(tmp_path):
    spec = fmjax.get_spec("stored_vit")
    model = fmjax.initialise(spec, param_dtype=jax.numpy.bfloat16)
    config = fmjax.preprocess_config(NAME)
    made = program(model, config, images="normalised", outputs=("patches",))
    assert stablehlo.write(tmp_path / "x.stablehlo", made).largest == 0
    images = np.asarray(fmjax.preprocess(pictures(2), config))
    found = stablehlo.read(tmp_path / "x.stablehlo")(images)
    patches = jax.jit(lambda model, images: model(images).patches)(model, images)
    np.testing.assert_allclose(found["patches"], patches, rtol=0, atol=1e-5)


# ONNX


def test_onnxruntime_gives_the_same_for_any_batch(run, expected, tmp_path, capsys):
    pytest.importorskip("jax2onnx", reason="jax2onnx is not installed (pip install 'fmjax[onnx]')")
    import onnxruntime
    from onnx import load

    path = tmp_path / "model.onnx"
    assert exported(run, path) == 0
    assert "largest difference" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch, answers in expected.items():
        logits, pooled = session.run(["logits", "pooled"], {"images": pictures(batch)})
        np.testing.assert_allclose(logits, answers["logits"], rtol=0, atol=2e-5)
        np.testing.assert_allclose(pooled, answers["pooled"], rtol=0, atol=2e-5)
    about = json.loads(session.get_modelmeta().custom_metadata_map["fmjax"])
    assert about["classes"][0] == "0"
    model = load(path)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == onnx.OPSET
    # one block behind the other: no loop
    assert "Loop" not in {node.op_type for node in model.graph.node}


def test_onnx_without_its_package_says_which(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    said = refused(capsys, 2, "export", run, tmp_path / "x.onnx")
    assert "jax2onnx is not installed" in said
    assert "pip install 'fmjax[onnx]'" in said
    assert list(tmp_path.iterdir()) == []


# the command


def test_a_target_that_exists_another_end_and_unread_flags_are_refused(run, tmp_path, capsys):
    target = tmp_path / "x.stablehlo"
    target.write_text("mine")
    assert "exists; pass --force" in refused(capsys, 2, "export", run, target)
    assert target.read_text() == "mine"
    assert "must end in .safetensors" in refused(capsys, 2, "export", run, tmp_path / "x.tflite")
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    assert "has files in it; pass --force" in refused(capsys, 2, "export", run, f"{folder}/")
    said = refused(capsys, 2, "export", run, f"{folder}/", "--dtype", "bfloat16")
    assert "--dtype is for targets that end in .stablehlo or .onnx, not in /" in said
    assert exported(run, f"{folder}/", "--force") == 0
    names = ["config.json", "mine.txt", "model.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names


def test_an_output_that_a_model_has_not_is_refused(run, tmp_path, capsys):
    target = tmp_path / "x.stablehlo"
    said = refused(capsys, 2, "export", run, target, "--outputs", "registers")
    assert "no output 'registers'; it has pooled, cls, patches, logits" in said


def test_a_run_without_checkpoint_and_a_folder_of_nothing_are_refused(copy, tmp_path, capsys):
    shutil.rmtree(copy / "checkpoints")
    for target in (tmp_path / "x.stablehlo", f"{tmp_path}/x/"):
        assert "has no checkpoint yet" in refused(capsys, 4, "export", copy, target)
    assert "has no checkpoint yet" in refused(capsys, 4, "push", copy, f"{tmp_path}/x/")
    assert not (tmp_path / "x").exists()
    assert "is not the folder of a run" in refused(capsys, 2, "push", tmp_path, f"{tmp_path}/x/")


def test_a_head_that_has_no_place_is_refused_before_a_number_is_read(copy, tmp_path, capsys):
    record = json.loads((copy / "config.json").read_text())
    record["task"] = {"home": "fmjax.tasks.segment:Segment"}
    (copy / "config.json").write_text(json.dumps(record))
    for target in (tmp_path / "x.stablehlo", f"{tmp_path}/x/"):
        said = refused(capsys, 2, "export", copy, target)
        assert "learned Segment, whose head no such target has a place for" in said
    assert "--no-classifier" in refused(capsys, 2, "push", copy, f"{tmp_path}/x/")


# the hub


@pytest.fixture(scope="module")
def pushed(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "mine"
    assert main(["push", str(run), f"{folder}/"]) == 0
    return folder


def test_a_pushed_folder_comes_back_bit_by_bit(run, pushed):
    model, back = fmjax.restore(run), fmjax.load(NAME, checkpoint=pushed)
    assert flat(model).keys() == flat(back).keys()
    assert all(np.array_equal(leaf, flat(back)[path]) for path, leaf in flat(model).items())
    assert fmjax.preprocess_config(back) == fmjax.preprocess_config(model)


def test_a_classifier_beside_a_projection_and_another_size_come_back_bit_by_bit(tmp_path):
    clip = replace(fmjax.get_spec("stored_vit"), name="stored_clip", embed_dim=8)
    fmjax.register(clip, replace(fmjax.get_weights(NAME), model="stored_clip"))
    name, sized = (
        "stored_clip.none",
        replace(fmjax.get_spec("stored_clip.none"), image_size=(12, 16)),
    )
    outline = abstract(sized, num_classes=8)  # as many as the projection is wide
    rng = np.random.default_rng(0)
    values = {
        path: rng.standard_normal(leaf.shape, np.float32) for path, leaf in flat(outline).items()
    }
    model = fill(outline, wc.in_memory_tree(values))
    back = fmjax.load(name, checkpoint=fmjax.export(model, tmp_path / "x.safetensors"))
    assert back.spec.image_size == (12, 16)
    # timm has one head, which is the classifier
    own = {path: leaf for path, leaf in flat(model).items() if not path.startswith("proj.")}
    assert own.keys() == flat(back).keys()
    assert all(np.array_equal(leaf, flat(back)[path]) for path, leaf in own.items())
    assert fmjax.preprocess_config(back).image_size == (12, 16)
    # without it the head is the projection, as ever
    fmjax.export(model, tmp_path / "y.safetensors", classifier=False)
    plain = fmjax.load(name, checkpoint=tmp_path / "y.safetensors")
    assert plain.classifier is None
    assert np.array_equal(plain.proj.kernel, model.proj.kernel)


def test_the_card_says_what_it_is_and_the_digests_are_those_of_the_files(pushed):
    import hashlib

    text = (pushed / card.NAME).read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "other"  # the stored run began with random numbers
    assert front["library_name"] == "timm"
    for words in (
        "stored_vit.none",
        "val_accuracy",
        "digits",
        "to learn from, ",
        "fmjax.load('stored_vit.none'",
    ):
        assert words in text
    for name in ("model.safetensors", "config.json", "fmjax.json"):
        assert hashlib.sha256((pushed / name).read_bytes()).hexdigest() in text
    assert json.loads((pushed / "config.json").read_text())["label_names"][3] == "3"
    assert json.loads((pushed / "fmjax.json").read_text())["scores"]["val_accuracy"] >= 0


def test_a_class_whose_folder_is_no_text_leaves_as_it_is(copy, tmp_path):
    odd = b"caf\xe9".decode("utf-8", "surrogateescape")
    names = [odd, *"123456789"]
    (copy / "classes.json").write_text(json.dumps(names))
    split = read_split(copy)
    assert split is not None
    write_split(copy, replace(split, classes=tuple(names)))
    assert main(["push", str(copy), f"{tmp_path}/hub/"]) == 0
    told = json.loads((tmp_path / "hub/config.json").read_text("utf-8"))
    assert told["label_names"][0] == odd
    assert "caf\\udce9, 1, 2" in (tmp_path / "hub" / card.NAME).read_text("utf-8")


def test_names_of_anybody_do_no_harm_in_a_card():
    assert card.escape("<script>|`*[a](b)\n# x") == (
        "&lt;script&gt;&#124;&#96;&#42;&#91;a&#93;(b) # x"
    )


def test_a_path_of_the_data_is_not_told(run):
    from fmjax.programs.push import data_of

    config = RunConfig().data
    assert data_of(replace(config, source="folder:/home/somebody/pets")) == "folder:pets"
    assert data_of(replace(config, source="digits")) == "digits"


def test_without_a_token_or_offline_the_folder_is_written_and_that_is_said(
    copy, capsys, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    record = json.loads((copy / "config.json").read_text())
    record["model"]["init"] = "pretrained"
    (copy / "config.json").write_text(json.dumps(record))
    for name in ("FMJAX_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    assert main(["push", str(copy), "me/mine"]) == 0
    said = capsys.readouterr().out
    assert "nothing was uploaded to me/mine: there is no token" in said
    assert (copy / "hub" / "model.safetensors").is_file()
    text = (copy / "hub" / card.NAME).read_text()
    assert "hf-hub:me/mine" in text
    assert yaml.safe_load(text.split("---")[1])["license"] == "apache-2.0"
    monkeypatch.setenv("FMJAX_OFFLINE", "1")
    assert main(["push", str(copy), "me/mine"]) == 0  # over the folder of the last time
    assert "FMJAX_OFFLINE is set" in capsys.readouterr().out


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an upload asks for."""

    seen: ClassVar[list[tuple[str, str, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.path, self.headers.get("Authorization", ""), body))
        if self.path.endswith("/repos/create"):
            self._answer({"url": "https://huggingface.co/me/mine"})
        elif self.path.endswith("/validate-yaml"):
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif "/commit/" in self.path:
            self._answer(
                {
                    "success": True,
                    "commitOid": "0" * 40,
                    "commitUrl": "https://huggingface.co/me/mine/commit/0",
                }
            )
        else:
            self._answer({"error": "no"}, 404)

    def do_GET(self) -> None:
        self._answer({"id": "me/mine", "sha": "0" * 40, "siblings": []})

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@contextmanager
def hub_on_loopback() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_an_upload_has_every_file_in_one_commit_and_the_token(pushed):
    code = (
        "from pathlib import Path; from fmjax.deploy import hub; import sys; "
        "names = ['config.json', 'model.safetensors', 'fmjax.json', 'README.md']; "
        "print(hub.obstacle() or hub.upload(Path(sys.argv[1]), 'me/mine', files=names, private=True, message='m'))"
    )
    Hub.seen.clear()
    (pushed / "mine.txt").write_text("not asked for")
    with hub_on_loopback() as address:
        env = {
            "HF_ENDPOINT": address,
            "HF_TOKEN": "hf_secret",
            "PATH": "",
            "HF_HUB_DISABLE_XET": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", code, str(pushed)],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "me/mine" in done.stdout
    assert {sent for _, sent, _ in Hub.seen} == {"Bearer hf_secret"}
    created = next(body for path, _, body in Hub.seen if path.endswith("/repos/create"))
    # as the client's versions spell it
    assert {"visibility": "private", "private": True}.items() & json.loads(created).items()
    commits = [body for path, _, body in Hub.seen if "/commit/" in path]
    assert len(commits) == 1
    lines = [json.loads(line) for line in commits[0].splitlines()]
    sent = {line["value"]["path"] for line in lines if line["key"] == "file"}
    assert sent == {"config.json", "model.safetensors", "fmjax.json", "README.md"}


def test_a_hub_that_refuses_leaves_the_folder_and_is_quoted(pushed, monkeypatch):
    from fmjax.deploy import hub

    def broken(*args: object, **options: object) -> None:
        raise OSError("401 Unauthorized\nmore")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", broken)
    with pytest.raises(CheckpointError, match=r"me/mine was not uploaded \(401 Unauthorized\)"):
        hub.upload(pushed, "me/mine", files=["config.json"], private=False, message="m")


def test_facts_that_were_not_written_by_fmjax_are_refused(pushed, tmp_path):
    tensors = load_file(pushed / "model.safetensors")
    for facts in ('{"width": 3}', '{"image_size": [0, 8]}', '{"image_size": "x"}', "[1]", "{"):
        save_file(tensors, tmp_path / "x.safetensors", {"format": "pt", "fmjax_tuned": facts})
        with pytest.raises(CheckpointError, match="'fmjax_tuned' is damaged"):
            fmjax.load(NAME, checkpoint=tmp_path / "x.safetensors")
    save_file(tensors, tmp_path / "x.safetensors", {"fmjax_tuned": '{"image_size": [9, 9]}'})
    with pytest.raises(CheckpointError, match="is of no such model"):
        fmjax.load(NAME, checkpoint=tmp_path / "x.safetensors")
