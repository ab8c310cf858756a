"""A run's state on disk, by Orbax: parameters, optimiser, random key and data position, committed together or not at
all, with digests by which a damaged step is found before it is used."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from fmjax.engine import hosts, manifest, quiet, steps
from fmjax.engine.digests import digests
from fmjax.engine.guard import Guard, fresh
from fmjax.engine.state import State
from fmjax.errors import CheckpointError, in_bytes
from fmjax.trees import Params

FORMAT = 1  # of a step: 0, without a number, had no digests
ROOM = 2  # free space that a run needs at its start, in checkpoints: the old one goes when the new one is whole


class Damaged(CheckpointError):
    """A step that is not what was written, and why."""

    def __init__(self, sentence: str, reason: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class Checkpoints:
    """What writes the checkpoints of one run, into its folder `checkpoints/<step>`."""

    def __init__(self, run: Path, *, keep: int = 2) -> None:
        self.run = run.absolute()
        self.keep = keep
        self.best: int | None = None  # a step that is kept beside the newest ones
        self._saving: int | None = None
        self._resumed = steps.has_steps(run)
        hosts.by_first(lambda: steps.remove_empty(self.run))
        quiet.saving()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,
            # the list of the files is written before Orbax gives the step its name: it is of the step, or there is none
            async_options=ocp.AsyncOptions(post_finalization_callback=self._list_files),
        )
        self._manager = ocp.CheckpointManager(self.run / steps.STEPS, options=options)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any = None) -> list[bool]:
        """Orbax's question, for the steps in order: the newest ones stay, and the best."""
        # asked after the new one is whole, and before any is deleted
        newest = len(checkpoints) - self.keep
        return [number >= newest or one.step == self.best for number, one in enumerate(checkpoints)]

    def save(self, step: int, state: State, data: dict[str, Any]) -> None:
        """Starts to save; the step counts once all of it is on disk. data: the place in the data, as JSON. Raises
        CheckpointError where the save before it has failed."""
        # one save at a time: the one before it has long ended, or the disk is the limit
        self.wait()
        items = _items(state)
        record = {**data, "format": FORMAT, "digests": digests(items)}
        written = {name: ocp.args.StandardSave(value) for name, value in items.items()}
        self._saving = step
        try:
            self._manager.save(
                step, args=ocp.args.Composite(**written, data=ocp.args.JsonSave(record)), force=True
            )
        except (OSError, ValueError) as error:
            raise self._failed(error) from None
        if self._resumed:
            # a run that is killed faster than it saves would lose the same steps again and again
            self._resumed = False
            self.wait()

    def check(self) -> None:
        """Raises CheckpointError where a save has failed meanwhile; never waits for one."""
        if self._saving is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Until everything is committed. Raises CheckpointError where it could not be."""
        if self._saving is None:
            return
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # orbax and tensorstore raise many kinds
            reason = error
        else:
            self._saving = None
            return
        raise self._failed(reason)

    def reload(self) -> None:
        """After steps were moved: Orbax looks again at what is there."""
        self._manager.reload()

    def close(self) -> None:
        """Waits for the last save, and gives back what Orbax holds."""
        self.wait()
        self._manager.close()

    def _list_files(self) -> None:
        if not hosts.is_first():
            return
        [written] = (self.run / steps.STEPS).glob(f"{self._saving}.orbax-checkpoint-tmp*")
        manifest.write(written)

    def _failed(self, error: Exception) -> CheckpointError:
        """The sentence for a save that broke; what it has left behind is taken away."""
        step, self._saving = self._saving, None
        parts = list((self.run / steps.STEPS).glob(f"{step}.orbax-checkpoint-tmp*"))
        # measured before the parts go: what they took is what was lacking
        need, have = sum(map(steps.size, parts)), shutil.disk_usage(self.run).free
        for part in parts:
            _remove(part)
        older = steps.committed(self.run)
        left = f"step {older[-1]} is whole" if older else "no step was saved before it"
        return CheckpointError(
            f"step {step} could not be saved in {self.run}: {_cause(error)} ({in_bytes(need)} were written, "
            f"{in_bytes(have)} are free); {left}; make room and run the same command to go on"
        )


def _remove(folder: Path) -> None:
    """Takes away what a broken save has left; its other threads may still write for a moment."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _cause(error: Exception) -> str:
    """What the operating system says of a save that failed; tensorstore hands it on in the middle of its own words, and
    Orbax may raise an error of its own over it."""
    each: BaseException | None = error
    while each is not None:
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
        # "...: No space left on device [os_error_code='28'] ...": what stands before the bracket
        found = re.search(r"([^:]+) \[os_error_code", " ".join(str(each).split()))
        if found:
            return found[1].strip()
        each = each.__cause__ or each.__context__
    return " ".join(str(error).split())[-200:]


def check_room(run: Path, size: int) -> None:
    """Raises CheckpointError where the disk has no room for the checkpoints of a run. size: bytes of one."""
    # of a folder that is not there yet, the disk is that of the nearest one above it
    there = next(path for path in (run.absolute(), *run.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < ROOM * size:
        raise CheckpointError(
            f"{run} has {in_bytes(free)} free, and a run that saves {in_bytes(size)} a checkpoint needs "
            f"{in_bytes(ROOM * size)}, as the old one goes when the new one is whole; make room, or pass another --out"
        )


def restore(run: Path, step: int, like: State) -> tuple[State, dict[str, Any]]:
    """The state of a step, on the devices and with the layout of `like` (arrays or shapes), and the place in the data.

    Raises Damaged for a step whose files or arrays are not what was written, CheckpointError for one of another model.
    """
    items = _items(like)
    place = steps.folder(run, step)
    # runs of older versions have neither a list of their files nor a guard
    if not manifest.exists(place) and not (place / "guard").is_dir():
        del items["guard"]
    found = _restore(run, step, items)
    trees = {name: found[name] for name in ("params", "opt")}
    guard = Guard(**found["guard"]) if "guard" in found else fresh()
    state = State(ema=found.get("ema", {}), **trees, **found["random"], guard=guard)
    return state, found["data"]


def save_params(run: Path, step: int, params: Params) -> None:
    """Writes a step of parameters alone, from which no training goes on: into a folder that is no run's yet."""
    place = steps.folder(run, step).absolute()
    items = {"params": params}
    record = {"format": FORMAT, "digests": digests(items)}
    written = ocp.args.Composite(
        params=ocp.args.StandardSave(params), data=ocp.args.JsonSave(record)
    )
    ocp.Checkpointer(ocp.CompositeCheckpointHandler()).save(place, args=written)
    manifest.write(place)


def restore_params(run: Path, step: int, like: Params) -> Params:
    """Only the parameters of a step."""
    known = steps.committed(run)
    if step not in known:
        raise CheckpointError(f"{run / steps.STEPS} has no step {step}; it has {known}")
    return _restore(run, step, {"params": like})["params"]


def average_shapes(run: Path, step: int) -> Params:
    """The shapes of the average of a step, in the layout of training. Raises CheckpointError where it has none, Damaged
    where they cannot be read."""
    item = steps.folder(run, step).absolute() / "ema"
    if not item.is_dir():
        raise CheckpointError(
            f"step {step} in {run} has no average of its parameters, which is what the run hands out; take another "
            f"step with --step, or start over with --fresh"
        )
    # the list of files is compared before any of them is read
    reason = hosts.by_first(lambda: _flaw(item.parent, ["ema"]))
    if not reason:
        try:
            return _saved_shapes(item)
        except Exception as error:  # orbax and tensorstore raise many kinds
            reason = _reason(item.parent, ["ema"], error)
    raise _damaged(run, step, reason)


def restore_average(run: Path, step: int, like: Params) -> Params:
    """Only the average of the parameters of a step, with the shapes of `average_shapes`."""
    return _restore(run, step, {"ema": like})["ema"]


def _restore(run: Path, step: int, items: dict[str, Any]) -> dict[str, Any]:
    """Some items of a step, and its record, all of them compared with their digests."""
    place = steps.folder(run, step).absolute()
    # the files are compared by one process for all
    reason = hosts.by_first(lambda: _flaw(place, [*items, "data"]))
    if reason:
        raise _damaged(run, step, reason)
    _check_format(run, step)
    if "opt" in items and not (place / "opt").is_dir():
        raise CheckpointError(
            f"step {step} in {run} has parameters only, as `fmjax ckpt prune --params-only` leaves them, so that "
            f"training cannot go on from it; start over with --fresh, or from `fmjax ckpt export`"
        )
    found, reason = _read(place, items)
    # what one process cannot read is damaged for all
    reason = next(filter(None, hosts.exchanged(reason)), "")
    # raised out here, as the error of orbax keeps its half-read arrays and its closed event loop alive
    if reason == FOREIGN:
        raise CheckpointError(_sentence(run, step, reason))
    if reason:
        raise _damaged(run, step, reason)
    # the files are as they were written; whether what was written was right, the arrays' own digests say
    found["data"].pop("format", None)
    expected = found["data"].pop("digests", None)
    # steps of older versions have no digests, and are taken at their word
    wrong = [] if expected is None else _wrong(digests({k: found[k] for k in items}), expected)
    if wrong:
        raise _damaged(run, step, f"the array {wrong[0]} is not the one that was saved")
    return found


def _check_format(run: Path, step: int) -> None:
    """Raises CheckpointError for a step of a format that is not known yet; a damaged record is told later."""
    try:
        found = json.loads((steps.folder(run, step) / "data" / "metadata").read_bytes())["format"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if isinstance(found, int) and found > FORMAT:
        raise CheckpointError(
            f"step {step} in {run} has format {found}, and this version of fmjax knows formats up to {FORMAT}; upgrade "
            f"fmjax to go on with the run"
        )


def _flaw(place: Path, names: Sequence[str] = ()) -> str:
    """What is wrong with the files of a step; older ones have no list to compare them with."""
    return manifest.flaw(place, names) if manifest.exists(place) else ""


def _read(place: Path, items: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Items of a step and its record, as Orbax reads them, and why that failed; "" where it did not."""
    targets = {name: ocp.args.StandardRestore(value) for name, value in items.items()}
    wanted = ocp.args.Composite(**targets, data=ocp.args.JsonRestore())
    try:
        with quiet.reading():
            found = ocp.Checkpointer(ocp.CompositeCheckpointHandler()).restore(place, args=wanted)
            return dict(found.items()), ""
    except Exception as error:  # orbax and tensorstore raise many kinds
        return {}, _reason(place, [*items, "data"], error)


def flaw(run: Path, step: int) -> str:
    """What is wrong with a step of whatever run, files and arrays; "" where nothing is. Reads all of it."""
    place = steps.folder(run, step).absolute()
    reason = _flaw(place)
    try:
        record = json.loads((place / "data" / "metadata").read_bytes())
        expected = record.get("digests", {})
        for item in () if reason else sorted({path.partition(".")[0] for path in expected}):
            if not (place / item).is_dir():
                continue  # pruned, or its files would be missing
            wrong = _wrong(digests({item: as_saved(place / item)}), expected)
            if wrong:
                return f"the array {wrong[0]} is not the one that was saved"
    except Exception as error:  # orbax and tensorstore raise many kinds
        return _reason(place, ["params", "opt", "random", "data"], error)
    return reason


def as_saved(item: Path) -> Any:
    """The tree of an item, whatever is in it, on the first device."""
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one), _saved_shapes(item)
    )
    with quiet.reading():
        return ocp.StandardCheckpointer().restore(item, like)


def _saved_shapes(item: Path) -> Any:
    """The tree of an item with what Orbax has noted of its arrays, shape and dtype among it."""
    with quiet.reading():
        metadata: Any = ocp.StandardCheckpointer().metadata(item)
        return metadata.item_metadata.tree


def _wrong(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    return sorted(path for path, digest in found.items() if expected.get(path) != digest)


def _damaged(run: Path, step: int, reason: str) -> Damaged:
    return Damaged(_sentence(run, step, reason), reason)


def _sentence(run: Path, step: int, reason: str) -> str:
    return (
        f"step {step} in {run / steps.STEPS} cannot be restored: {reason}; delete that step's folder to go on from an "
        f"older one, or start over with --fresh"
    )


FOREIGN = "its arrays are not those of this run's model and optimiser"


def _reason(step: Path, items: list[str], error: Exception) -> str:
    """What is wrong with a step, in words of its files; orbax and tensorstore answer in words of their insides."""
    for record in _records(step, items):
        name = record.relative_to(step)
        if not record.is_file():
            return f"{name} is missing"
        try:
            json.loads(record.read_bytes())
        except ValueError:
            return f"{name} is damaged"
    if isinstance(error, KeyError):
        return f"its records lack {error}"

    # tensorstore names the folder that it read
    text = str(error)
    damaged = [item for item in items if f"{step / item}/" in text]
    if damaged:
        return f"the arrays in {damaged[0]} are damaged or missing"
    return FOREIGN


def _records(step: Path, items: list[str]) -> list[Path]:
    """The files of a step that orbax reads as JSON."""
    trees = [item for item in items if item != "data"]
    shapes = [path for item in trees for path in sorted((step / item).glob("array_metadatas/*"))]
    place = [step / "data" / "metadata"] if "data" in items else []
    return [*place, *(step / item / "_METADATA" for item in trees), *shapes]


def _items(state: State) -> dict[str, Any]:
    """What of a state lies in a folder of its own. An empty tree has none."""
    items = {
        "params": state.params,
        "opt": state.opt,
        "random": {"step": state.step, "key": state.key},
        "guard": dict(vars(state.guard)),
    }
    return items | ({"ema": state.ema} if state.ema else {})
