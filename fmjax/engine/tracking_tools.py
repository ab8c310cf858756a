"""The tools that --log sends a run's numbers to: how each opens a run, and is given a row."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Numbers = Mapping[str, float]
MLFLOW_TEXT = 500  # letters of a setting, which every version of MLflow takes
MLFLOW_AT_ONCE = 100  # settings in one request


@dataclass(frozen=True)
class Series:
    """A run as a tool is told of it.

    id: by which a tool finds the run again. last: the last step of which it has numbers; 0 for a new run.
    settings: as in config.json.
    """

    folder: Path
    project: str
    name: str
    id: str
    last: int
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Opened:
    """A run that is open in a tool. send: a step and its numbers; close: whether the run has failed."""

    send: Callable[[int, Numbers], None]
    close: Callable[[bool], None]


@dataclass(frozen=True)
class Tool:
    """package: as it is imported. way_out: what to do where a run cannot be opened. environment: what the tool reads,
    unless the user has set it. settles_s: after how long what it was given would outlive a crash of this process."""

    package: str
    open: Callable[[Series], Opened]
    way_out: str
    environment: Mapping[str, str] = field(default_factory=dict)
    settles_s: float = 0.0


def _tensorboard(series: Series) -> Opened:
    from tensorboardX import SummaryWriter

    # TensorBoard does not show what files before this one have of the steps from here on: those of an older run in the
    # folder, and those that a crash came too soon after to know that they were written
    purge = series.last + 1 if series.last else 0
    folder = str(series.folder / "tensorboard")
    writer = SummaryWriter(folder, purge_step=purge, flush_secs=1)

    def send(step: int, numbers: Numbers) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)

    def close(failed: bool) -> None:
        writer.close()

    return Opened(send, close)


def _wandb(series: Series) -> Opened:
    import wandb

    # numbers and settings only: no lines of the terminal, no code and no differences from a commit
    quiet = wandb.Settings(console="off", save_code=False, disable_code=True, disable_git=True)
    run = wandb.init(
        project=series.project,
        name=series.name,
        id=series.id,
        resume="allow",
        dir=str(series.folder),
        config=dict(series.settings),
        settings=quiet,
    )

    def send(step: int, numbers: Numbers) -> None:
        # a second row of a step, its scores, joins the first
        run.log(dict(numbers), step=step)

    def close(failed: bool) -> None:
        run.finish(exit_code=int(failed))

    return Opened(send, close)


def _mlflow(series: Series) -> Opened:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    # by a client and the run's own number: the run that a user's own code may have open is another
    client = MlflowClient()
    known = client.get_experiment_by_name(series.project)
    experiment = known.experiment_id if known else client.create_experiment(series.project)
    tags = {"fmjax.run": series.id}
    found = client.search_runs([experiment], f"tags.`fmjax.run` = '{series.id}'", max_results=1)
    run = found[0] if found else client.create_run(experiment, run_name=series.name, tags=tags)
    name = run.info.run_id
    client.update_run(name, "RUNNING")
    # settings are written once: another value of one would be refused
    params = [Param(key, text[:MLFLOW_TEXT]) for key, text in _flat(series.settings)]
    for start in range(0, 0 if found else len(params), MLFLOW_AT_ONCE):
        client.log_batch(name, params=params[start : start + MLFLOW_AT_ONCE])

    def send(step: int, numbers: Numbers) -> None:
        now = int(time.time() * 1000)
        client.log_batch(name, [Metric(key, value, now, step) for key, value in numbers.items()])

    def close(failed: bool) -> None:
        client.set_terminated(name, "FAILED" if failed else "FINISHED")

    return Opened(send, close)


def _flat(settings: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{head}{name}.")
        else:
            yield f"{head}{name}", value if isinstance(value, str) else json.dumps(value)


def _trackio(series: Series) -> Opened:
    import trackio

    # a run is found by its name here, which another folder's run may have too
    run = trackio.init(
        project=series.project,
        name=f"{series.name} {series.id}",
        resume="allow",
        config=dict(series.settings),
        embed=False,
    )

    def send(step: int, numbers: Numbers) -> None:
        run.log(dict(numbers), step=step)

    def close(failed: bool) -> None:
        run.finish()

    return Opened(send, close)


# reports to the makers of a tool are off, and a server that does not answer is given up soon
TOOLS = {
    "tensorboard": Tool(
        "tensorboardX", _tensorboard, "see that the run's folder can be written", settles_s=3.0
    ),
    "wandb": Tool(
        "wandb",
        _wandb,
        "run `wandb login`, or set WANDB_MODE=offline",
        {"WANDB_ERROR_REPORTING": "false"},
        settles_s=30.0,  # it writes every 15 s
    ),
    "mlflow": Tool(
        "mlflow",
        _mlflow,
        "see that MLFLOW_TRACKING_URI names a server or database that answers",
        {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        },
    ),
    # it writes every half second
    "trackio": Tool("trackio", _trackio, "see that TRACKIO_DIR can be written", settles_s=2.0),
}
