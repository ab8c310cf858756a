"""DINOv3 by Meta's dinov3/hub/backbones.py."""

from __future__ import annotations

import importlib

import torch

from fmjax.names import split_name
from tests.parity.authors.original import Original, with_depth


class DINOv3(Original):
    repository = "facebookresearch/dinov3"
    folder = "dinov3"
    packages = ("dinov3",)

    @property
    def sizes(self):
        return self.spec.image_size, (160, 160), (208, 304)

    def build(self):
        networks = importlib.import_module("dinov3.models.vision_transformer")
        hub = importlib.import_module("dinov3.hub.backbones")
        # which norms a network has depends on the data it was trained with
        weights = hub.Weights[split_name(self.name)[1].upper()]
        with with_depth(networks, "DinoVisionTransformer", self.blocks):
            return getattr(hub, self.arch)(pretrained=False, weights=weights)

    def answer(self, model, images):
        out = model.forward_features(images)
        cls = out["x_norm_clstoken"]
        tokens = torch.cat([cls[:, None], out["x_storage_tokens"], out["x_norm_patchtokens"]], 1)
        return tokens, cls


ORIGINALS = (
    DINOv3("dinov3_vits16.lvd1689m"),
    DINOv3("dinov3_vits16plus.lvd1689m"),
    DINOv3("dinov3_vitb16.lvd1689m", 3),
    DINOv3("dinov3_vitl16.lvd1689m", 2),
    DINOv3("dinov3_vitl16.sat493m", 2),
    DINOv3("dinov3_vitl16plus.lvd1689m", 2),
    DINOv3("dinov3_vith16plus.lvd1689m", 2),
    DINOv3("dinov3_vit7b16.lvd1689m", 1),
    DINOv3("dinov3_vit7b16.sat493m", 1),
)
