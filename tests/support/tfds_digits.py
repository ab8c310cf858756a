"""A real TensorFlow dataset in small: scikit-learn's digits as PNG."""

from __future__ import annotations

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits


class SmallDigits(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = None

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(8, 8, 1)),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 60), "test": self._generate_examples(60, 80)}

    def _generate_examples(self, start: int, stop: int):
        images, labels = load_digits(return_X_y=True)
        for i in range(start, stop):
            file = io.BytesIO()
            Image.fromarray((images[i] * 15).astype(np.uint8).reshape(8, 8)).save(file, "PNG")
            file.seek(0)
            yield i, {"image": file, "label": int(labels[i])}
