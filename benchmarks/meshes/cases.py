"""Which models are compiled for which meshes. Imports no jax."""

from __future__ import annotations

from dataclasses import dataclass

SIZE = 224  # pixels
BATCH = 32  # images a device, or more where tensor parallelism shares them


@dataclass(frozen=True)
class Case:
    """A model on a mesh."""

    model: str
    data: int
    fsdp: int
    tensor: int = 1
    batch: int = BATCH  # images for each part of data x fsdp
    remat: str = "full"

    @property
    def devices(self) -> int:
        return self.data * self.fsdp * self.tensor

    @property
    def name(self) -> str:
        axes = f"data {self.data} x fsdp {self.fsdp} x tensor {self.tensor}"
        return f"{self.model}, {axes}, batch {self.batch}, remat {self.remat}"


MODELS = (
    "ViT-B-16.openai",
    "ViT-L-14.openai",
    "ViT-H-14.laion2b_s32b_b79k",
    "ViT-g-14.laion2b_s34b_b88k",
    "dinov2_vitg14.lvd142m",
    "ViT-bigG-14.laion2b_s39b_b160k",
    "EVA02-E-14-plus.laion2b_s9b_b144k",
    "dinov3_vit7b16.lvd1689m",
)
LARGEST = MODELS[-2:]
# one device; a machine of eight; eight machines and 32, the parameters split inside each
NODES = ((1, 1), (1, 8), (8, 8), (32, 8))
WHOLE = ((1, 64), (1, 256))  # split over all devices of several machines
TENSOR = ((1, 4), (8, 4), (32, 4))  # and heads and hidden units over two
# without a flag but for the mesh: images a device, on one, and on eight that share the images, and the parameters too
USUAL = {"ViT-B-16.openai": 128, "ViT-L-14.openai": 128, "dinov2_vitg14.lvd142m": 64}
WAYS = ((1, 1), (8, 1), (1, 8))
DEFAULTS = tuple(
    Case(model, *sizes, batch=batch, remat="auto")
    for model, batch in USUAL.items()
    for sizes in WAYS
)
CASES = (
    *DEFAULTS,
    *(Case(model, *sizes) for model in LARGEST for sizes in (*NODES, *WHOLE)),
    *(Case(model, *sizes, tensor=2, batch=2 * BATCH) for model in LARGEST for sizes in TENSOR),
    *(Case(model, *sizes) for model in MODELS[:-2] for sizes in NODES),
)

# whose scaling is predicted: machines of eight, each of which holds all parameters once
SCALED = ("ViT-L-14.openai", "dinov2_vitg14.lvd142m", "EVA02-E-14-plus.laion2b_s9b_b144k")
SCALES = NODES[1:]


def in_loop(trips: int, depth: int) -> bool:
    """Whether what is done so many times a step is in the loop over blocks, in which the last one is not where it
    computes class tokens alone."""
    return trips in (depth, depth - 1)
