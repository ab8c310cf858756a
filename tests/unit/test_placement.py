"""What of a batch goes to the devices."""

from __future__ import annotations

import types

import jax
import numpy as np
import pytest

from fmjax.config.run import MeshConfig
from fmjax.engine.placement import idle_gpu, on_mesh, simulate_devices
from fmjax.errors import UsageError
from fmjax.sharding import make_mesh


def test_all_that_a_step_computes_with_is_spread_and_what_is_for_a_person_stays():
    batch = {
        "image": np.zeros((8, 4, 4, 3), np.uint8),
        "mask": np.full((8, 4, 4), 65_535, np.uint16),
        "label": np.arange(8, dtype=np.int32),
        "weight": np.ones(8, np.float32),
        "index": np.arange(8, dtype=np.int32),
        "reason": np.full(8, "", "U200"),
    }
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    placed = on_mesh(batch, mesh)
    assert set(placed) == {"image", "mask", "label", "weight"}
    for name, array in placed.items():
        assert isinstance(array, jax.Array)
        assert array.dtype == batch[name].dtype
        assert array.addressable_shards[0].data.shape[0] == 2  # tensor has no part in it
        assert np.array_equal(array, batch[name])


def test_devices_are_simulated_before_they_start_and_refused_after_that():
    simulate_devices(0)
    simulate_devices(len(jax.devices()))  # those that there are
    with pytest.raises(UsageError, match=r"--simulate-devices 4 comes too late: .* 8 CPU devices"):
        simulate_devices(4)


def test_devices_are_simulated_on_cpus_only(monkeypatch):
    cards = [types.SimpleNamespace(platform="gpu")] * 2
    monkeypatch.setattr(jax, "local_devices", lambda: cards)
    with pytest.raises(UsageError, match="2 devices of gpu; set JAX_PLATFORMS=cpu"):
        simulate_devices(2)


def test_a_gpu_that_is_not_computed_on_is_said_unless_that_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert idle_gpu(MeshConfig(), tmp_path) == []
    (tmp_path / "nvidia0").touch()
    [line] = idle_gpu(MeshConfig(), tmp_path)
    assert line.endswith(
        "an NVIDIA GPU is there, and jax computes on the CPU; `fmjax doctor` says why"
    )
    assert idle_gpu(MeshConfig(simulate_devices=8), tmp_path) == []
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert idle_gpu(MeshConfig(), tmp_path) == []
