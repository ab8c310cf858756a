"""What is trained and how, said twice: to fmjax as a Recipe, and to timm under the names of its train.py."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import fmjax
from fmjax.config import Recipe
from fmjax.config.recipe import Table
from fmjax.specs import ViTSpec

DEPTH, WIDTH, HEADS = 2, 192, 3
GRID = 4  # patches along a side
CLASSES = 10
STEPS, BATCH = 50, 32

# beside registers timm keeps a class token and its position as one sum, which an optimiser moves half as far as the
# two of them: of the two only the position is trained
FOLDED: Table = ((r"backbone\.cls_token", 0.0),)


@dataclass(frozen=True)
class Backbone:
    """A published architecture, cut to DEPTH and WIDTH, and timm's name for it."""

    weights: str
    timm: str
    mlp_dim: int = 4 * WIDTH
    rates: Table = ()  # rows of the recipe that this architecture needs, so that timm's moves alike

    @property
    def name(self) -> str:
        return fmjax.get_weights(self.weights).model

    @property
    def spec(self) -> ViTSpec:
        """Without a projection, in whose place timm has the classifier."""
        spec = fmjax.get_spec(self.weights)
        side = GRID * spec.patch_size
        small = {"depth": DEPTH, "width": WIDTH, "num_heads": HEADS, "mlp_dim": self.mlp_dim}
        return replace(spec, **small, image_size=(side, side), embed_dim=0)


@dataclass(frozen=True)
class Script:
    """What timm's train.py is told, under its names."""

    lr: float
    weight_decay: float
    min_lr: float
    warmup_updates: int
    opt_betas: tuple[float, float] = (0.9, 0.999)
    opt_eps: float = 1e-8
    layer_decay: float | None = None  # None: one group of all parameters, torch.optim.AdamW's own
    clip_grad: float | None = None
    grad_accum_steps: int = 1
    model_ema_decay: float | None = None


@dataclass(frozen=True)
class Setting:
    """One way to train, in both languages."""

    name: str
    recipe: Recipe
    script: Script

    def recipe_of(self, backbone: Backbone) -> Recipe:
        return replace(self.recipe, rates=(*backbone.rates, *self.recipe.rates))


BACKBONES = (
    Backbone("ViT-B-16.openai", "vit_base_patch16_clip_quickgelu_224"),
    Backbone("EVA02-B-16.merged2b_s8b_b131k", "eva02_base_patch16_clip_224", 8 * WIDTH // 3),
    Backbone("dinov2_vits14.lvd142m", "vit_small_patch14_dinov2"),
)
REGISTERS = Backbone("dinov2_vits14_reg.lvd142m", "vit_small_patch14_reg4_dinov2", rates=FOLDED)

PLAIN = Setting(
    "plain",
    Recipe(
        lr=5e-4,
        warmup_steps=5,
        final_lr=0.01,
        weight_decay=0.05,
        # torch.optim.AdamW decays whatever it is given
        decay=((r".*", 1.0),),
        clip_norm=0.0,
    ),
    Script(lr=5e-4, weight_decay=0.05, min_lr=5e-6, warmup_updates=5),
)
GROUPS = Setting(
    "groups",
    Recipe(
        lr=1e-3,
        warmup_steps=5,
        final_lr=0.01,
        weight_decay=0.05,
        layer_decay=0.75,
        # timm counts the final norm to the last block (group_matcher), BEiT to the head
        rates=((r"backbone\.norm\..*", 0.75),),
        clip_norm=1.0,
        accumulate=2,
        ema=0.9,
        ema_warmup=False,
    ),
    Script(
        lr=1e-3,
        weight_decay=0.05,
        min_lr=1e-5,
        warmup_updates=5,
        layer_decay=0.75,
        clip_grad=1.0,
        grad_accum_steps=2,
        model_ema_decay=0.9,
    ),
)
# where tokens decay, no table says how timm's sum of two decays
CASES = (*product(BACKBONES, (PLAIN, GROUPS)), (REGISTERS, GROUPS))
