"""How fast a run computes, as a share of what its devices could at most (MFU, arXiv:2204.02311 app. B)."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fmjax.engine.adapters import INFIX
from fmjax.engine.metrics import Row
from fmjax.engine.plan import Plan
from fmjax.models import subset
from fmjax.models.build import resized
from fmjax.models.flops import flops
from fmjax.models.peaks import TERA, peak
from fmjax.models.stack import KERNELS
from fmjax.sharding import batch_divisor
from fmjax.trees import flat, leaf_paths


def step_flops(plan: Plan) -> int:
    """Floating-point operations of the backbone in a step, for the whole batch."""
    # the layers' own paths, as the spec knows them: heads of a task are not counted
    trained = {path.removeprefix("backbone.") for path in _trained(plan) if "backbone." in path}
    spec = resized(plan.net["backbone"].spec, plan.images.image_size)
    # leading blocks that are not trained only go forward; so do all of them where none is
    frozen = plan.freeze.blocks.get("backbone", 0)
    if not any(path.startswith("blocks.") for path in trained):
        frozen = spec.depth
    # what is computed for the loss and never trained, as an unused projection is not, costs its way forward only
    # nor is what a task leaves out: the share of the peak would be of work that nobody does
    image = flops(spec, patches=plan.task.sees_patches(plan.net)).training(
        frozen_blocks=frozen,
        embedding="patch_embed.kernel" in trained,
        head="proj.kernel" in trained or "pool.q.kernel" in trained,
        kernels=any(map(KERNELS.fullmatch, trained)),
        adapters=_adapters(plan),
        dropped=_dropped(plan),
    )
    return plan.batch_size * image


def _adapters(plan: Plan) -> int:
    """How many numbers of adapters are trained."""
    leaves = flat(plan.params)
    return sum(leaves[path].size for path in _trained(plan) if INFIX in path)


def _dropped(plan: Plan) -> float:
    """The share of the images that blocks do not compute: drop path by itself computes all of them."""
    backbone = plan.net["backbone"]
    if backbone.drop_path_by == "image":
        return 0.0
    each = plan.part_size // batch_divisor(backbone.mesh)
    return 1 - subset.kept(each, backbone.drop_path) / each


def _trained(plan: Plan) -> list[str]:
    return [path for path in leaf_paths(plan.params) if path not in plan.freeze.paths]


def ceiling(plan: Plan, mesh: Mesh) -> float | None:
    """Images a second at the peak of a mesh's devices, which no run reaches; None where the peak is not known."""
    most = _peak(plan, mesh)
    if most is None:
        return None
    return mesh.devices.size * most * plan.batch_size / step_flops(plan)


def _peak(plan: Plan, mesh: Mesh) -> float | None:
    """Operations a second of one device in the type that the run computes in."""
    kinds = _kinds(mesh)
    # of several kinds the slowest says how fast all are, by a rule that no sheet tells
    return peak(kinds[0], _dtype(plan)) if len(kinds) == 1 else None


def _kinds(mesh: Mesh) -> list[str]:
    return sorted({device.device_kind for device in mesh.devices.flat})


def _dtype(plan: Plan) -> str:
    return jnp.dtype(plan.net["backbone"].dtype).name


def words(rows: Sequence[Row], plan: Plan, mesh: Mesh) -> list[str]:
    """A run's speed and MFU in a line, the medians of its rows; none where no row has a speed."""
    speeds = [row["images_per_s"] for row in rows if "images_per_s" in row]
    if not speeds:
        return []
    speed, devices, most = float(np.median(speeds)), mesh.devices.size, ceiling(plan, mesh)
    each = f", {speed / devices:,.0f} a device" if devices > 1 else ""
    kinds, dtype = " and ".join(_kinds(mesh)), _dtype(plan)
    share = f"MFU n/a: no peak of {kinds} in {dtype} is known"
    top = _peak(plan, mesh)
    if most is not None and top is not None:
        share = f"MFU {speed / most:.1%} of {top / TERA:,.4g} TFLOP/s a device ({kinds}, {dtype})"
    return [f"speed   {speed:,.0f} images/s{each}, {share}"]
