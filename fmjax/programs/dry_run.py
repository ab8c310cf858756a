"""`fmjax finetune --dry-run`: all of a start but weights, training and files, and what the run would take."""

from __future__ import annotations

from dataclasses import dataclass

from jax.sharding import Mesh

from fmjax.config.run import RunConfig
from fmjax.console import console
from fmjax.engine import hosts
from fmjax.engine.ahead import Ahead, compiled_ahead
from fmjax.engine.backbone import outlined
from fmjax.engine.costs import Collective, Memory, collectives
from fmjax.engine.fitting import device_bytes
from fmjax.engine.placement import mesh_of
from fmjax.engine.plan import Plan
from fmjax.engine.throughput import step_flops
from fmjax.errors import in_bytes, in_gib
from fmjax.models.stack import kept
from fmjax.programs.finetune import check_batch, describe, examined, fitted, planned


@dataclass(frozen=True)
class Costs:
    """What a step takes: bytes of each device, floating-point operations of all together, the seconds until it can run,
    and what the devices exchange."""

    memory: Memory
    step_flops: int
    lowering_s: float
    compiling_s: float
    collectives: list[Collective]


def dry_run(config: RunConfig) -> Costs:
    """Prints the plan of a run and what it would take, and returns that. No weights are looked for, and nothing is
    written; what a run would refuse is refused, but for what is wrong with the weights' file, or with the disk."""
    with hosts.joined(config.hosts):
        return _costs(config)


def _costs(config: RunConfig) -> Costs:
    # the mesh first: it may simulate devices, which has to come before any use of one
    mesh = mesh_of(config.mesh)
    config, images = examined(config)
    check_batch(config, mesh)
    config, plan = fitted(config, planned(config, outlined(config, mesh), images), mesh)
    describe(config, plan, mesh, images)
    # with --batch auto this compiles once more: it is the program that the run would wait for
    ahead = compiled_ahead(plan, mesh)
    costs = costs_of(plan, mesh, ahead)
    for line in lines(config, plan, mesh, costs):
        console.print(line)
    return costs


def costs_of(plan: Plan, mesh: Mesh, ahead: Ahead) -> Costs:
    """The costs of a compiled step."""
    return Costs(
        ahead.memory,
        step_flops(plan),
        ahead.lowering_s,
        ahead.compiling_s,
        collectives(ahead.program.as_text(), mesh.shape),
    )


def lines(config: RunConfig, plan: Plan, mesh: Mesh, costs: Costs) -> list[str]:
    """The costs in words."""
    recipe, memory = config.recipe.of_batch(plan.batch_size), costs.memory
    free = device_bytes(mesh, config.memory_gib)
    room = "" if free is None else f", of {in_gib(free)}"
    # of one image, which does not depend on the mesh: the rate to compare machines by
    image = costs.step_flops / plan.batch_size
    # a line for each question: what is trained how, when it is kept, does it fit, how much is computed, how long until
    return [
        f"recipe  lr {recipe.lr:g}, weight decay {recipe.weight_decay:g}, {plan.accumulate} x {plan.part_size} "
        f"images, remat {kept(config.remat)}, drop path {config.drop_path:g} by {config.drop_path_by}",
        f"would   score every {plan.eval_every} and save every {plan.save_every} steps into {config.out}",
        f"memory  {in_gib(memory.total)} a device{room}: {in_gib(memory.arguments)} state and batch, "
        f"{in_gib(memory.temporaries)} temporaries, {in_gib(memory.results)} results; without libraries' work space",
        f"flops   {costs.step_flops / 1e12:.3g} T a step, {image / 1e9:.4g} G an image: the backbone's products, twice "
        f"as many back as forward, and nothing that remat computes again (arXiv:2204.02311, app. B)",
        f"start   {costs.lowering_s + costs.compiling_s:.1f} s to the first step: {costs.lowering_s:.1f} tracing, "
        f"{costs.compiling_s:.1f} compiling",
        *exchanged(costs.collectives),
    ]


def exchanged(rows: list[Collective]) -> list[str]:
    """A line for each kind of exchange in a step, under their sum."""
    if not rows:
        return ["talk    nothing between devices"]
    # whole arrays: what goes over a wire is up to the ring or tree that the devices' library takes
    total = sum(row.bytes * row.count for row in rows)
    told = [
        f"  {row.kind:<18} over {' x '.join(row.axes):<12} {row.dtypes:<9}{row.count:>6} x {in_bytes(row.bytes)}"
        for row in rows
    ]
    return [f"talk    {in_bytes(total)} of arrays between devices in a step:", *told]
