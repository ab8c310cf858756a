# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Segment with a linear head
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/fmjax/fmjax/blob/main/colab/segment_linear.ipynb)
#
# | device | minutes | what you get |
# |---|---|---|
# | CPU or any GPU | 2 | a class for every pixel, by one linear layer over the patches of a frozen backbone |

# %%
import importlib.util

if importlib.util.find_spec("fmjax") is None:
    get_ipython().run_line_magic("pip", "install -q git+https://github.com/fmjax/fmjax")

# %% [markdown]
# `masks:DIR` is a folder with `images/`, `masks/` of the same names, whose pixels are the numbers of classes (255: of none), and `classes.txt`.
# The network inside the package makes this run anywhere; `dinov2_vits14.lvd142m` with `SIZE = (224, 224)` is the one for photographs.

# %%
NAME = "demo_vit_ti4.fashion_mnist"
FOLDER = "scenes"
SIZE = (48, 48)  # pixels, multiples of the patch
STEPS = 80

# %% [markdown]
# ## Pictures with masks
#
# Here drawn ones: a disc and a square on noise. Skip this cell for a folder of your own.

# %%
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = np.asarray([(90, 90, 90), (200, 60, 40), (40, 70, 210)])
rng = np.random.default_rng(0)


def scene():
    rows, columns = np.mgrid[:48, :48]
    mask = np.zeros((48, 48), np.uint8)
    for kind in (1, 2):
        row, column, radius = rng.integers(10, 38), rng.integers(10, 38), rng.integers(6, 11)
        away = np.abs(rows - row), np.abs(columns - column)
        distance = np.hypot(*away) if kind == 1 else np.maximum(*away)
        mask[distance < radius] = kind
    return mask


for kind in ("images", "masks"):
    Path(FOLDER, kind).mkdir(parents=True, exist_ok=True)
Path(FOLDER, "classes.txt").write_text("background\ndisc\nsquare\n")
for number in range(60):
    mask = scene()
    pixels = np.clip(COLOURS[mask] + rng.normal(0, 20, (48, 48, 3)), 0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(f"{FOLDER}/images/{number:02}.png")
    Image.fromarray(mask).save(f"{FOLDER}/masks/{number:02}.png")

# %% [markdown]
# ## A run
#
# `segment_linear` leaves the backbone as it is: only the layer has gradients.

# %%
from dataclasses import replace

from fmjax.config import DataConfig, ModelConfig, SegmentConfig, load_preset
from fmjax.programs.finetune import finetune

preset = load_preset("segment_linear")
config = replace(
    preset,
    out="runs/scenes",
    model=ModelConfig(name=NAME, image_size=SIZE),
    data=DataConfig(source=f"masks:{FOLDER}"),
    task=SegmentConfig(layers=2, scales=(0.8, 1.25)),
    recipe=replace(preset.recipe, lr=1e-2),
    steps=STEPS,
    batch_size=8,
    eval_every=STEPS,
    save_every=STEPS,
)
scores = finetune(config)
f"mean IoU {scores['miou']:.1%}, {scores['pixel_accuracy']:.1%} of the pixels"

# %% [markdown]
# ## What it found
#
# Held-out pictures, as they were marked and as they were found; `runs/scenes/report.html` has the worst.

# %%
from IPython.display import Image as Picture

Picture("runs/scenes/predictions.png", width=500)
