# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # fmjax: from a name to embeddings to a fine-tuned model
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/fmjax/fmjax/blob/main/colab/quickstart.ipynb)
#
# | device | minutes | what you get |
# |---|---|---|
# | CPU or any GPU | 2 | embeddings, a fine-tuned model, and that model again in JAX and in timm's names |
#
# Everything here runs without a model hub: the demo weights ship inside the package. Swap the name for `ViT-B-16.openai`, `dinov2_vits14.lvd142m` or `EVA02-B-16.merged2b_s8b_b131k` where the hub can be reached.

# %%
import importlib.util

if importlib.util.find_spec("fmjax") is None:
    get_ipython().run_line_magic("pip", "install -q git+https://github.com/fmjax/fmjax")

# %% [markdown]
# ## What there is

# %%
import fmjax

fmjax.list_models("*dinov2*", pretrained=True)

# %% [markdown]
# ## A name to embeddings
#
# `load` accounts for every tensor of the file, or refuses it. `preprocess` does what these weights were trained with.

# %%
import jax
import numpy as np
from sklearn.datasets import load_digits

name = "demo_vit_ti4.fashion_mnist"
model = fmjax.load(name)
digits = load_digits()
pictures = np.repeat((digits.images[:64, ..., None] * 15).astype(np.uint8), 3, -1)
images = fmjax.preprocess(pictures, fmjax.preprocess_config(model))
features = jax.jit(lambda model, images: model(images))(model, images)
features.pooled.shape, features.patches.shape

# %% [markdown]
# How much do frozen features know of images they were never trained on?

# %%
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

score = cross_val_score(
    KNeighborsClassifier(1), np.asarray(features.pooled), digits.target[:64], cv=4
).mean()
f"1-NN accuracy on 64 digits: {score:.0%}"

# %% [markdown]
# ## Embeddings to a fine-tuned model
#
# A run is a preset with changes. Running the same cell again resumes from the last checkpoint.

# %%
from dataclasses import replace

from fmjax.config import load_preset
from fmjax.programs.finetune import finetune

preset = load_preset("quickstart")
config = replace(
    preset,
    out="runs/notebook",
    steps=40,
    batch_size=32,
    eval_every=40,
    save_every=40,
    compare_random=False,
)
scores = finetune(config)
f"{scores['accuracy']:.1%} of held-out digits"

# %%
from PIL import Image

Image.open("runs/notebook/confusion.png")

# %% [markdown]
# ## The model back out
#
# The run's folder holds a safetensors file in timm's names; in JAX, `restore` brings the model back, classifier included.

# %%
tuned = fmjax.restore("runs/notebook")
logits = tuned(images).logits
f"{(logits.argmax(-1) == digits.target[:64]).mean():.0%} of these 64"
