"""Eight simulated devices, a compilation cache, shape checks, and the real things that tests rest on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

CACHE = Path(os.environ.get("FMJAX_TEST_CACHE", Path.home() / ".cache" / "fmjax-tests"))
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
)
# threads of XLA's pool, of which it has one for each device by default: a device may wait in two exchanges at once, and
# then another has no thread left to come to them
os.environ.setdefault("NPROC", str(max(16, os.cpu_count() or 1)))
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")

from jaxtyping import install_import_hook

from tests.support import shaped

# of what says shapes: checking every other call would be a quarter of the time of tests that run whole commands
install_import_hook(shaped.modules(), "beartype.beartype")

import pytest
from filelock import FileLock

from tests.support import real_images, real_towers


def pytest_addoption(parser):
    parser.addoption(
        "--authors",
        metavar="DIR",
        type=Path,
        help="compare with the authors' own code, of which DIR holds checkouts",
    )
    parser.addoption(
        "--write-golden",
        action="store_true",
        help="write the texts of tests/golden anew, as the commands say them now",
    )


def pytest_configure(config):
    if config.getoption("authors") is not None:
        from tests.parity.authors.compare import available

        try:
            available(config.getoption("authors"))
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_ignore_collect(collection_path, config):
    """Without the authors' code there is nothing to collect, so that nothing is skipped."""
    return (
        True
        if collection_path.name == "test_authors.py" and config.getoption("authors") is None
        else None
    )


@pytest.fixture(scope="session")
def caches(tmp_path_factory) -> Iterator[Path]:
    """Folders that are not there yet. pytest's own numbering reads the names of all earlier ones, for thousands of
    tests."""
    inside = tmp_path_factory.mktemp("fmjax_caches")
    return (inside / str(number) for number in count())


@pytest.fixture(autouse=True)
def own_cache(caches, monkeypatch) -> Path:
    """A cache folder of its own for every test: what one records binds no other, nor its user."""
    folder = next(caches)
    folder.mkdir()
    monkeypatch.setenv("FMJAX_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def quick_compiler() -> Iterator[None]:
    """XLA is quick, in half of its time, rather than its programs, for a module whose programs run once each."""
    import jax

    # what is compiled in memory is not told apart by it: bits of a module would depend on which came before
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


@pytest.fixture(scope="session")
def clip_tower() -> Path:
    """OpenAI's CLIP ViT-B/16 image tower: a folder with the open_clip and the Hugging Face file."""
    return _have(lambda: real_towers.clip_vit_b16(CACHE))


@pytest.fixture(scope="session")
def dinov2_tower() -> Path:
    """DINOv2 ViT-S/14, fine-tuned for saliency: a folder with its tensors, its decoder and the ONNX graph."""
    return _have(lambda: real_towers.dinov2_vits14(CACHE))


@pytest.fixture(scope="session")
def stamps(tmp_path_factory) -> Path:
    """Photographs of 12 kinds of things, one folder a class."""
    return _have(lambda: real_images.stamps_folder(tmp_path_factory.mktemp("stamps")))


def _have(make) -> Path:
    try:
        # one of the processes that test makes them
        with FileLock(CACHE / ".lock"):
            return make()
    except (real_towers.Unavailable, real_images.Unavailable) as error:
        return pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where nothing may be skipped, a skip is a failure with the same reason."""
    report = yield
    if report.skipped and os.environ.get("FMJAX_FORBID_SKIPS"):
        report.outcome = "failed"
    return report
