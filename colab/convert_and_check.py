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
# # Convert a checkpoint, and check it
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/fmjax/fmjax/blob/main/colab/convert_and_check.ipynb)
#
# | device | minutes | what you get |
# |---|---|---|
# | CPU | 1 | a file of PyTorch's names as a JAX model, proof that nothing of it was lost, and the way back |

# %%
import importlib.util

if importlib.util.find_spec("fmjax") is None:
    get_ipython().run_line_magic("pip", "install -q git+https://github.com/fmjax/fmjax")

# %% [markdown]
# Files of 30 dialects are read (timm, open_clip, transformers, DINOv2, EVA, SigLIP's .npz and others), without torch and without running code
# of theirs. Every tensor is accounted for, or one report names all that does not fit; there is no `strict=False`.

# %%
NAME = "demo_vit_ti4.fashion_mnist"  # which architecture it is, and which activation and statistics
FILE = "timm.safetensors"  # yours: .safetensors, .pt, .pth, .bin, .ckpt or .npz

# %% [markdown]
# ## A file
#
# Here the network of the package, in timm's names. Skip this cell for a file of your own.

# %%
import fmjax

fmjax.export(fmjax.load(NAME), FILE, dialect="timm")

# %% [markdown]
# ## What is in it
#
# Read without torch, and without running what a file may say is to be run.

# %%
from weights_conversion.readers import open_checkpoint

tensors = open_checkpoint(FILE).tensors
{name: tensors[name].shape for name in sorted(tensors)[:6]}

# %% [markdown]
# ## There and back, bit by bit

# %%
from fmjax.programs.convert import convert, verify

verify(NAME, checkpoint=FILE)

# %% [markdown]
# ## The same numbers?
#
# A model from the file, and one from the published weights. With timm at hand, hold them against
# `timm.create_model(..., checkpoint_path=FILE)`: docs/parity.md has that comparison for every backbone.

# %%
import jax
import numpy as np

images = jax.random.uniform(jax.random.key(0), (2, 28, 28, 3), minval=-1)
run = jax.jit(lambda model, images: model(images).patches)
ours, published = run(fmjax.load(NAME, checkpoint=FILE), images), run(fmjax.load(NAME), images)
difference = float(np.abs(ours - published).max())
f"the largest difference of any patch: {difference}"

# %% [markdown]
# ## What does not fit is said, all of it at once
#
# A file that lacks a tensor and has one too many.

# %%
from safetensors.numpy import load_file, save_file

tensors = load_file(FILE)
tensors["blocks.0.attn.q_norm.weight"] = tensors.pop("blocks.0.norm1.weight")
save_file(tensors, "wrong.safetensors")
try:
    fmjax.load(NAME, checkpoint="wrong.safetensors")
except fmjax.CheckpointError as error:
    refusal = str(error)
print(refusal)

# %% [markdown]
# ## In fmjax's own names, and back in PyTorch's
#
# The converted file says itself which model and dialect it is of.

# %%
convert(NAME, FILE, "ours.safetensors", force=True)
fmjax.export(fmjax.load(NAME, checkpoint="ours.safetensors"), "back.safetensors", dialect="timm")
back = load_file("back.safetensors")
original = load_file(FILE)
all(np.array_equal(back[name], original[name]) for name in original), len(back) == len(original)
