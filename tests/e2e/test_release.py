"""What is published: one wheel and one source archive, which install and run where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import fmjax

ROOT = Path(__file__).parents[2]
# what a release is made of; beside it a checkout may have what older builds have left
SOURCES = ("fmjax", "weights_conversion", "configs")
LOOSE = ("pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE", "CITATION.cff")
QUICK = (
    *("--steps", "2", "--batch-size", "16", "--eval-every", "2", "--save-every", "2"),
    *("--recipe.warmup-steps", "0", "--no-compare-random"),
)


def done(*command: object, cwd: Path) -> str:
    """What a command prints, which has to end well."""
    words = list(map(str, command))
    # a checkout that stands there would be imported before what is installed
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd, env=env)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> Path:
    """The folder of both, the wheel built out of the source archive."""
    folder = tmp_path_factory.mktemp("release")
    for name in SOURCES:
        # `presets` may be a link to configs, for work in the checkout
        ignored = shutil.ignore_patterns("__pycache__", "presets", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in LOOSE:
        shutil.copy(ROOT / name, folder)
    done(sys.executable, "-m", "build", "--no-isolation", cwd=folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(archives) -> Path:
    [path] = archives.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(archives) -> Path:
    [path] = archives.glob("*.tar.gz")
    return path


def files(folder: str) -> set[str]:
    """The files of a folder of the checkout that are no caches of Python's."""
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    names = {path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts}
    return {name for name in names if not name.startswith("fmjax/presets/")}


def test_the_wheel_holds_the_two_packages_whole_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    own = {name for name in names if ".dist-info/" not in name}
    presets = {name.replace("configs/", "fmjax/presets/") for name in files("configs")}
    assert own == files("fmjax") | files("weights_conversion") | presets
    assert {name.partition("/")[0] for name in own} == {"fmjax", "weights_conversion"}


def test_the_source_archive_has_what_a_wheel_is_built_from_and_no_tests(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert files("fmjax") | files("weights_conversion") | files("configs") <= names
    assert set(LOOSE) <= names
    assert not [name for name in names if name.startswith(("tests", "docs", "benchmarks"))]


def test_the_version_is_that_of_the_package(wheel, sdist):
    assert wheel.name.split("-")[1] == fmjax.__version__
    assert sdist.name == f"fmjax-{fmjax.__version__}.tar.gz"


def test_an_index_takes_both(wheel, sdist):
    said = done(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist, cwd=wheel.parent)
    assert said.count("PASSED") == 2


def test_installed_without_the_checkout_it_trains_the_quickstart(wheel, tmp_path):
    # a new environment which has what the tests' has, but for fmjax: it stands in a .pth file there, which is not read
    home = tmp_path / "venv"
    done(sys.executable, "-m", "venv", "--without-pip", home, cwd=tmp_path)
    [packages] = home.glob("lib/python*/site-packages")
    beside = [path for path in sys.path if path.endswith("-packages")]
    (packages / "beside.pth").write_text("\n".join(beside))
    pip = (sys.executable, "-m", "pip", "--python", home / "bin" / "python")
    done(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    where = "import fmjax, weights_conversion as w; print(fmjax.__file__, w.__file__, sep='\\n')"
    for place in done(home / "bin" / "python", "-c", where, cwd=tmp_path).split():
        assert Path(place).is_relative_to(packages)

    said = done(home / "bin" / "fmjax", "finetune", "quickstart", *QUICK, cwd=tmp_path)
    run = tmp_path / "runs" / "quickstart"
    # its network, its preset and the parts of its page came with it
    assert "export  runs/quickstart/model.timm.safetensors" in said
    assert (run / "report.html").stat().st_size > 10_000


def test_how_to_cite_it_is_what_the_package_says():
    # https://github.com/citation-file-format, version 1.2.0: what is required, and what else stands there
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(cited)
    assert all("name" in author for author in cited["authors"])
    assert (cited["type"], cited["license"]) == ("software", "Apache-2.0")
    # the version is in one place, which is not this one
    assert "version" not in cited
