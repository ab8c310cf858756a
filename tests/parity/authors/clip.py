"""CLIP by OpenAI's clip/model.py, saved as OpenAI does: the whole model in half precision, as TorchScript."""

from __future__ import annotations

import importlib

import torch

from tests.parity.authors.original import Original

# a text tower of one layer, which the image tower does not see
TEXT = {"vocab_size": 64, "transformer_width": 64, "transformer_heads": 1, "transformer_layers": 1}
CONTEXT = 77


class CLIP(Original):
    repository = "openai/CLIP"
    folder = "CLIP"
    packages = ("clip",)
    missing_sizes = "takes no other"

    @property
    def sizes(self):
        return (self.spec.image_size,)

    def build(self):
        spec = self.spec
        return importlib.import_module("clip.model").CLIP(
            embed_dim=spec.embed_dim,
            image_resolution=spec.image_size[0],
            vision_layers=self.blocks,
            vision_width=spec.width,
            vision_patch_size=spec.patch_size,
            context_length=CONTEXT,
            **TEXT,
        )

    def save(self, model, folder):
        """Values are rounded to half first, so that the file loses nothing; the three constants of a file are
        tensors."""
        model.half().float()
        constants = {"input_resolution": self.spec.image_size[0], "context_length": CONTEXT}
        for name, value in (constants | {"vocab_size": TEXT["vocab_size"]}).items():
            model.__dict__.pop(name, None)
            model.register_buffer(name, torch.tensor(value))
        images, words = (
            torch.zeros(1, 3, *self.spec.image_size),
            torch.zeros(1, CONTEXT, dtype=torch.int64),
        )
        script = torch.jit.trace(model, (images, words), check_trace=False)
        path = folder / "checkpoint.pt"
        torch.jit.save(script.half(), path)
        model.float()  # the script shares the parameters
        return path

    def answer(self, model, images):
        """Only the class token goes through the last norm in this code; here all do."""
        visual, seen = model.visual, []
        hook = visual.transformer.register_forward_hook(lambda *call: seen.append(call[-1]))
        pooled = visual(images)
        hook.remove()
        return visual.ln_post(seen[0].permute(1, 0, 2)), pooled


ORIGINALS = (
    CLIP("ViT-B-32.openai"),
    CLIP("ViT-B-16.openai"),
    CLIP("ViT-L-14.openai", 3),
    CLIP("ViT-L-14-336.openai", 3),
)
