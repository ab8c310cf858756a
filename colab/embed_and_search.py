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
# # Embed pictures, and search them by a picture
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/fmjax/fmjax/blob/main/colab/embed_and_search.ipynb)
#
# | device | minutes | what you get |
# |---|---|---|
# | CPU or any GPU | 1 | embeddings of a folder, and for a picture those most like it |

# %%
import importlib.util

if importlib.util.find_spec("fmjax") is None:
    get_ipython().run_line_magic("pip", "install -q git+https://github.com/fmjax/fmjax")

# %% [markdown]
# The network that ships inside the package makes this run anywhere, also without a network. With a hub in reach, another name is all it takes:
# `dinov2_vits14.lvd142m`, `ViT-B-16.openai`, `ViT-B-16-SigLIP2.webli`.

# %%
NAME = "demo_vit_ti4.fashion_mnist"
FOLDER = "pictures"  # yours may have folders in it, and any format that Pillow reads

# %% [markdown]
# ## Pictures
#
# Here 600 handwritten digits, as files. Skip this cell for a folder of your own.

# %%
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
Path(FOLDER).mkdir(exist_ok=True)
for number in range(600):
    pixels = (digits.images[number] * 15).astype(np.uint8)
    Image.fromarray(pixels).save(f"{FOLDER}/{number:03}_is_{digits.target[number]}.png")

# %% [markdown]
# ## Embeddings
#
# `preprocess` does what these very weights were trained with. A batch of one size is compiled once.

# %%
import jax

import fmjax

model = fmjax.load(NAME)
config = fmjax.preprocess_config(model)
paths = sorted(Path(FOLDER).rglob("*.png"))


@jax.jit
def embedding(model, images):
    pooled = model(images).pooled
    return pooled / jax.numpy.linalg.norm(pooled, axis=-1, keepdims=True)


parts = [paths[start : start + 100] for start in range(0, len(paths), 100)]
found = np.concatenate(
    [np.asarray(embedding(model, fmjax.preprocess(part, config))) for part in parts]
)
found.shape

# %% [markdown]
# A folder larger than memory is for the command, which writes in parts and, run again, goes on where it was:
# `fmjax embed demo_vit_ti4.fashion_mnist pictures --out pictures.parquet`.

# %% [markdown]
# ## Search
#
# Of vectors of length 1 the product is the cosine.

# %%
QUERIES = (0, 1, 2, 3)
likeness = found[list(QUERIES)] @ found.T
nearest = np.argsort(-likeness, axis=1)[:, :8]  # the first is the picture itself

# %%
from matplotlib import pyplot as plt

figure, axes = plt.subplots(len(QUERIES), 8, figsize=(8, 4))
for row, places in zip(axes, nearest, strict=True):
    for axis, place in zip(row, places, strict=True):
        axis.imshow(Image.open(paths[place]), cmap="gray")
        axis.set_axis_off()
plt.show()

# %%
same = digits.target[nearest[:, 1:]] == digits.target[nearest[:, :1]]
f"{same.mean():.0%} of the neighbours are the same digit"
