"""A small network that this project trained itself, so that everything runs where no model hub can be reached."""

from fmjax.specs import Source, ViTSpec, Weights
from fmjax.zoo.statistics import HALF

SPECS = (
    ViTSpec(
        name="demo_vit_ti4",
        width=96,
        depth=6,
        num_heads=3,
        mlp_dim=384,
        patch_size=4,
        image_size=(28, 28),
    ),
)

WEIGHTS = (
    Weights(
        model="demo_vit_ti4",
        tag="fashion_mnist",
        sources=(
            Source(
                "package",
                "zoo/files/demo_vit_ti4.fashion_mnist.safetensors",
                "demo_vit_ti4.fashion_mnist.safetensors",
                "timm",
                sha256="75f6951b25168921ca2fe6a63b642b8b86455583fd771871996a8b5cb64170d0",
            ),
        ),
        **HALF,
        image_size=(28, 28),
        accuracy={"fashion_mnist": 84.9},
        licence="Apache-2.0 (weights); trained on Fashion-MNIST, MIT",
    ),
)
