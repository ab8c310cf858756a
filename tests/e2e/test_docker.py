"""The images of docker/: linted, and each line that builds or installs run, with a folder in the place of the root."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import fmjax

ROOT = Path(__file__).parents[2]
CPU, CUDA = (ROOT / "docker" / f"{kind}.Dockerfile" for kind in ("cpu", "cuda"))
# a folder of the image where a line of it names one by its whole path
PLACES = re.compile(r"(?<![\w.:/])/(?=(?:src|wheel|opt|work|cache)\b)")
UNREACHED = ("Failed to establish a new connection", "Name or service not known")


def instructions(path: Path) -> Iterator[tuple[str, str]]:
    """(instruction, what is behind it) of a Dockerfile, its continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, rest = line.partition(" ")
            yield name, rest.strip()


class Image:
    """What a Dockerfile makes of a folder that stands for the root, by the programs of an environment."""

    def __init__(self, root: Path, programs: Path) -> None:
        self.root, self.place = root, root
        # a checkout that stands there would be imported before what is installed
        self.env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        # the same files, of which only those that are imported are compiled
        self.env["PIP_NO_COMPILE"] = "1"
        self.env["PATH"] = f"{programs}{os.pathsep}{self.env['PATH']}"
        self.start: list[str] = []
        self.asked: list[str] = []

    def here(self, text: str) -> str:
        return PLACES.sub(f"{self.root}/", text)

    def build(self, path: Path, *, dry: bool = False) -> list[str]:
        """Follows a file to its end, and returns what its lines have said. dry: install nothing, but find all of it."""
        said = []
        for name, rest in instructions(path):
            if name == "WORKDIR":
                self.place = Path(self.here(rest))
                self.place.mkdir(parents=True, exist_ok=True)
            elif name == "COPY":
                self.copy(*shlex.split(rest))
            elif name == "RUN" and "pip " in rest:
                line = rest.replace("pip install", "pip install --dry-run") if dry else rest
                said.append(self.run(line))
            elif name == "ENV":
                self.env |= dict(word.split("=", 1) for word in shlex.split(self.here(rest)))
            elif name == "ENTRYPOINT":
                self.start = json.loads(rest)
            elif name == "CMD":
                self.asked = json.loads(rest)
        return said

    def copy(self, *words: str) -> None:
        # a folder's content is what is copied, and files go into a folder that ends in a slash
        *sources, target = words
        place = self.place / self.here(target)
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, symlinks=True, dirs_exist_ok=True)
                continue
            file = place / source if target.endswith("/") else place
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, file)

    def run(self, line: str) -> str:
        """What a line of a shell says, which has to end well."""
        # a folder of an earlier stage lies where it is mounted
        shell = self.here(re.sub(r"^(--mount=\S+\s+)+", "", line))
        found = self.done(["sh", "-ec", shell])
        if found.returncode and any(word in found.stderr for word in UNREACHED):
            pytest.skip("pip reaches no package index")
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout

    def done(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=self.place, env=self.env
        )


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """The programs of a new environment, whose pip is as new as that of the images' Python."""
    home = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    return home / "bin"


@pytest.fixture(scope="module")
def cpu(environment, tmp_path_factory) -> Image:
    image = Image(tmp_path_factory.mktemp("cpu"), environment)
    image.run("pip install --quiet --upgrade pip")
    image.build(CPU)
    return image


@pytest.mark.parametrize("path", [CPU, CUDA], ids=lambda path: path.stem)
def test_a_dockerfile_passes_the_linter_and_names_what_there_is(path):
    linter = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([linter, path], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")
    copied = [rest.split()[:-1] for name, rest in instructions(path) if name == "COPY"]
    assert len(copied) == 5
    names = {name for names in copied for name in names}
    assert all((ROOT / name).exists() for name in names)
    # what a wheel is built from is there: all that pyproject.toml and MANIFEST.in speak of
    assert {"pyproject.toml", "README.md", "LICENSE", "configs"} <= names
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = re.findall(r'"fmjax(?:\[(\w+)\])? @ ', path.read_text())
    assert len(asked) == 1
    assert set(filter(None, asked)) <= set(extras["optional-dependencies"])


def test_there_is_a_dockerfile_for_each_kind_of_machine():
    assert sorted((ROOT / "docker").glob("*Dockerfile*")) == [CPU, CUDA]


def test_what_the_image_of_a_cpu_installs_is_all_that_it_starts(cpu):
    # as a container starts it, in its folder and with its variables
    found = cpu.done([*cpu.start, *cpu.asked])
    assert (found.returncode, cpu.place.name) == (0, "work")
    assert found.stdout.startswith("fmjax: vision foundation backbones in JAX")
    assert cpu.done([*cpu.start, "--version"]).stdout.startswith(f"fmjax {fmjax.__version__} (jax ")
    # a network that comes with it, asked about pictures
    out = cpu.place / "x.npz"
    flags = ("demo_vit_ti4.fashion_mnist", "--data.source", "digits", "--out", str(out))
    found = cpu.done([*cpu.start, "embed", *flags])
    assert f"1,797 embeddings of width 96 in {out}" in found.stdout, found.stderr
    where = "import fmjax, os; print(fmjax.__file__, os.environ['FMJAX_CACHE'])"
    file, cache = cpu.done(["python", "-c", where]).stdout.split()
    assert not Path(file).is_relative_to(ROOT)
    assert cache == f"{cpu.root}/cache/fmjax"


def test_the_server_that_lies_in_the_image_starts_there(cpu):
    # all that it imports is there before it looks for its run
    found = cpu.done(["python", cpu.here("/opt/fmjax/serve.py"), "nothing"])
    assert found.returncode == 1
    assert "nothing is not the folder of a run" in found.stderr


def test_what_the_image_of_a_gpu_installs_is_found_and_agrees(cpu, environment, tmp_path):
    # two gigabytes for a device that is not here: all but their installation
    *_, said = Image(tmp_path, environment).build(CUDA, dry=True)
    [line] = re.findall("^Would install (.*)$", said, re.MULTILINE)
    asked = ["python", "-c", "import jax; print(jax.__version__)"]
    version = cpu.done(asked).stdout.strip()
    assert f"jax-cuda13-plugin-{version}" in line.split()
    assert {"nvidia-cublas", "nvidia-cudnn-cu13"} <= {
        word.rpartition("-")[0] for word in line.split()
    }
