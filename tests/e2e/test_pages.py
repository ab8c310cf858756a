"""What stands on the pages that teach is run as it stands, a page from its first block to its last."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fmjax import names
from fmjax.cli import main
from tests.e2e.test_examples import CODES, QUICK
from tests.support.checkpoints import random_file, save, small
from tests.support.guide import DOCS, Block, blocks, commands
from tests.support.torch_reference import declare_torchvision_operators

# pages of which no block is left out
WHOLE = (
    "quickstart",
    "own_folder",
    "offline",
    "names_and_files",
    "dialects",
    "determinism",
    "sharding",
    "own_loop",
    "from_timm",
    "from_transformers",
    "from_big_vision",
)
CLIP, TINY = "ViT-B-16", "augreg_vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    """A reader's folder: pictures of two kinds, a checkpoint of open_clip, one of big_vision, and the run of the
    quickstart."""
    folder = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(0)
    for shade, kind in enumerate(("cat", "dog")):
        (folder / "images" / kind).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 128, (40, 40, 3)) + 127 * shade
            picture = Image.fromarray(pixels.astype(np.uint8))
            picture.save(folder / "images" / kind / f"{number}.png")
    save(folder / "clip.safetensors", random_file(small(CLIP), "open_clip", np.float16))
    np.savez(folder / "Ti_16.npz", **random_file(names.get_spec(TINY), "augreg_npz"))
    real, before = names.get_spec, Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        # CLIP in small, so that its file is
        patch.setattr(names, "get_spec", lambda name: (small if CLIP in name else real)(name))
        patch.setenv("FMJAX_CACHE", str(folder / "cache"))
        os.chdir(folder)
        [training] = [words for words in _all("quickstart") if words[0] == "finetune"]
        assert main([*training, *QUICK]) == 0
        yield folder
        os.chdir(before)


def _all(page: str) -> list[list[str]]:
    return [words for block in blocks(DOCS / f"{page}.md") for words in commands(block)]


def run(block: Block, names_of_page: dict[str, Any]) -> int:
    """Runs a block, and returns how many commands it was, or 1 for code."""
    if block.language == "python":
        exec(compile(block.text, f"line {block.line}", "exec"), names_of_page)  # noqa: S102
        return 1
    found = list(commands(block))
    for words in found:
        trains = words[0] == "finetune" and "--dry-run" not in words
        added = QUICK if trains else ()
        assert main([*words, *added]) in CODES.get(words[0], {0}), words
    return len(found)


# what code leaves behind, and what is true of it
TRUE = {
    "quickstart": lambda it: it["answer"].classes[0] in ("cat", "dog"),
    "names_and_files": lambda it: it["spec"].activation == "quick_gelu",
    "sharding": lambda it: it["kernel"].addressable_shards[0].data.shape == (6, 24, 384),
    "own_loop": lambda it: (
        it["losses"][-1] < it["losses"][0] / 2
        and it["logits"].shape == (64, 10)
        and it["loss"] < np.log(10)
    ),
    "from_timm": lambda it: it["difference"] < 1e-5,
    "from_transformers": lambda it: it["difference"] < 5e-5,
    "from_big_vision": lambda it: it["kernel"].shape == (12, 192, 768),
}
FILES = {
    "quickstart": ("embeddings.npz", "answers.csv", "mine.safetensors", "mine.stablehlo"),
    "offline": ("embeddings.npz", "hub/README.md"),
    "dialects": ("ours.safetensors", "back.safetensors"),
    "own_loop": ("tuned.safetensors",),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", WHOLE)
def test_a_page_runs_from_its_first_block_to_its_last(page, place, monkeypatch):
    for name in FILES.get(page, ()):
        (place / name).unlink(missing_ok=True)
    declare_torchvision_operators()
    # dataclasses look for the module that they are of
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    it = vars(module)
    assert sum(run(block, it) for block in blocks(DOCS / f"{page}.md")) >= 1
    assert TRUE.get(page, bool)(it)
    assert all((place / name).exists() for name in FILES.get(page, ()))
