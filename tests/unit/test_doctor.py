"""`fmjax doctor`: every trouble is seen in the facts and has its fix, and the facts are those of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import fmjax
from fmjax.cli import main
from fmjax.programs import doctor, machine
from fmjax.programs.ailments import Finding, findings
from fmjax.programs.machine import Devices, Facts, Gpu, Place

GIB = 1 << 30
ROOM = Place(path="/home/a/.cache", free_bytes=100 * GIB)
CPU = Devices(platform="cpu", kinds=("cpu",), dtype="float32")
H100 = Gpu(name="NVIDIA H100", driver="580.65.06", memory_bytes=80 * GIB, used_bytes=0)
ON_GPU = Devices(platform="gpu", kinds=("NVIDIA H100",), dtype="bfloat16")
PLUGIN = {"jax-cuda13-plugin": "0.10.2"}
WELL = Facts(
    fmjax="0.1.0",
    python="3.12.1",
    system="Linux",
    packages={"jax": "0.10.2", "jaxlib": "0.10.2"},
    devices=CPU,
    model_cache=ROOM,
    hub_cache=ROOM,
    compile_cache=ROOM,
    hub="huggingface.co",
    cores=8,
    memory_bytes=64 * GIB,
    open_files=4096,
    shared_memory_bytes=32 * GIB,
)
CARD = {"gpus": (H100,), "device_files": ("/dev/nvidia0",)}


def of(**changes) -> list[Finding]:
    return findings(replace(WELL, **changes))


def variable(name: str, value: str) -> dict:
    return {"environment": {name: value}}


def test_a_machine_that_is_well_has_no_findings():
    assert of() == []
    assert of(**CARD, devices=ON_GPU, plugins=PLUGIN) == []


# what is wrong, then a part of what is said and of the fix
TROUBLES = [
    ({"unmet": ("grain>=0.2.12",)}, "grain is not installed", "pip install -U 'grain>=0.2.12'"),
    ({"unmet": ("jax>=0.11",)}, "jax 0.10.2 is installed; fmjax needs jax>=0.11", "'jax>=0.11'"),
    (
        {**CARD, "devices": ON_GPU, "plugins": {"jax-cuda12-plugin": "0.7.2"}},
        "jax-cuda12-plugin is 0.7.2 beside jax 0.10.2",
        "pip install -U 'jax[cuda12]==0.10.2'",
    ),
    ({"devices": Devices(error="no answer within 120 s")}, "jax does not start: no answer", "jax"),
    (
        {"devices": Devices(error="Unknown flag"), **variable("XLA_FLAGS", "--xla_x=1")},
        "jax does not start: Unknown flag",
        "unset XLA_FLAGS",
    ),
    (
        {"devices": Devices(error="no 'cuda'"), **variable("JAX_PLATFORMS", "cuda")},
        "jax does not start: no 'cuda'",
        "unset JAX_PLATFORMS",
    ),
    (CARD, "jax is its CPU build, without a plugin", "pip install -U 'jax[cuda13]'"),
    (
        {"gpus": (replace(H100, driver="550.54"),)},
        "NVIDIA H100 is there, and jax computes on the cpu",
        "pip install -U 'jax[cuda12]'",
    ),
    ({"gpus": (replace(H100, driver="470.1"),)}, "without a plugin", "driver of 525 or newer"),
    (
        {"device_files": ("/dev/nvidia0",), "smi": "nvidia-smi is not installed"},
        "/dev/nvidia0 is there, and nvidia-smi is not installed",
        "--gpus all",
    ),
    ({**CARD, "plugins": PLUGIN}, "its plugin does not start", "python -c 'import jax"),
    (
        {**CARD, "gpus": (replace(H100, driver="550.54"),), "plugins": PLUGIN},
        "jax-cuda13-plugin needs a driver of 580 or newer, and this one is 550",
        "pip install -U 'jax[cuda12]'",
    ),
    (
        {**CARD, "plugins": PLUGIN, **variable("LD_LIBRARY_PATH", "/usr/local/cuda/lib64")},
        "LD_LIBRARY_PATH puts other libraries before its own",
        "unset LD_LIBRARY_PATH",
    ),
    (
        {**CARD, "plugins": PLUGIN, **variable("JAX_PLATFORMS", "cpu")},
        "as JAX_PLATFORMS is 'cpu'",
        "unset JAX_PLATFORMS",
    ),
    (
        {**CARD, "plugins": PLUGIN, **variable("CUDA_VISIBLE_DEVICES", "")},
        "as CUDA_VISIBLE_DEVICES hides it",
        "unset CUDA_VISIBLE_DEVICES",
    ),
    ({"device_files": ("/dev/accel0",)}, "a TPU is there", "pip install -U 'jax[tpu]'"),
    ({"device_files": ("/dev/kfd",)}, "an AMD GPU is there", "jax[rocm]"),
    (
        {
            "gpus": (replace(H100, used_bytes=61 * GIB),),
            "devices": ON_GPU,
            "plugins": PLUGIN,
        },
        "61.0 GiB of 80.0 GiB of GPU 0 (NVIDIA H100) are taken by other processes",
        "CUDA_VISIBLE_DEVICES",
    ),
    (variable("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.2"), "leaves a run 20% of a GPU's", "unset XLA"),
    (variable("XLA_PYTHON_CLIENT_MEM_FRACTION", "90"), "is '90', not a share", "unset XLA"),
    (variable("XLA_PYTHON_CLIENT_MEM_FRACTION", "all"), "is 'all', not a share", "unset XLA"),
    (variable("XLA_PYTHON_CLIENT_ALLOCATOR", "platform"), "every array asks", "unset XLA"),
    (variable("XLA_PYTHON_CLIENT_PREALLOCATE", "False"), "goes to pieces", "unset XLA"),
    (variable("JAX_DISABLE_JIT", "1"), "nothing is compiled", "unset JAX_DISABLE_JIT"),
    (variable("JAX_ENABLE_X64", "True"), "64-bit numbers", "unset JAX_ENABLE_X64"),
    (variable("JAX_DEBUG_NANS", "1"), "every step waits", "unset JAX_DEBUG_NANS"),
    (variable("CUDA_LAUNCH_BLOCKING", "1"), "every kernel is waited for", "unset CUDA"),
    (
        variable("XLA_FLAGS", "--xla_a=1 --xla_force_host_platform_device_count=8"),
        "XLA_FLAGS makes 8 devices of one CPU",
        "--simulate-devices",
    ),
    (
        {"model_cache": Place(path="/", wrong="/ cannot be written (Read-only file system)")},
        "fmjax's cache: / cannot be written",
        "set FMJAX_CACHE",
    ),
    ({"hub_cache": replace(ROOM, free_bytes=GIB)}, "the hub's cache has 1.07 GB free", "HF_HOME"),
    (
        {"compile_cache": Place(path="/", wrong="no")},
        "the compiler's cache: no",
        "set JAX_COMPILATION_CACHE_DIR",
    ),
    (
        {"hub_wrong": "huggingface.co:443 cannot be reached (refused): check the network"},
        "huggingface.co:443 cannot be reached (refused)",
        "check the network; files that were fetched elsewhere are taken by --checkpoint",
    ),
    ({"open_files": 256}, "a process may open 256 files", "ulimit -n 4096"),
    (
        {"shared_memory_bytes": 8 << 20},
        "room for 2 workers' rows at 518 x 518",
        "docker run --shm-size=2g, or --data.workers 2 at most",
    ),
]


@pytest.mark.parametrize(("changes", "what", "fix"), TROUBLES)
def test_a_trouble_is_one_line_with_its_fix(changes, what, fix):
    found = [finding for finding in of(**changes) if finding.severity == "trouble"]
    told = [finding for finding in found if what in finding.what and fix in finding.fix]
    assert len(told) == 1, found
    # the card that is not told by nvidia-smi is one that jax does not use, too
    assert len(found) <= 2
    assert "\n" not in told[0].what + told[0].fix


NOTES = [
    ({"compile_cache": None}, "nothing that is compiled is kept", "JAX_COMPILATION_CACHE_DIR"),
    ({"offline": "HF_HUB_OFFLINE"}, "the hub was not asked (HF_HUB_OFFLINE)", "leave that out"),
    ({"cpu_quota": 2.5}, "8 cores are seen, and the container may use 2.5", "at 2 or less"),
    ({"memory_limit_bytes": 4 * GIB}, "may use 4.0 GiB of 64.0 GiB", "fewer --data.workers"),
    (variable("XLA_FLAGS", "--xla_dump_to=/x"), "XLA_FLAGS is '--xla_dump_to=/x'", "unset it"),
    (
        {"devices": Devices(platform="gpu", kinds=("Tesla T4",), dtype="float16")},
        "Tesla T4 has no bfloat16",
        "--model.dtype float32",
    ),
]


@pytest.mark.parametrize(("changes", "what", "fix"), NOTES)
def test_what_is_worth_knowing_is_no_trouble(changes, what, fix):
    [found] = of(**changes)
    assert found.severity == "note"
    assert what in found.what
    assert fix in found.fix


def test_what_is_off_surprises_nobody():
    off = {"JAX_DISABLE_JIT": "0", "JAX_ENABLE_X64": "false", "XLA_FLAGS": ""}
    assert of(environment=off | {"XLA_PYTHON_CLIENT_PREALLOCATE": "true"}) == []
    assert of(environment={"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9"}) == []
    # a quota that is no less than the cores bounds nothing
    assert of(cpu_quota=8.0, memory_limit_bytes=64 * GIB) == []


def test_troubles_stand_before_notes():
    found = of(compile_cache=None, open_files=256)
    assert [finding.severity for finding in found] == ["trouble", "note"]


def test_a_container_s_bounds_are_the_least_of_its_groups(tmp_path):
    own, root = tmp_path / "own", tmp_path / "fs"
    (root / "a" / "b").mkdir(parents=True)
    own.write_text("0::/a/b\n")
    (root / "a" / "cpu.max").write_text("150000 100000\n")
    (root / "a" / "b" / "cpu.max").write_text("max 100000\n")
    (root / "a" / "b" / "memory.max").write_text("1073741824\n")
    (root / "a" / "memory.max").write_text("max\n")
    assert machine.cpu_quota(root, own) == 1.5
    assert machine.memory_limit(root, own) == GIB
    # the first version of control groups, without and with bounds
    old = tmp_path / "old"
    for name in ("cpu", "memory"):
        (old / name).mkdir(parents=True)
    (old / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (old / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (old / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    nowhere = tmp_path / "nowhere"
    assert machine.cpu_quota(old, nowhere) is machine.memory_limit(old, nowhere) is None
    (old / "cpu" / "cpu.cfs_quota_us").write_text("400000\n")
    assert machine.cpu_quota(old, nowhere) == 4


def smi(folder: Path, script: str) -> None:
    """An nvidia-smi that does this."""
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_cards_are_those_that_nvidia_smi_lists(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    smi(tmp_path, 'echo "NVIDIA A100, 550.54.15, 81920, 1024"; echo "MIG, 550.54.15, [N/A], 3"')
    (card, part), wrong = machine.nvidia()
    assert (card.name, card.driver, wrong) == ("NVIDIA A100", "550.54.15", "")
    assert (card.memory_bytes, card.used_bytes, part.memory_bytes) == (80 * GIB, GIB, 0)
    smi(tmp_path, "echo No devices were found; exit 6")
    assert machine.nvidia() == ((), "nvidia-smi fails (No devices were found)")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert machine.nvidia() == ((), "nvidia-smi is not installed")


def test_what_steers_is_shown_without_secrets():
    shown = machine.steering(
        {
            "XLA_FLAGS": "--xla_a=1",
            "HOME": "/root",
            "HF_TOKEN": "hf_1",
            "FMJAX_API_KEY": "k",
            "HTTPS_PROXY": "http://me:word@proxy:8080",
        }
    )
    assert shown == {"HTTPS_PROXY": "http://proxy:8080", "XLA_FLAGS": "--xla_a=1"}


def test_a_jax_that_is_ended_by_its_flags_is_a_fact(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "abacus")
    found = machine.looked()
    assert "abacus" in found.error
    assert found.kinds == ()


def test_a_page_says_what_is_wrong_and_ends_with_its_code(monkeypatch, capsys):
    facts = replace(WELL, open_files=256, extras={"cuda12": ("jax-cuda12-plugin",), "tpu": ()})
    monkeypatch.setattr(doctor, "gathered", lambda *, offline: facts)
    assert main(["doctor"]) == 7
    said = capsys.readouterr()
    assert "trouble  a process may open 256 files; fix: ulimit -n 4096" in said.out
    assert "cuda12 not here (pip install 'fmjax[cuda12]'), tpu here" in said.out
    assert "all is well" not in said.out
    assert said.err == "fmjax: 1 to mend; each has its fix behind it\n"
    assert main(["doctor", "--json"]) == 7
    told = json.loads(capsys.readouterr().out)
    assert not told["well"]
    assert told["findings"][0]["fix"] == "ulimit -n 4096"
    monkeypatch.setattr(doctor, "gathered", lambda *, offline: WELL)
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("result   all is well\n")


def test_this_machine_is_looked_at_without_jax_in_the_process():
    code = (
        "import sys; from fmjax.cli import main; code = main(['doctor', '--offline', '--json']); "
        "assert not {'jax', 'flax'} & set(sys.modules); sys.exit(code)"
    )
    plain = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=plain
    )
    told = json.loads(done.stdout)
    facts = told["facts"]
    assert done.returncode == (0 if told["well"] else 7), done.stderr
    assert facts["devices"]["platform"] == "cpu"
    assert facts["devices"]["dtype"] == "float32"
    kernel = "XLA's products: cuDNN runs on GPUs of NVIDIA, and not on 'cpu'"
    assert facts["devices"]["attention"] == kernel
    for part in ("norms", "activations"):
        assert facts["devices"][part].endswith("of compute capability 8.0, and not for 'cpu'")
    assert facts["unmet"] == []
    assert set(facts["extras"]) >= {"cuda12", "cuda13", "tpu"}
    assert facts["packages"]["jax"]
    assert facts["fmjax"] == fmjax.__version__
    assert facts["cores"] >= 1
    assert facts["model_cache"]["path"] == os.environ["FMJAX_CACHE"]
