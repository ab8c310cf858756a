"""`fmjax export RUN FILE --adapters`: what a run with adapters has trained, without the weights that it began with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fmjax.config.recipe import Recipe
from fmjax.console import console
from fmjax.engine.adapters import completed
from fmjax.engine.freeze import names, rate
from fmjax.engine.records import read_run
from fmjax.engine.run import chosen_step, outline, restore_params
from fmjax.errors import UsageError, in_bytes
from fmjax.models.lora import PART
from fmjax.programs.convert import SUFFIX
from fmjax.targets import check_target
from fmjax.tasks.task import Net
from fmjax.trees import flat
from fmjax.weights import adapters


def export_adapters(
    source: str,
    target: str,
    *,
    given: Mapping[str, str] | None = None,
    classifier: bool = True,
    force: bool = False,
) -> None:
    """Writes the adapters and the classifier of a run's best step, and whatever else its rates have trained.

    given: other flags of the command, which speak of whole models. classifier: False leaves it out. Raises UsageError
    for a run without adapters, and for one whose base nobody could load.
    """
    # what cannot be is told before anything is read
    asked = [f"--{name}" for name, value in (given or {}).items() if value]
    if asked:
        raise UsageError(f"{asked[0]} is of whole models; leave it out, or --adapters")
    path = check_target(target, SUFFIX, flag="the target", sources=(source,), force=force)
    run = Path(source)
    config, labels = read_run(run)
    recipe = config.recipe
    if not recipe.lora_rank:
        raise UsageError(
            f"{run} was trained without adapters (--recipe.lora-rank 0); leave --adapters out to export the whole model"
        )
    if config.model.init == "random":
        raise UsageError(
            f"{run} began with random weights, which no file has, so that its adapters have nothing to stand beside; "
            f"leave --adapters out to export the whole model"
        )
    learner = outline(run, config, labels)
    step = chosen_step(run, config, learner.task, None)
    params = restore_params(run, learner.net, step, None, average=recipe.averages)
    net = learner.bound(params)
    # whoever loads the file later has no run to ask
    facts = {
        "rank": recipe.lora_rank,
        "alpha": recipe.lora_alpha,
        "targets": recipe.lora_targets,
        "classes": labels,
        "reading": learner.task.reading,
        "frozen": recipe.frozen,
    }
    model = learner.task.joined(net)
    size = adapters.write(path, model, facts, _trained(net, recipe), classifier=classifier)
    console.print(
        f"{path}: {in_bytes(size)}, adapters of {config.model.name}, from step {step} of {run}"
    )
    left = sorted(part for part in net if part != PART and model.classifier is None)
    if left:
        console.print(f"note: {', '.join(left)} stay in the run's checkpoints")


def _trained(net: Net, recipe: Recipe) -> list[str]:
    """The paths in the backbone of what the recipe trains."""
    shapes = {path: leaf.shape for path, leaf in flat(net).items()}
    rates = completed(recipe, shapes).rates
    return [
        path.removeprefix(f"{PART}.")
        for path, shape in shapes.items()
        if path.startswith(f"{PART}.") and any(rate(name, rates) for name in names(path, shape))
    ]
