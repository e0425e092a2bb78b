"""The training loop: cycles from the last checkpoint to the end, with progress, reports and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from clora.adapters.adapter import Adapter
from clora.contracts.backbone import trained_shapes
from clora.contracts.values import StepReport
from clora.diffusion.rng import StepRng
from clora.errors import CloraError, shown
from clora.inference.session import read_adapter
from clora.planning.extension import begin
from clora.process.stopping import GO_ON, Place, during, held
from clora.runs.files.steps import StepLog
from clora.runs.run_dir import RunDir
from clora.training.checkpoint import Checkpoints, State, newest_good
from clora.training.critic_lag import is_due, probe
from clora.training.critics import SHARED, own_critics
from clora.training.cycle import Cycle
from clora.training.optimizer import MovingAverage, TrainableAdapter, learning_rate
from clora.training.teacher_lookahead import LookAhead
from clora.training.warm_start import hand_over

if TYPE_CHECKING:
    from clora.inference.session import ModelSession
    from clora.planning.plan import Plan
    from clora.training.batches import Batches
    from clora.training.distributed import Distributed


@frozen
class Watchers:
    """Who is told of progress; nobody by default."""

    step: Callable[[StepReport], None] = field(default=lambda report: None)
    saved: Callable[[int, Path], None] = field(default=lambda step, path: None)


def make_state(plan: Plan, session: ModelSession, ranks: Distributed) -> State:
    """Fresh student, critics and moving average on the world's base; the same on every rank."""
    recipe = plan.recipe
    rng = StepRng(recipe.seed).named("init")
    shapes = trained_shapes(recipe.backbone)  # teachers may cover more

    def fresh(name: str, rank: int) -> Adapter:
        alpha = recipe.student.alpha * rank / recipe.student.rank
        return session.adapted.add(name, Adapter.fresh(shapes, rank, alpha, rng.named(name)).to(session.device))

    student = TrainableAdapter(fresh("student", recipe.student.rank), recipe.train.lr, recipe.train, ranks)
    critics: dict[str, TrainableAdapter] = {}
    if recipe.critic is not None:
        for name in (SHARED, *own_critics(recipe.critic)):
            adapter = fresh(name, recipe.critic.rank or recipe.student.rank)
            critics[name] = TrainableAdapter(adapter, recipe.critic.lr, recipe.train, ranks)
    decay = recipe.student.ema
    average = None if decay is None else MovingAverage(student.adapter, decay)
    return State(student, critics.pop(SHARED, None), average, critics)


@during("while training", "everything up to the last checkpoint is kept")
def train(
    plan: Plan,
    session: ModelSession,
    batches: Batches,
    folder: Path,
    ranks: Distributed,
    watchers: Watchers,
    warm: Callable[[], Adapter | None] = lambda: None,
) -> Adapter:
    """Train to the recipe's last update and return what is served: the moving average, or the student without one.

    `warm` gives the adapter of the warm start, asked only where there is no good checkpoint to go on from. A signal is
    noted and acted on after the cycle. Raises NonFiniteLossError, and Stopped after a signal to any rank with a
    checkpoint saved; the same call then goes on exactly.
    """
    recipe = plan.recipe
    checkpoints = Checkpoints(folder / "checkpoints", plan.digest, recipe.train.keep_checkpoints)
    learnt = None if newest_good(checkpoints.folder) is not None else warm()
    state = make_state(plan, session, ranks)
    if recipe.start is not None:
        begin(state, read_adapter(session, RunDir(recipe.start.run).check_lora()), recipe.start)
    if learnt is not None and recipe.warm_start is not None:
        hand_over(state, learnt, recipe.warm_start)
    done = _resumed(checkpoints, state, ranks)
    log = StepLog(folder / "steps.jsonl", done) if ranks.first else None
    cycle = Cycle(recipe, batches, session.evaluator, state.student, state.critic, session.pace, state.own, plan.owners)
    rng = StepRng(recipe.seed, rank=ranks.rank)
    ahead = LookAhead(plan, session.teachers, rng)
    with held() as stop, session.teachers.session():
        for update in range(done, recipe.train.steps):
            ahead.begin(update)
            report = _one_cycle(cycle, state, update, rng, plan)
            report = evolve(report, logs={**report.logs, "teacher.stall": session.teachers.take_stall()})
            if log is not None:
                log.add(report)
                watchers.step(report)
            last = update + 1 == recipe.train.steps
            stopping = ranks.any(stop.asked())
            if ranks.first and (last or stopping or (update + 1) % recipe.train.checkpoint_every == 0):
                watchers.saved(update + 1, checkpoints.save(update + 1, state))
            if stopping:
                ranks.wait()  # a launcher ends all as soon as one has ended: the first is still saving
                raise stop.stopped(Place("while training", f"the checkpoint of update {update + 1} is saved", GO_ON))
    ranks.wait()
    return state.student.adapter if state.average is None else state.average.adapter


def _resumed(checkpoints: Checkpoints, state: State, ranks: Distributed) -> int:
    """The updates done: the first rank puts damaged checkpoints aside, then all take the same one."""
    done = checkpoints.resume(state) if ranks.first else 0
    ranks.wait()
    if not ranks.first:
        done = checkpoints.resume(state)
    if not ranks.agree(done):
        raise CloraError(f"{shown(checkpoints.folder)}: not every process sees the same newest checkpoint; try again")
    return done


def _one_cycle(cycle: Cycle, state: State, update: int, rng: StepRng, plan: Plan) -> StepReport:
    train_keys = plan.recipe.train
    start, rows = time.perf_counter(), cycle.evaluator.row_forwards
    logs = cycle.run(update, rng)
    lag = plan.recipe.critic.lag if plan.recipe.critic else None
    if lag is not None and is_due(lag, update):
        logs |= probe(cycle, lag, update, rng)
    if state.average is not None:
        state.average.update(state.student.adapter, update + 1)
    return StepReport(
        step=update + 1,
        losses={key: value for key, value in logs.items() if _is_loss(key)},
        seconds=time.perf_counter() - start,
        forward_equivalents=(cycle.evaluator.row_forwards - rows) / train_keys.batch_size,
        learning_rate=learning_rate(train_keys.lr, update, train_keys),
        logs={key: value for key, value in logs.items() if not _is_loss(key)},
    )


def _is_loss(key: str) -> bool:
    """True for a term's own value (`bs_dmd`, `critic.flow_matching`), False for what it logs and for gradient norms."""
    name = key.removeprefix("critic.")
    return "." not in name and name != "grad_norm"
