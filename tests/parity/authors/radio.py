"""C-RADIO by NVIDIA's radio/hf_model.py and hubconf.py."""

from __future__ import annotations

import importlib
from argparse import Namespace
from typing import Any

import torch
from safetensors.torch import save_file

from fmjax.names import get_weights
from tests.parity.authors.original import Original

# the names that RADIO registers with timm: the second version of a size has layer scales
_NETWORKS = {
    "C-RADIOv2-B": "vit_base_patch16_224",
    "C-RADIOv2-L": "vit_large_patch16_224",
    "C-RADIOv2-H": "vit_huge_patch16_224",
    "C-RADIOv3-B": "vit_base_patch16_v2_224",
    "C-RADIOv3-L": "vit_large_patch16_v2_224",
    "C-RADIOv3-H": "vit_huge_patch16_224",
    "C-RADIOv3-g": "vit_giant_patch16_224",
    "C-RADIOv4-SO400M": "vit_so400m_patch16_224",
    "C-RADIOv4-H": "vit_huge_patch16_224",
}
# what a published configuration says beside the network's name
ARGUMENTS = {
    "in_chans": 3,
    "input_size": None,
    "pretrained": False,
    "num_classes": None,
    "drop": 0.0,
    "drop_path": None,
    "drop_block": None,
    "gp": None,
    "bn_momentum": None,
    "bn_eps": None,
    "torchscript": False,
    "initial_checkpoint": "",
    "cpe_max_size": 2048,
    "cls_token_per_teacher": True,
    "register_multiple": 8,
    "spectral_reparam": False,
}


class RADIO(Original):
    """A file for Hugging Face, which radio/hf_model.py builds and names."""

    repository = "NVlabs/RADIO"
    folder = "RADIO"
    packages = ("radio", "hubconf")

    @property
    def sizes(self):
        """The position table is for 2048 pixels; the size that the authors prefer stands for a native one."""
        return get_weights(self.name).image_size, (256, 256), (256, 384)

    @property
    def arguments(self) -> dict[str, Any]:
        """What a checkpoint says of its network; as many teachers as class tokens, of which the summary joins some."""
        joined, count = self.spec.pool_tokens, self.spec.num_cls
        teachers = [{"name": f"teacher{i}", "use_summary": i in joined} for i in range(count)]
        network = {"model": _NETWORKS[self.arch], "model_kwargs": {"depth": self.blocks}}
        # of v4 the number of registers is a setting, before that it fills the tokens up to eight
        registers = {"cpe_num_registers": self.spec.num_registers} if count == 3 else {}
        return ARGUMENTS | network | registers | {"teachers": teachers}

    def build(self):
        module = importlib.import_module("radio.hf_model")
        config = module.RADIOConfig(
            self.arguments,
            patch_size=self.spec.patch_size,
            max_resolution=self.spec.image_size[0],
            preferred_resolution=get_weights(self.name).image_size,
        )
        return module.RADIOModel(config)

    def save(self, model, folder):
        path = folder / "model.safetensors"
        save_file(model.state_dict(), path, {"format": "pt"})
        return path

    def answer(self, model, images):
        """What fmjax is given is normalised already, so the network's own normalisation is taken off its front."""
        model = getattr(model, "radio_model", model)
        model.make_preprocessor_external()
        return model.model.forward_features(images), model(images).summary


class RADIOHub(RADIO):
    """A file for torch.hub, which hubconf.py reads. A repository on Hugging Face has a copy of the code of its own day;
    torch.hub runs this checkout's."""

    def save(self, model, folder):
        own = model.radio_model
        state = {f"base_model.{key}": value for key, value in own.model.state_dict().items()}
        state |= {
            f"input_conditioner.{key}": value
            for key, value in own.input_conditioner.state_dict().items()
        }
        path = folder / "checkpoint.pth.tar"
        torch.save({"state_dict": state, "args": Namespace(**self.arguments)}, path)
        return path

    def sized(self, model, file, size):
        return importlib.import_module("hubconf").radio_model(version=str(file)).eval()


ORIGINALS = (
    RADIO("C-RADIOv2-B.nvidia", 2),
    RADIO("C-RADIOv2-L.nvidia", 2),
    RADIO("C-RADIOv2-H.nvidia", 2),
    RADIOHub("C-RADIOv3-B.nvidia", 2),
    RADIO("C-RADIOv3-L.nvidia", 2),
    RADIOHub("C-RADIOv3-H.nvidia", 2),
    RADIO("C-RADIOv3-g.nvidia", 2),
    RADIO("C-RADIOv4-SO400M.nvidia", 2),
    RADIO("C-RADIOv4-H.nvidia", 2),
)
