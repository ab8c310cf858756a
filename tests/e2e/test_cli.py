"""The command line: every sub-command runs, every mistake is one sentence with a fix and its exit code."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import fmjax
from fmjax.cli import COMMANDS, main
from tests.support.checkpoints import random_file, save, small
from weights_conversion.readers import open_checkpoint

DEMO = "demo_vit_ti4.fashion_mnist"


def failure(capsys, code: int, *args: str) -> str:
    """What the command says on stderr; checks the exit code."""
    assert main(list(args)) == code
    return capsys.readouterr().err


@pytest.fixture
def two_blocks(monkeypatch):
    """ViT-B-16 in small, so that its files are."""
    monkeypatch.setattr("fmjax.weights.load.names.get_spec", lambda name: small(name.split(".")[0]))
    return small("ViT-B-16")


def test_models_and_info(capsys):
    assert main(["models", "*DINOV2*", "--pretrained", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 10
    assert rows[0]["licence"] == "Apache-2.0"
    assert main(["models", "*", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert len(rows) == 112 + 1
    for row in rows.values():
        assert row["parameters"] * 4 == row["float32_bytes"] > 0
        assert row["licence"]
        assert row["dialects"]
        assert row["verified"] == (not row["unverified"])
    assert rows["aimv2_large"]["tags"] == ["224px", "336px", "448px"]
    assert rows["ViT-B-32"]["verified"]
    assert "no file was opened" in rows["C-RADIOv3-B"]["unverified"]["nvidia"]
    assert main(["info", "ViT-B-16.openai", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["parameters"], facts["spec"]["activation"]) == (86192640, "quick_gelu")


def test_convert_export_and_verify_bring_a_full_clip_file_back(tmp_path, capsys, two_blocks):
    tensors = random_file(two_blocks, "open_clip", np.float16) | {
        "text_projection": np.ones((3, 4), np.float32)
    }
    path = save(tmp_path / "clip.safetensors", tensors)
    assert main(["convert", "ViT-B-16.openai", str(path), str(tmp_path / "ours.safetensors")]) == 0
    assert "(open_clip, 1 extras)" in capsys.readouterr().out
    ours = open_checkpoint(tmp_path / "ours.safetensors")
    assert ours.metadata["model"] == "ViT-B-16.openai"
    assert ours.tensors["blocks.mlp.up.kernel"].shape == (2, 48, 40)
    assert (
        main(["export", str(tmp_path / "ours.safetensors"), str(tmp_path / "back.safetensors")])
        == 0
    )
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[key], tensors[key]) for key in tensors)
    assert main(["verify", "ViT-B-16.openai", "--checkpoint", str(path)]) == 0
    assert f"{len(tensors)}/{len(tensors)} tensors come back bit by bit" in capsys.readouterr().out
    other = str(tmp_path / "timm.safetensors")
    assert main(["export", str(tmp_path / "ours.safetensors"), other, "--dialect", "timm"]) == 0
    assert "blocks.0.attn.qkv.weight" in load_file(other)


def test_embed_knn_and_probe_run_on_digits_as_their_examples_say(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # in larger batches, and less well, for speed
    flags = ["--batch-size", "256"]
    quick = {"probe": ["--max-iter", "100", "--folds", "2", "--c", "0.01"]}
    for name in ("embed", "knn", "probe"):
        example = shlex.split(COMMANDS[name].example)
        assert main([*example[1:], *flags, *quick.get(name, ())]) == 0
    stored = np.load("embeddings.npz")
    assert stored["features"].shape == (1797, 96)
    assert set(stored["labels"]) == set(range(10))
    out = capsys.readouterr().out
    assert "1-NN accuracy 87.2% (leave-one-out, 1,797 images, 10 classes)" in out
    assert "linear probe accuracy 86.1% (2 folds" in out


def test_unknown_names_are_answered_with_the_nearest(capsys):
    assert "did you mean models" in failure(capsys, 2, "model")
    assert "did you mean" in failure(capsys, 2, "info", "ViT-B-61")
    assert "did you mean openai" in failure(capsys, 2, "info", "ViT-B-16.openia")
    assert "did you mean quickstart" in failure(capsys, 2, "finetune", "quickstrat")
    assert "did you mean openai" in failure(capsys, 2, "info", "vit_base_patch16_clip_224.openia")
    assert "needs a preset, or a model" in failure(capsys, 2, "finetune", "--steps", "3")
    assert "differ in activation" in failure(capsys, 2, "convert", "ViT-B-16", "x", "y.safetensors")


def test_an_unknown_field_is_refused_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["finetune", "quickstart", "--recipe.lrr", "1"])
    assert stop.value.code == 2
    found = capsys.readouterr().err
    assert "Perhaps you meant" in found
    assert "--recipe.lr FLOAT" in found


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ("finetune", "quickstart", "--optim.lr", "3e-4"),
            "no flag --optim.lr; did you mean --recipe.lr?",
        ),
        (("finetune", "quickstart", "--lr=3e-4"), "no flag --lr; did you mean --recipe.lr?"),
        (("finetune", "quickstart", "--model.no_flip"), "did you mean --data.flip?"),
        (
            ("finetune", DEMO, "--data.label-smoothing", "0.1"),
            "did you mean --task.label-smoothing?",
        ),
        (("knn", DEMO, "--data.k", "3"), "did you mean --k? (`fmjax knn --help` lists all)"),
    ],
)
def test_a_flag_under_another_head_is_named(capsys, args, said):
    assert said in failure(capsys, 2, *args)


def test_a_file_that_is_not_there_is_answered_with_the_one_that_is_near(tmp_path, capsys):
    (tmp_path / "my_task.py").write_text("")
    (tmp_path / "a.py").write_text("")
    said = failure(capsys, 2, "finetune", str(tmp_path / "my_tsk.py"))
    assert said.endswith(f"; did you mean {tmp_path / 'my_task.py'}?\n")
    assert "did you mean" not in failure(capsys, 2, "finetune", str(tmp_path / "z.py"))
    said = failure(capsys, 2, "finetune", str(tmp_path / "quickstart.py"))
    assert "the preset that ships with fmjax is called quickstart" in said


def test_checkpoint_of_another_architecture_names_all_misfits_and_the_closest(
    tmp_path, capsys, two_blocks
):
    path = save(tmp_path / "x.safetensors", random_file(small("ViT-B-32"), "open_clip"))
    target = tmp_path / "out.safetensors"
    text = failure(capsys, 4, "convert", "ViT-B-16.openai", str(path), str(target))
    assert "1 misfits, nothing was loaded into ViT-B-16; the closest model is ViT-B-32" in text
    assert "visual.conv1.weight (48, 3, 32, 32), expected (48, 3, 16, 16)" in text
    assert not target.exists()


def test_damaged_and_missing_files(tmp_path, capsys):
    path = save(tmp_path / "x.safetensors", {"a": np.zeros(10)})
    path.write_bytes(path.read_bytes()[:-4])
    assert "not a whole safetensors file" in failure(
        capsys, 4, "verify", "ViT-B-16.openai", "--checkpoint", str(path)
    )
    assert "no checkpoint at" in failure(
        capsys, 4, "verify", "ViT-B-16.openai", "--checkpoint", "nothing"
    )
    text = failure(capsys, 4, "verify", "ViT-B-16.openai", "--offline")
    assert "is not in the local cache" in text
    assert 'checkpoint="/path/to/open_clip_model.safetensors" (--checkpoint)' in text
    assert "`fmjax download ViT-B-16.openai`" in text
    assert "published on NVIDIA NGC" in failure(capsys, 4, "verify", "nv_dinov2_vitl14")
    assert "is not the folder of a run" in failure(capsys, 4, "eval", str(tmp_path))


def test_sizes_and_meshes_that_do_not_fit(capsys, tmp_path):
    out = ("--out", str(tmp_path / "run"))
    assert "nearest: 28 or 32 x 28" in failure(
        capsys, 2, "finetune", "quickstart", *out, "--model.image-size", "30", "28"
    )
    assert "does not fit 8 devices" in failure(
        capsys, 2, "finetune", "quickstart", *out, "--mesh.fsdp", "3"
    )
    text = failure(
        capsys, 2, "finetune", "quickstart", *out, "--mesh.fsdp", "8", "--batch-size", "12"
    )
    assert "does not divide over 8 devices" in text
    assert not (tmp_path / "run").exists()


def test_folders_that_do_not_fit(tmp_path, capsys):
    for name in ("train/cat", "train/dog", "val/cat", "val/horse"):
        (tmp_path / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{i}.png")
    source = ("--data.source", f"folder:{tmp_path}")
    assert "has not: horse" in failure(capsys, 3, "knn", DEMO, *source)
    shutil.rmtree(tmp_path / "val/horse")
    (tmp_path / "train/owl").mkdir()
    assert "without images: owl" in failure(capsys, 3, "knn", DEMO, *source)
    (tmp_path / "train/owl").rmdir()
    (tmp_path / "train/dog/0 [b].png").write_bytes(b"<html>")
    assert main(["knn", DEMO, *source]) == 0
    assert "dog/0 [b].png" in capsys.readouterr().out
    assert "more than --data.max-bad 0" in failure(
        capsys, 3, "knn", DEMO, *source, "--data.max-bad", "0"
    )
    assert "no folder" in failure(capsys, 3, "knn", DEMO, "--data.source", "folder:nowhere")


def test_version_says_what_is_installed(capsys):
    assert main(["--version"]) == main(["-V"]) == 0
    assert f"fmjax {fmjax.__version__} (jax {jax.__version__}, flax " in capsys.readouterr().out


def test_one_thing_has_one_name_and_the_other_names_work(tmp_path, capsys):
    nothing = str(tmp_path / "nothing")
    for flag in ("--checkpoint", "--model.checkpoint"):
        assert "no checkpoint at" in failure(capsys, 4, "verify", DEMO, flag, nothing)
        assert "no checkpoint at" in failure(capsys, 4, "knn", DEMO, flag, nothing)
    for flag in ("--source", "--data.source"):
        assert "no folder" in failure(capsys, 3, "knn", DEMO, flag, f"folder:{nothing}")
        assert "is not the folder of a run" in failure(capsys, 4, "eval", nothing, flag, "digits")


def test_help_names_every_argument(capsys):
    for name in ("export", "convert", "verify", "models", "info", "download", "predict"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        text = capsys.readouterr().out
        positionals = re.split(r"\n\W*options", text.split("positional arguments")[1])[0]
        assert re.search(
            r"^\W*(NAME|RUN|SOURCE|TARGET|PATTERN|PICTURES)", positionals, re.MULTILINE
        )
        assert not re.search(r"^\W*STR\b", positionals, re.MULTILINE)


def test_finetune_takes_a_model_in_the_place_of_a_preset(monkeypatch):
    started = []
    monkeypatch.setattr("fmjax.programs.finetune.main", started.append)
    assert main(["finetune", "vit_base_patch16_clip_224.openai", "--data.source", "folder:x"]) == 0
    assert started[0].model.name == "vit_base_patch16_clip_224.openai"
    assert (started[0].out, started[0].data.source) == ("runs/ViT-B-16.openai", "folder:x")


def test_a_preset_file_that_is_not_there_is_no_other_preset(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = failure(capsys, 2, "finetune", "configs/quickstart.py")
    assert (
        "no file 'configs/quickstart.py'; the preset that ships with fmjax is called quickstart"
        in text
    )
    (tmp_path / "own.py").write_text("raise SystemExit('it was run')")
    for sly in ("../configs/own", f"{tmp_path}/own", "./own"):
        assert "no preset" in failure(capsys, 2, "finetune", sly)


def test_probe_names_the_class_that_has_too_few_images(tmp_path, capsys):
    for name, count in (("cat", 3), ("dog", 1), ("owl", 3)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("RGB", (8, 8), (40 * i, 9 * len(name), 7)).save(tmp_path / name / f"{i}.png")
    source = ("--data.source", f"folder:{tmp_path}")
    text = failure(capsys, 3, "probe", DEMO, *source, "--folds", "3")
    assert (
        "3 folds need 3 readable images of every class; 'dog' has 1; add images, take the class out"
        in text
    )
    assert "--folds" not in text
    Image.new("RGB", (8, 8), (200, 0, 7)).save(tmp_path / "dog" / "1.png")
    assert "'dog' has 2; set --folds 2, add images" in failure(
        capsys, 3, "probe", DEMO, *source, "--folds", "3"
    )


def test_presets_are_found_beside_a_configs_package_of_the_users_own(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("")
    code = "from fmjax.config.presets import load_preset; print(load_preset('quickstart').out)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "runs/quickstart\n", done.stderr
