"""EVA-CLIP by BAAI's EVA-CLIP/rei/eva_clip, from its own configuration files."""

from __future__ import annotations

import importlib
import os
from unittest import mock

from tests.parity.authors.original import Original

_CONFIGS = {
    "EVA01-g-14": "EVA01-CLIP-g-14",
    "EVA01-g-14-plus": "EVA01-CLIP-g-14-plus",
    "EVA02-B-16": "EVA02-CLIP-B-16",
    "EVA02-L-14": "EVA02-CLIP-L-14",
    "EVA02-L-14-336": "EVA02-CLIP-L-14-336",
    "EVA02-E-14": "EVA02-CLIP-bigE-14",
    "EVA02-E-14-plus": "EVA02-CLIP-bigE-14-plus",
}
# which the image tower does not see
TEXT = {"layers": 1, "width": 64, "heads": 1, "vocab_size": 64}


class EVA(Original):
    repository = "baaivision/EVA"
    folder = "EVA"
    source = "EVA-CLIP/rei"
    packages = ("eva_clip",)
    missing_sizes = "takes squares"

    @property
    def sizes(self):
        native, patch = self.spec.image_size, self.spec.patch_size
        return native, (native[0] // patch * 3 // 4 * patch,) * 2

    def build(self):
        return self.of_size(self.spec.image_size[0])

    def of_size(self, size: int):
        """The two towers for one image size."""
        package = importlib.import_module("eva_clip")
        config = package.get_model_config(_CONFIGS[self.arch])
        config["vision_cfg"] |= {"layers": self.blocks, "image_size": size}
        config["text_cfg"] |= TEXT
        return package.CustomCLIP(**config).eval()

    def sized(self, model, file, size):
        """Another size is another network, filled by the authors' loader. Told that there are rotary positions, it
        leaves out the file's, and those that the network was built with stay."""
        if size == self.spec.image_size:
            return model
        other = self.of_size(size[0])
        loader = importlib.import_module("eva_clip").load_checkpoint
        with mock.patch.dict(os.environ, {"RoPE": "1" if self.spec.rope else "0"}):
            loaded = loader(other, str(file), strict=False)
        left_out = [*loaded.missing_keys, *loaded.unexpected_keys]
        assert all("freqs_" in key for key in left_out), left_out
        return other

    def answer(self, model, images):
        """Only the class token goes through the last norm in this code; here all do."""
        visual = model.visual
        tokens = visual.forward_features(images, return_all_features=True)
        return visual.norm(tokens), visual(images)


ORIGINALS = (
    EVA("EVA01-g-14.laion400m_s11b_b41k", 2),
    EVA("EVA01-g-14-plus.merged2b_s11b_b114k", 2),
    EVA("EVA02-B-16.merged2b_s8b_b131k"),
    EVA("EVA02-L-14.merged2b_s4b_b131k", 2),
    EVA("EVA02-L-14-336.merged2b_s6b_b61k", 2),
    EVA("EVA02-E-14.laion2b_s4b_b115k", 2),
    EVA("EVA02-E-14-plus.laion2b_s9b_b144k", 2),
)
