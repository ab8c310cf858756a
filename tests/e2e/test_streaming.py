"""A conversion holds one piece of a checkpoint at a time."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch

import fmjax
import weights_conversion as wc
from fmjax.models.build import param_shapes

IDLE = "import fmjax.programs.convert, fmjax.models.build as f, fmjax; f.param_shapes(fmjax.get_spec('ViT-L-14'))"
CONVERT = "import sys; from fmjax.cli import main; assert main(['convert', *sys.argv[1:]]) == 0"
PEAK = "; import resource, sys; sys.stderr.write(f'{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}')"


def peak_mb(code: str, *arguments: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", code + PEAK, *arguments], capture_output=True, text=True, check=True
    )
    return int(done.stderr.split()[-1]) / 1024


def test_memory_does_not_grow_with_the_file(tmp_path):
    name, source = "ViT-L-14.openai", tmp_path / "clip.pt"
    params = {
        path: wc.in_memory(np.zeros(shape, np.float16))
        for path, shape in param_shapes(fmjax.get_spec(name)).items()
    }
    file = wc.to_torch(params, wc.get_dialect("open_clip"))
    torch.save(
        {key: torch.from_numpy(np.array(tensor.read(()))) for key, tensor in file.items()}, source
    )
    size = source.stat().st_size / 2**20
    assert size > 500
    above = peak_mb(CONVERT, name, str(source), str(tmp_path / "ours.safetensors")) - peak_mb(IDLE)
    assert above < size / 2.5
