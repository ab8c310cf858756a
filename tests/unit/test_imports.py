"""What may import what, and what starting costs."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "fmjax").rglob("*.py"), *(ROOT / "weights_conversion").rglob("*.py")])
# A module imports its own floor and those below it.
FLOORS = (
    ("weights_conversion",),
    ("fmjax.errors", "fmjax.serial", "fmjax.targets", "fmjax.trees", "fmjax.console"),
    ("fmjax.specs", "fmjax.sharding"),
    ("fmjax.store.record",),  # where the cache folder is
    ("fmjax.kernels",),
    ("fmjax.zoo",),
    ("fmjax.names", "fmjax.models"),
    ("fmjax.store", "fmjax.data", "fmjax.config"),
    ("fmjax.weights", "fmjax.preprocessing", "fmjax.recipes"),
    ("fmjax.report", "fmjax.deploy"),
    ("fmjax.tasks",),
    ("fmjax.engine",),
    ("fmjax.bench",),
    ("fmjax.programs",),
    ("fmjax.commands",),
    ("fmjax.cli",),
)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def module(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def floor(name: str) -> int | None:
    return next(
        (
            i
            for i, row in enumerate(FLOORS)
            if any(name == r or name.startswith(f"{r}.") for r in row)
        ),
        None,
    )


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_arrows_point_one_way(path):
    own = floor(module(path))
    if module(path) in ("fmjax", "weights_conversion.__main__"):
        return
    assert own is not None, f"{module(path)} is on no floor"
    for name in imports(path):
        theirs = floor(name)
        if theirs is not None:
            assert theirs <= own, f"{module(path)} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_no_torch_and_no_tensorflow(path):
    assert not {
        name
        for name in imports(path)
        if name.split(".")[0] in ("torch", "tensorflow", "timm", "transformers")
    }


@pytest.mark.parametrize("path", [p for p in SOURCES if "weights_conversion" in str(p)], ids=module)
def test_conversion_does_not_know_fmjax(path):
    if path.stem != "__main__":
        assert not {
            name for name in imports(path) if name.split(".")[0] in ("fmjax", "jax", "flax")
        }


@pytest.mark.parametrize(
    "statement",
    [
        "import fmjax, fmjax.names; fmjax.list_models(); fmjax.get_weights('ViT-B-16.openai')",
        "from fmjax.cli import main; main(['--help'])",
        "from fmjax.cli import main; main(['models', '*dinov2*']); main(['info', 'ViT-B-16.openai'])",
        "from fmjax.cli import main; main(['completion', 'words', 'finetune', 'x', '--recipe.l'])",
        "from fmjax.config.presets import load_preset; load_preset('quickstart')",
        "import fmjax.data, fmjax.data.batches, fmjax.data.transforms, fmjax.data.split, fmjax.data.audit",
        "from fmjax.data.sources import arrayrecord, csv, digits, folder, hf, masks, open_source, parquet, tfds, wds",
        "from fmjax.cli import main; main(['data', 'check', 'digits'])",
        "import fmjax.data.records, fmjax.data.sources.images, fmjax.programs.data_pack, fmjax.programs.from_tao",
    ],
)
def test_names_rows_presets_and_help_do_not_import_jax(statement):
    code = (
        f"import sys; {statement}; heavy = {{'jax', 'flax', 'torch', 'grain', 'orbax'}} & set(sys.modules); "
        f"sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_every_package_is_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    own = {module(path.parent / "__init__.py") for path in SOURCES}
    assert set(settings["packages"]) == own | {"fmjax.presets"}
    assert settings["package-dir"] == {"fmjax.presets": "configs"}
