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
# # What the network sees: patch features as colours, and attention
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/fmjax/fmjax/blob/main/colab/patches_and_attention.ipynb)
#
# | device | minutes | what you get |
# |---|---|---|
# | CPU or any GPU | 1 | DINOv2's figure of coloured patches, and what the class token attends to, for your pictures |

# %%
import importlib.util

if importlib.util.find_spec("fmjax") is None:
    get_ipython().run_line_magic("pip", "install -q git+https://github.com/fmjax/fmjax")

# %% [markdown]
# The network inside the package runs anywhere, and has seen clothes of 28 pixels only. DINOv2 is the one to look at where a hub can be
# reached: `dinov2_vits14.lvd142m`, or `dinov2_vitl14_reg.lvd142m`, and `SIDE = 448`.

# %%
NAME = "demo_vit_ti4.fashion_mnist"
CHECKPOINT = None  # a file of these weights, where no hub can be reached
SIDE = 96  # pixels, a multiple of the patch

# %% [markdown]
# ## Pictures
#
# Two photographs that come with scikit-learn, each in two cuts; put paths or PIL images of your own in their place.

# %%
from PIL import Image
from sklearn.datasets import load_sample_images

photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
pictures = [
    photograph.crop((left, 0, left + 427, 427)) for photograph in photographs for left in (0, 213)
]

# %% [markdown]
# ## Features of the patches

# %%
import jax
import numpy as np

import fmjax

model = fmjax.load(NAME, checkpoint=CHECKPOINT)
config = fmjax.preprocess_config(model, image_size=SIDE)
images = fmjax.preprocess(pictures, config)
out = jax.jit(lambda model, images: model(images))(model, images)
out.patches.shape

# %% [markdown]
# The first component of all patches tells the foreground from the background; three components of the foreground are red, green and blue
# ([arXiv:2304.07193](https://arxiv.org/abs/2304.07193), figure 1). The basis is that of all pictures together, so that a colour is the same
# kind of thing in each, and the same features give the same colours every time.

# %%
from fmjax.report.patches import heat, patch_maps

maps = patch_maps(np.asarray(out.patches, np.float32))
f"{maps.foreground.mean():.0%} of the patches are foreground; the colours show {maps.explained:.0%} of their variance"

# %% [markdown]
# ## Attention of the class token
#
# In the last layer, a map for each head.

# %%
from fmjax.models.attention import class_attention

weights, attention = jax.jit(class_attention)(model, images)
attention.shape  # pictures, heads, rows, columns

# %%
from matplotlib import pyplot as plt

figure, axes = plt.subplots(len(pictures), 3, figsize=(6, 2 * len(pictures)))
for row, picture, colours, heads in zip(axes, pictures, maps.colours, attention, strict=True):
    for axis, shown in zip(row, (picture, colours, heat(np.asarray(heads.mean(0)))), strict=True):
        axis.imshow(shown)
        axis.set_axis_off()
plt.show()
