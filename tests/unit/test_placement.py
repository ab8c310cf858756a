"""What of a batch goes to the devices."""

from __future__ import annotations

import jax
import numpy as np

from fmjax.engine.placement import on_mesh
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
