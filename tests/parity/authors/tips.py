"""TIPS by Google's pytorch/image_encoder.py, with the settings of its run_image_encoder_inference.py."""

from __future__ import annotations

import importlib

import numpy as np
import torch

from tests.parity.authors.original import Original, with_depth

_FUNCTIONS = {
    "tips_s14": "vit_small",
    "tips_b14": "vit_base",
    "tips_l14": "vit_large",
    "tips_so14": "vit_so400m",
    "tips_g14": "vit_giant2",
}


class TIPS(Original):
    repository = "google-deepmind/tips"
    folder = "tips"
    source = "pytorch"
    packages = ("image_encoder",)

    @property
    def sizes(self):
        return self.spec.image_size, (224, 224), (196, 322)

    def build(self):
        networks = importlib.import_module("image_encoder")
        with with_depth(networks, "VisionTransformer", self.blocks):
            return getattr(networks, _FUNCTIONS[self.arch])(
                img_size=self.spec.image_size[0],
                ffn_layer="swiglu" if self.spec.mlp == "swiglu" else "mlp",
                block_chunks=0,
                init_values=1.0,
                interpolate_antialias=True,
                interpolate_offset=0.0,
            )

    def save(self, model, folder):
        """The published files are npz."""
        path = folder / "checkpoint.npz"
        np.savez(path, **{key: value.detach().numpy() for key, value in model.state_dict().items()})
        return path

    def answer(self, model, images):
        first, second, patches = model(images)
        return torch.cat([first, second, patches], 1), first[:, 0]


ORIGINALS = (
    TIPS("tips_s14.tips_v1_hr"),
    TIPS("tips_b14.tips_v1_hr", 3),
    TIPS("tips_l14.tips_v1_hr", 2),
    TIPS("tips_so14.tips_v1_hr", 2),
    TIPS("tips_g14.tips_v1_hr", 2),
)
