"""A BatchNorm before a dense head, against torch's own, in training and after it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import torch

from fmjax.engine.step import MOMENTUM
from fmjax.models.dense import BatchNorm, statistics


def test_it_is_torchs_batch_norm_in_training_and_in_evaluation():
    rng = np.random.default_rng(0)
    reference = torch.nn.BatchNorm2d(6)
    norm = BatchNorm(6)
    scale, bias = (
        rng.uniform(0.5, 1.5, 6).astype(np.float32),
        rng.standard_normal(6).astype(np.float32),
    )
    norm.scale[...], norm.bias[...] = jnp.asarray(scale), jnp.asarray(bias)
    with torch.no_grad():
        reference.weight.copy_(torch.from_numpy(scale))
        reference.bias.copy_(torch.from_numpy(bias))

    mean, var = np.zeros(6, np.float32), np.ones(6, np.float32)
    for _ in range(3):
        x = (rng.standard_normal((4, 5, 7, 6)) * 3 + 1).astype(np.float32)
        batch = statistics(jnp.asarray(x), jnp.ones(4))
        expected = (
            reference(torch.from_numpy(x.transpose(0, 3, 1, 2)))
            .detach()
            .numpy()
            .transpose(0, 2, 3, 1)
        )
        np.testing.assert_allclose(norm(jnp.asarray(x), batch[0], batch[1]), expected, atol=2e-5)
        # what the step does with what the loss says
        mean = MOMENTUM * mean + (1 - MOMENTUM) * np.asarray(batch[0])
        var = MOMENTUM * var + (1 - MOMENTUM) * np.asarray(batch[2])
    np.testing.assert_allclose(mean, reference.running_mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(var, reference.running_var.numpy(), rtol=1e-5)

    reference.eval()
    expected = (
        reference(torch.from_numpy(x.transpose(0, 3, 1, 2))).detach().numpy().transpose(0, 2, 3, 1)
    )
    np.testing.assert_allclose(
        norm(jnp.asarray(x), jnp.asarray(mean), jnp.asarray(var)), expected, atol=2e-5
    )


def test_what_could_not_be_read_is_no_part_of_the_statistics():
    x = np.random.default_rng(0).standard_normal((4, 2, 2, 3)).astype(np.float32)
    blank = np.concatenate([x, np.full_like(x[:2], 100)])
    weight = jnp.asarray([1.0, 1, 1, 1, 0, 0])
    for one, other in zip(
        statistics(jnp.asarray(x), jnp.ones(4)), statistics(jnp.asarray(blank), weight), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
