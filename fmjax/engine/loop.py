"""The loop, whatever a run learns."""

from __future__ import annotations

from functools import partial

from jax.sharding import Mesh

from fmjax.data.batches import BadImages
from fmjax.data.split import Images
from fmjax.engine.evaluate import Scores, evaluate
from fmjax.engine.placement import on_mesh
from fmjax.engine.plan import Plan
from fmjax.engine.run import Run
from fmjax.engine.state import State
from fmjax.engine.step import compiled
from fmjax.engine.watch import Watch


def train(plan: Plan, run: Run, mesh: Mesh, state: State, images: Images) -> tuple[State, Scores]:
    """Steps from where the run is to its last one, scoring and saving on the way; the last state, and its scores.

    state: the first one; it is given up where the run goes on from a saved one.
    """
    functions = compiled(plan, mesh)
    bad = BadImages(images.train, plan.data.max_bad)
    state, batches, start = run.resume(plan, mesh, state, images.train, bad)
    score = partial(
        evaluate,
        plan,
        functions.outputs,
        examples=images.val,
        mesh=mesh,
        data=plan.data,
        batch_size=plan.batch_size,
    )
    with Watch(plan, run.metrics(start), bad, start) as watch:
        for number in range(start + 1, plan.steps + 1):
            batch = watch.next(batches)
            state, logs = functions.step(state, on_mesh(batch, mesh))
            watch.logs(number, logs)
            # the state after the last step is scored below, so that a finished run can be scored again
            with watch.paused():
                if plan.evaluates(number):
                    watch.scores(number, score(state.params, tell=watch.tell))
                if plan.saves(number):
                    run.save(number, state, batches, bad)
        scores = score(state.params, tell=watch.tell)
        if not watch.metrics.has_scores(plan.steps):
            watch.scores(plan.steps, scores)
    run.close()
    return state, scores
