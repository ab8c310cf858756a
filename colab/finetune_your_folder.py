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
# # Fine-tune on a folder of your own
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/fmjax/fmjax/blob/main/colab/finetune_your_folder.ipynb)
#
# | device | minutes | what you get |
# |---|---|---|
# | T4, or a CPU | 3 on a CPU; within 10 on a T4 with CLIP ViT-B/16 and 1,000 pictures | a trained classifier, its report, and the classes of new pictures |

# %%
import importlib.util

if importlib.util.find_spec("fmjax") is None:
    get_ipython().run_line_magic("pip", "install -q git+https://github.com/fmjax/fmjax")

# %% [markdown]
# A folder for each class is all that is asked of the data. Those of one folder are divided into training and held-out pictures, the same part
# of every class; or bring `train/` and `val/` with these inside. On Colab, drag a zip into the files on the left, and `!unzip -q pictures.zip`.

# %%
NAME = "demo_vit_ti4.fashion_mnist"  # on a T4: "ViT-B-16.openai" or "dinov2_vits14.lvd142m"
FOLDER = "pictures"
STEPS = 60
BATCH = 32

# %% [markdown]
# ## Pictures
#
# Here 500 handwritten digits, of a size that a camera would not have. Skip this cell for a folder of your own.

# %%
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
for number in range(500):
    path = Path(FOLDER, str(digits.target[number]), f"{number:03}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray((digits.images[number] * 15).astype(np.uint8))
    picture.resize((32, 32)).save(path)

# %% [markdown]
# What would stop a run, and which scores not to believe: pictures that cannot be read, doubles, doubles in both parts.

# %%
from fmjax.cli import main

main(["data", "check", f"folder:{FOLDER}"])

# %% [markdown]
# ## A run
#
# A preset with changes. Running the cell again goes on from the last checkpoint; the dtype is chosen by the device, float16 on a T4.

# %%
from dataclasses import replace

from fmjax.config import DataConfig, ModelConfig, Recipe, load_preset
from fmjax.programs.finetune import finetune

config = replace(
    load_preset("finetune_clip_b16"),
    out="runs/mine",
    model=ModelConfig(name=NAME),
    data=DataConfig(source=f"folder:{FOLDER}", crop_scale=0.8, flip=0.0),
    recipe=Recipe(lr=1e-3, warmup_steps=10),
    steps=STEPS,
    batch_size=BATCH,
    eval_every=STEPS // 2,
    save_every=STEPS // 2,
)
scores = finetune(config)
f"{scores['accuracy']:.1%} of the held-out pictures"

# %% [markdown]
# ## The report
#
# `runs/mine/report.html` is one page that can be sent as it is: curves, confusions, mistakes with their pictures, calibration.

# %%
from IPython.display import IFrame
from IPython.display import Image as Picture

IFrame("runs/mine/report.html", width="100%", height=500)

# %%
Picture("runs/mine/confusion.png", width=400)

# %% [markdown]
# ## New pictures
#
# The run knows its classes and how its pictures are prepared.

# %%
import fmjax

model = fmjax.restore("runs/mine")
new = [(digits.images[number] * 15).astype(np.uint8) for number in range(500, 508)]
answers = model.predict([np.repeat(pixels[..., None], 3, -1) for pixels in new])
[(answer.classes[0], round(answer.probabilities[0], 2)) for answer in answers]

# %%
right = [
    answer.classes[0] == str(truth)
    for answer, truth in zip(answers, digits.target[500:508], strict=True)
]
f"{sum(right)} of {len(right)} are right"
