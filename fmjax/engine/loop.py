"""The loop, whatever a run learns."""

from __future__ import annotations

from functools import partial

from jax.sharding import Mesh

from fmjax.console import console
from fmjax.data.split import Images
from fmjax.engine import hosts
from fmjax.engine.evaluate import Scores, evaluate
from fmjax.engine.placement import on_mesh
from fmjax.engine.plan import Plan
from fmjax.engine.run import Run
from fmjax.engine.signals import Asked, Stopping
from fmjax.engine.state import State, handed_out
from fmjax.engine.step import compiled
from fmjax.engine.throughput import ceiling
from fmjax.engine.unreadable import SharedBadImages
from fmjax.engine.watch import Watch
from fmjax.errors import Stopped


def train(plan: Plan, run: Run, mesh: Mesh, state: State, images: Images) -> tuple[State, Scores]:
    """Steps from where the run is to its last one, scoring and saving on the way; the last state, and its scores.

    state: the first one; it is given up where the run goes on from a saved one. Raises Stopped, with the step that is
    saved, where the process is asked to stop.
    """
    functions = compiled(plan, mesh)
    bad = SharedBadImages(images.train, plan.data.max_bad, plan.data.max_bad_share)
    state, batches, start = run.resume(plan, mesh, state, images.train, bad, console.print)
    number = start
    # from before there is anything to see of the run: who waits for that may ask it to stop at once
    with (
        Stopping(hosts.stop_here) as stopping,
        Watch(plan, run.metrics(start), bad, start, run.on_disk, ceiling(plan, mesh)) as watch,
    ):
        evaluated = partial(
            evaluate,
            plan,
            functions.outputs,
            examples=images.val,
            mesh=mesh,
            data=plan.data,
            batch_size=plan.part_size,
            tell=watch.tell,
            watched=stopping.watched,
        )

        def score() -> Scores:
            # the state after the newest step; outputs that are no numbers end the run
            with watch.alarms.scoring(number):
                return evaluated(handed_out(plan, state))

        def note(step: int, found: Scores) -> int | None:
            """Writes scores down, keeps the rows of the best, and returns the best step."""
            watch.scores(step, found)
            best = run.keep_best(plan, watch.metrics)
            for line in run.keep_rows(step, best, found, images.split.val.names):
                watch.tell(line)
            return best

        run.keep_best(plan, watch.metrics)
        try:
            # a run that was stopped while it was scored is scored first
            if start and plan.evaluates(start) and not run.has_scores(watch.metrics, start):
                note(start, score())
            for number in range(start + 1, plan.steps + 1):
                with watch.profile.step(number):
                    batch = watch.next(batches)
                    state, logs = functions.step(state, on_mesh(batch, mesh, plan.batch_size))
                watch.logs(number, logs)
                run.checkpoints.check()
                with watch.paused():
                    # saved first: the score is taken while the disk writes
                    if watch.saves(number):
                        run.save(number, state, batches, bad)
                    if plan.evaluates(number) and note(number, score()) == number:
                        run.save(number, state, batches, bad)
                stopping.check()
            scores = score()
        except Asked:
            # between two steps: the state is whole
            watch.alarms.look()
            bad.meet(watch.tell)
            run.save(number, state, batches, bad)
            run.close()
            raise Stopped(stopping.sentence(number)) from None
        if not run.has_scores(watch.metrics, plan.steps):
            note(plan.steps, scores)
        for line in (*bad.summary(), *watch.alarms.summary(plan.steps)):
            watch.tell(line)
    run.close()
    return state, scores
