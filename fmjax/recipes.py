"""Named recipes: what a paper or its code trains with, as a place to start from.

`fmjax finetune PRESET --with-recipe NAME` takes one, and every other flag changes it; in Python it is a value like any
other, `replace(config, recipe=RECIPES["bitfit"])`. A rate that its authors give for a size of batch is scaled to a
run's own (Recipe.lr_base_size). Warm-ups are in steps, and cut to half of a short run. Drop path, label smoothing and
augmentation are no recipe's: they are flags of their own. docs/recipes.md has what each came to on real pictures.
"""

from __future__ import annotations

from fmjax.config.recipe import Recipe, Table
from fmjax.errors import UsageError, nearest

# A new head starts at zero, with nothing to keep: ten times the rate lets it catch up in a short run. Measured on 40
# steps of 16 photographs: 71 % in the place of 60 % for bitfit, 71 % and 62 % for lora (docs/recipes.md)
NEW_HEAD: Table = ((r"head\..*", 10.0),)

RECIPES: dict[str, Recipe] = {
    # A linear layer on frozen features, by SGD without decay: the batch-256 rate of MAE's linear probing
    # (arXiv:2111.06377 app. A.1; FINETUNE.md: blr 0.1, weight decay 0), and one of DINOv2's grid (arXiv:2304.07193
    # app. B.3). They use no clipping either.
    "linear_probe": Recipe(
        train="head",
        optimiser="sgd",
        lr=0.1,
        lr_base_size=256,
        warmup_steps=0,
        final_lr=0.0,
        weight_decay=0.0,
        clip_norm=0.0,
    ),
    # All of the network, each block slower than the next (arXiv:2106.08254): MAE's own settings for a ViT-B
    # (arXiv:2111.06377, FINETUNE.md: blr 5e-4, layer decay 0.65, weight decay 0.05). Theirs for ViT-L and ViT-H are
    # --recipe.lr 1e-3 --recipe.layer-decay 0.75.
    "full_layer_decay": Recipe(
        lr=5e-4,
        lr_base_size=256,
        warmup_steps=100,
        final_lr=0.002,
        weight_decay=0.05,
        layer_decay=0.65,
        rates=NEW_HEAD,
    ),
    # All of an image tower of CLIP, with the low rate at which it keeps what it knows: FLYP's lr and decay (arXiv:
    # 2212.00638, its README: lr 1e-5, wd 0.1, batch 512), with WiSE-FT's schedule (arXiv:2109.01903 app.: 500 steps of
    # warm-up, cosine, global norm 1). A new head starts at zero, where theirs starts from text, so that it has 20 times
    # the rate.
    "clip_finetune": Recipe(
        lr=1e-5,
        warmup_steps=500,
        final_lr=0.0,
        weight_decay=0.1,
        rates=((r"head\..*", 20.0),),
    ),
    # The same with a high rate and strong layer decay, and an average of the parameters: FT-CLIP (arXiv:2212.06138, its
    # script for ViT-B/16: lr 6e-4 at batch 2048, layer decay 0.6, weight decay 0.05, EMA 0.9998)
    "clip_layer_decay": Recipe(
        lr=6e-4,
        lr_base_size=2048,
        warmup_steps=100,
        weight_decay=0.05,
        layer_decay=0.6,
        ema=0.9998,
        rates=NEW_HEAD,
    ),
    # Biases and norms alone (arXiv:2106.10199, whose rates are 1e-4 to 1e-3), and the head
    "bitfit": Recipe(
        train="norms_and_biases", lr=1e-3, warmup_steps=20, weight_decay=0.0, rates=NEW_HEAD
    ),
    # Adapters of the queries and values (arXiv:2106.09685), and the head: peft's rank and alpha, at the rate of bitfit,
    # as both leave the kernels where they are
    "lora": Recipe(lora_rank=8, lr=1e-3, warmup_steps=20, weight_decay=0.0, rates=NEW_HEAD),
    # The last two blocks and what follows them: partial fine-tuning (arXiv:2111.06377 fig. 9), with the settings of
    # full_layer_decay
    "last_blocks": Recipe(
        last_blocks=2,
        lr=5e-4,
        lr_base_size=256,
        warmup_steps=100,
        final_lr=0.002,
        rates=NEW_HEAD,
    ),
    # The second half of LP-FT (arXiv:2202.10054), which starts from the head of a linear_probe (--head-from): SGD with
    # momentum and a cosine at their batch of 64, and a rate well below the probe's, as what it starts from is good
    # already
    "lp_ft": Recipe(
        optimiser="sgd",
        lr=3e-3,
        lr_base_size=64,
        warmup_steps=0,
        final_lr=0.0,
        weight_decay=0.0,
        clip_norm=1.0,
    ),
}


def named(name: str) -> Recipe:
    """The recipe of a name. Raises UsageError, with the nearest one, where there is none."""
    if name not in RECIPES:
        raise UsageError(
            f"no recipe {name!r}{nearest(name, RECIPES)}; the recipes are {', '.join(RECIPES)}"
        )
    return RECIPES[name]
