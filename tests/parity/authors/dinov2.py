"""DINOv2 by Meta's dinov2/hub/backbones.py."""

from __future__ import annotations

import importlib

import torch

from tests.parity.authors.original import Original, with_depth


class DINOv2(Original):
    repository = "facebookresearch/dinov2"
    folder = "dinov2"
    packages = ("dinov2",)

    @property
    def sizes(self):
        wide = (322, 210) if self.spec.num_registers else (238, 322)
        return self.spec.image_size, (224, 224), wide

    def build(self):
        networks = importlib.import_module("dinov2.models.vision_transformer")
        hub = importlib.import_module("dinov2.hub.backbones")
        with with_depth(networks, "DinoVisionTransformer", self.blocks):
            return getattr(hub, self.arch)(pretrained=False)

    def answer(self, model, images):
        out = model.forward_features(images)
        cls = out["x_norm_clstoken"]
        tokens = torch.cat([cls[:, None], out["x_norm_regtokens"], out["x_norm_patchtokens"]], 1)
        return tokens, cls


ORIGINALS = (
    DINOv2("dinov2_vits14.lvd142m"),
    DINOv2("dinov2_vits14_reg.lvd142m"),
    DINOv2("dinov2_vitb14.lvd142m", 3),
    DINOv2("dinov2_vitb14_reg.lvd142m", 3),
    DINOv2("dinov2_vitl14.lvd142m", 3),
    DINOv2("dinov2_vitl14_reg.lvd142m", 3),
    DINOv2("dinov2_vitg14.lvd142m", 2),
    DINOv2("dinov2_vitg14_reg.lvd142m", 2),
)
