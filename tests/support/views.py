"""Views that worker processes import: this file names no JAX."""

from __future__ import annotations

import sys
import time

import numpy as np

from fmjax.config.data import DataConfig
from fmjax.data.masks import WrongMask
from fmjax.data.transforms import Views
from fmjax.specs import PreprocessConfig

SMALL = PreprocessConfig(image_size=(16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
VIEW = Views(SMALL, DataConfig().crop_scale, DataConfig().flip)


def whether_jax(example, rng):
    return {"jax": np.bool_("jax" in sys.modules), **VIEW(example, rng)}


def wrong(example, rng):
    # a black picture is what a blank is made of
    if example["label"] == 1 and np.asarray(example["image"]).any():
        raise WrongMask("dog.png has a wrong mask")
    return VIEW(example, rng)


def slow(example, rng):
    time.sleep(0.05)
    return VIEW(example, rng)
