"""The scripts that benchmarks/start.py times, each in a process of its own: python benchmarks/start_scripts.py NAME DIR

DIR is a folder with what `made` puts there. Each is what a user would write: imports, model, pictures, numbers.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BATCH = 8  # images of a step of training
CLASSES = 1000
LR, DECAY, CLIP = 1e-4, 0.05, 1.0
# by the names of fmjax, and of the others
SMALL = ("augreg_vit_small_patch16_224.augreg_in21k", "vit_small_patch16_224.augreg_in21k")
BASE = ("augreg_vit_base_patch16_224.augreg_in21k", "vit_base_patch16_224.augreg_in21k")
CLIP_BASE = ("ViT-B-16.laion2b_s34b_b88k", "ViT-B-16")


def timm() -> Any:
    """timm, also where the compiled half of torchvision does not load."""
    sys.path.insert(0, str(ROOT))
    from tests.support import torch_reference  # noqa: F401  declares what is missing

    # after it
    import timm  # isort: skip

    return timm


def open_clip() -> Any:
    """OpenCLIP, which imports torchvision too."""
    timm()
    import open_clip

    return open_clip


def made(files: Path) -> None:
    """Weights of noise in the files of each library, and 300 photographs."""
    from safetensors.torch import save_file
    from sources import photographs

    for name in (SMALL[1], BASE[1]):
        save_file(
            timm().create_model(name, num_classes=0).state_dict(), files / f"{name}.safetensors"
        )
    clip = open_clip().create_model(CLIP_BASE[1])
    save_file(clip.state_dict(), files / f"{CLIP_BASE[1]}.safetensors")
    (files / "pictures").mkdir()
    for number, content in enumerate(photographs()[:300]):
        (files / "pictures" / f"{number:03}.jpg").write_bytes(content)


def import_ours(files: Path) -> None:
    import fmjax

    # the package resolves its names when they are asked for
    assert fmjax.load


def import_timm(files: Path) -> None:
    assert timm().create_model


def import_open_clip(files: Path) -> None:
    assert open_clip().create_model


def first_ours(files: Path, names: tuple[str, str] = BASE) -> None:
    import jax
    import numpy as np

    import fmjax

    model = fmjax.load(names[0], checkpoint=files / f"{names[1]}.safetensors")
    picture = files / "pictures" / "000.jpg"
    images = fmjax.preprocess([picture], fmjax.preprocess_config(model))
    # the parameters are given, and are no constants of the program
    np.asarray(jax.jit(lambda model, images: model(images).pooled)(model, images))


def first_ours_clip(files: Path) -> None:
    first_ours(files, CLIP_BASE)


def _timm_model(files: Path, name: str) -> tuple[Any, Any]:
    """A model with its weights, and what its pictures go through."""
    library = timm()
    path = files / f"{name}.safetensors"
    model = library.create_model(name, num_classes=0, checkpoint_path=str(path)).eval()
    config = library.data.resolve_model_data_config(model)
    return model, library.data.create_transform(**config)


def first_timm(files: Path) -> None:
    model, transform = _timm_model(files, BASE[1])
    import torch
    from PIL import Image

    picture = Image.open(files / "pictures" / "000.jpg").convert("RGB")
    with torch.inference_mode():
        model(transform(picture)[None]).numpy()


def first_open_clip(files: Path) -> None:
    library = open_clip()
    import torch
    from PIL import Image

    path = files / f"{CLIP_BASE[1]}.safetensors"
    model, _, transform = library.create_model_and_transforms(CLIP_BASE[1], pretrained=str(path))
    picture = Image.open(files / "pictures" / "000.jpg").convert("RGB")
    with torch.inference_mode():
        model.eval().encode_image(transform(picture)[None]).numpy()


def step_ours(files: Path) -> None:
    """The engine's own step: AdamW, clipping, the check of every gradient, from random parameters."""
    import jax

    from fmjax.bench import noise
    from fmjax.bench.plans import planned
    from fmjax.config.model import ModelConfig
    from fmjax.config.run import RunConfig
    from fmjax.engine.backbone import build
    from fmjax.engine.run import start_params
    from fmjax.engine.state import begin
    from fmjax.engine.step import compiled
    from fmjax.sharding import make_mesh

    model = ModelConfig(name=SMALL[0], init="random")
    config, mesh = RunConfig(model=model, batch_size=BATCH), make_mesh(devices=jax.devices()[:1])
    plan = planned(config, mesh)
    params = start_params(plan.task, build(config, mesh), plan.labels, config.seed, mesh)
    state = begin(plan, params, mesh)
    jax.block_until_ready(compiled(plan, mesh).step(state, noise.batch_of(plan, mesh)))


def step_timm(files: Path) -> None:
    library = timm()
    import torch

    model = library.create_model(SMALL[1], num_classes=CLASSES).train()
    adam = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=DECAY)
    images, labels = torch.randn(BATCH, 3, 224, 224), torch.zeros(BATCH, dtype=torch.long)
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    adam.step()
    loss.item()


def embed_ours(files: Path) -> None:
    from fmjax.cli import main

    path = files / f"{SMALL[1]}.safetensors"
    asked = ["--checkpoint", str(path), "--source", f"images:{files / 'pictures'}"]
    assert not main(["embed", SMALL[0], *asked, "--out", str(files / "ours.npz"), "--force"])


def embed_timm(files: Path) -> None:
    model, transform = _timm_model(files, SMALL[1])
    import numpy as np
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader

    class Pictures(torch.utils.data.Dataset):
        paths = sorted((files / "pictures").iterdir())

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, number: int) -> torch.Tensor:
            return transform(Image.open(self.paths[number]).convert("RGB"))

    batches = DataLoader(Pictures(), 32, num_workers=2)
    with torch.inference_mode():
        found = torch.cat([model(batch) for batch in batches])
    np.savez(files / "timm.npz", embeddings=found.numpy())


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
