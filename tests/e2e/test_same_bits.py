"""What must change no bit of a run: threads, intervals, a cache of compiled programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import fmjax
from fmjax.config.presets import load_preset
from fmjax.config.run import RunConfig
from fmjax.programs.finetune import finetune
from fmjax.trees import flat
from tests.support.runs import losses, rows


def config(out: Path, **options) -> RunConfig:
    preset = load_preset("quickstart")
    short = {"steps": 4, "batch_size": 16, "eval_every": 2, "save_every": 2, "log_every": 1}
    same = {"drop_path": 0.1, "compare_random": False, "export": "none"}
    return replace(preset, out=str(out), **{**short, **same, **options})


def params(run: Path) -> dict[str, bytes]:
    last = flat(fmjax.restore(run, 4))
    return {path: np.asarray(leaf).tobytes() for path, leaf in last.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    finetune(config(out))
    return out


DATA = load_preset("quickstart").data
CHANGES = {
    "nothing": {},
    "1 thread": {"data": replace(DATA, threads=1)},
    "4 threads": {"data": replace(DATA, threads=4)},
    "intervals": {"log_every": 3, "eval_every": 3, "save_every": 3, "keep": 1},
    "determinism asked for": {"deterministic": True},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_has_the_same_bits_with_another(change, run, tmp_path):
    finetune(config(tmp_path / "other", **CHANGES[change]))
    found, expected = losses(tmp_path / "other"), losses(run)
    assert found[-1] == expected[-1]
    assert set(found) <= set(expected)
    assert scores(tmp_path / "other") == scores(run)
    assert params(tmp_path / "other") == params(run)


def scores(run: Path) -> dict[str, float]:
    """Of the last step."""
    return {name: value for name, value in rows(run)[-1].items() if name.startswith("val_")}


def test_a_run_has_the_same_bits_with_a_cold_and_a_warm_cache(run, tmp_path):
    cache, made = tmp_path / "cache", []
    changed = {
        "jax_compilation_cache_dir": str(cache),
        "jax_persistent_cache_min_compile_time_secs": 0.2,
    }
    before = {name: getattr(jax.config, name) for name in changed}
    try:
        for name, value in changed.items():
            jax.config.update(name, value)
        for name in ("cold", "warm"):
            jax.clear_caches()
            compilation_cache.reset_cache()
            finetune(config(tmp_path / name))
            made.append({path.name for path in cache.glob("*step*-cache")})
            assert losses(tmp_path / name) == losses(run)
            assert params(tmp_path / name) == params(run)
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
    # the step was compiled once
    assert len(made[0]) == 1
    assert made[0] == made[1]
