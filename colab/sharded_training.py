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
# # Sharded fine-tuning on 8 simulated devices
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/fmjax/fmjax/blob/main/colab/sharded_training.ipynb)
#
# | device | minutes | what you get |
# |---|---|---|
# | CPU | 2 | a model whose parameters are split over a mesh, a run on it, and losses that are the same on another mesh |

# %%
import importlib.util

if importlib.util.find_spec("fmjax") is None:
    get_ipython().run_line_magic("pip", "install -q git+https://github.com/fmjax/fmjax")

# %% [markdown]
# A CPU can play eight devices: what is true of the mesh here is true of eight GPUs, but for the speed. It must be said before JAX is used.

# %%
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

# %%
import jax

NAME = "demo_vit_ti4.fashion_mnist"
STEPS = 6
jax.devices()

# %% [markdown]
# ## Parameters are born where they lie
#
# Axes: `data` splits the pictures of a batch, `fsdp` pictures and parameters, `tensor` heads and hidden units. No device ever holds the
# whole of a kernel, not even while the file is read.

# %%
import fmjax

mesh = fmjax.make_mesh(data=2, fsdp=4)
model = fmjax.load(NAME, mesh=mesh)
kernel = model.blocks.mlp.up.kernel[...]
kernel.shape, kernel.sharding.spec, kernel.addressable_shards[0].data.shape

# %%
jax.debug.visualize_array_sharding(kernel[0])

# %% [markdown]
# ## A run on the mesh
#
# Two groups of four devices; each group has the whole of the model between its four.

# %%
from dataclasses import replace

from fmjax.config import DataConfig, MeshConfig, load_preset
from fmjax.programs.finetune import finetune

preset = replace(
    load_preset("quickstart"),
    data=DataConfig(source="digits", val_fraction=0.05),
    steps=STEPS,
    batch_size=16,
    eval_every=STEPS,
    save_every=STEPS,
    log_every=1,
    compare_random=False,
    export="none",
    report=False,
)
scores = finetune(replace(preset, out="runs/split", mesh=MeshConfig(data=2, fsdp=4)))
f"{scores['accuracy']:.1%} of held-out digits after {STEPS} steps"

# %% [markdown]
# ## Losses are those of any mesh
#
# The same with eight whole copies.

# %%
scores = finetune(replace(preset, out="runs/copies", mesh=MeshConfig(data=8)))

# %%
import json
from pathlib import Path


def losses(run):
    rows = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


pairs = list(zip(losses("runs/split"), losses("runs/copies"), strict=True))
worst = max(abs(one - other) / other for one, other in pairs)
f"{len(pairs)} steps; the largest difference of a loss is {worst:.1e} of it"

# %% [markdown]
# ## A checkpoint goes on on any other mesh
#
# What a run would take of memory, operations and exchange is said by `fmjax finetune quickstart --mesh.fsdp 4 --simulate-devices 8 --dry-run`,
# before anything is read or written.

# %%
restored = fmjax.restore("runs/split")
restored.blocks.mlp.up.kernel[...].sharding
