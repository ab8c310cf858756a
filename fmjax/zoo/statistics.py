"""The channel statistics (RGB, images in [0, 1]) that published weights were trained with."""

from typing import TypedDict


class Statistics(TypedDict):
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


OPENAI = Statistics(
    mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
)
IMAGENET = Statistics(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
HALF = Statistics(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
UNIT = Statistics(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
SATELLITE = Statistics(mean=(0.43, 0.411, 0.296), std=(0.213, 0.156, 0.143))
