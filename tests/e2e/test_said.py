"""Every program that reads images says, in the same lines, what it leaves out, cannot read, and has twice."""

from __future__ import annotations

import shutil

import pytest

from fmjax.cli import main
from tests.security.pictures import noise

DEMO = "demo_vit_ti4.fashion_mnist"
LINES = (
    "left out: 1 with another suffix (train/cat/x.heic), 1 links to nothing (train/dog/gone.png)\n",
    "test/ is left out; to score a run on it, name it: folder:",
    "1 of 6 val images are in train too, byte for byte (val/cat/twin.png is train/cat/0.png)",
)
QUICK = (
    "--steps",
    "1",
    "--recipe.warmup-steps",
    "0",
    "--batch-size",
    "8",
    "--no-compare-random",
    "--export",
    "none",
)
PROGRAMS = {
    "embed": ("embed", DEMO, "--out", "OUT/x.npz"),
    "knn": ("knn", DEMO),
    "probe": ("probe", DEMO),
    "finetune": ("finetune", "quickstart", "--out", "OUT/run", *QUICK),
}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "set"
    for part, name, count in (
        ("train", "cat", 4),
        ("train", "dog", 4),
        ("val", "cat", 2),
        ("val", "dog", 2),
    ):
        (root / part / name).mkdir(parents=True)
        for number in range(count):
            content = noise(20 + number, 9 + len(part) + len(name) * (name == "dog"), "PNG")
            (root / part / name / f"{number}.png").write_bytes(content)
    shutil.copy(root / "train" / "cat" / "0.png", root / "val" / "cat" / "twin.png")
    (root / "train" / "cat" / "x.heic").touch()
    (root / "train" / "dog" / "gone.png").symlink_to("nowhere")
    (root / "val" / "dog" / "broken.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n{} loop\n")
    (root / "test" / "cat").mkdir(parents=True)
    return root


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_program_says_what_it_leaves_out(program, folder, tmp_path, capsys):
    command = [part.replace("OUT", str(tmp_path)) for part in PROGRAMS[program]]
    assert main([*command, "--data.source", f"folder:{folder}"]) == 0
    told = [capsys.readouterr().out]
    if program == "finetune":
        assert main(["eval", str(tmp_path / "run")]) == 0
        told.append(capsys.readouterr().out)
    for text in told:
        for line in LINES:
            assert text.count(line) == 1, (line, text)
        assert text.count("left out: ") == 2
        assert "val/dog/broken.png: it is no JPEG, PNG, WebP" in text
