"""The loop around the cycles: from the last checkpoint to the last update, with reports, checkpoints and signals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

from clora.contracts.values import StepReport
from clora.diffusion.rng import StepRng
from clora.process.stopping import GO_ON, Place, during, held
from clora.runs.files.steps import StepLog
from clora.training.checkpoint import Checkpoints
from clora.training.critic_lag import is_due, probe
from clora.training.optimizer import learning_rate
from clora.training.start import begin, resume
from clora.training.teacher_lookahead import LookAhead
from clora.training.trainer import Trainer

if TYPE_CHECKING:
    from clora.adapters.adapter import Adapter
    from clora.config.schema import Train
    from clora.inference.session import ModelSession
    from clora.planning.plan import Plan
    from clora.training.batches import Batches
    from clora.training.distributed import Distributed


@frozen
class Watchers:
    """Who is told of progress; nobody by default."""

    step: Callable[[StepReport], None] = field(default=lambda report: None)
    saved: Callable[[int, Path], None] = field(default=lambda step, path: None)


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
    keys, lag = plan.recipe.train, plan.recipe.critic.lag if plan.recipe.critic else None
    checkpoints = Checkpoints(folder / "checkpoints", plan.digest, keys.keep_checkpoints)
    with during("while training", "everything up to the last checkpoint is kept"):
        state = begin(plan, session, checkpoints, batches.blank.shape, ranks, warm)
        with held() as stop, session.teachers.session(), state.owned.untouched():
            done = resume(checkpoints, state, ranks)
            log = StepLog(folder / "steps.jsonl", done) if ranks.first else None
            trainer = Trainer.of(plan, session, batches, state)
            rng = StepRng(plan.recipe.seed, rank=ranks.rank)
            ahead = LookAhead(plan, session.teachers, rng)
            for update in range(done, keys.steps):
                ahead.begin(update)
                clock = _Clock(trainer)
                logs = trainer.cycle(update, rng)
                if lag is not None and is_due(lag, update):
                    logs |= probe(trainer, lag, update, rng)
                if state.average is not None:
                    state.average.update(state.student.adapter, update + 1)
                logs["teacher.stall"] = session.teachers.take_stall()
                report = clock.report(update, keys, logs)
                state.owned.learn(report)
                if log is not None:
                    log.add(report)
                    watchers.step(report)
                last = update + 1 == keys.steps
                stopping = ranks.any(stop.asked())
                if ranks.first and (last or stopping or (update + 1) % keys.checkpoint_every == 0):
                    watchers.saved(update + 1, checkpoints.save(update + 1, state))
                if stopping:
                    ranks.wait()  # a launcher ends all as soon as one has ended: the first is still saving
                    raise stop.stopped(
                        Place("while training", f"the checkpoint of update {update + 1} is saved", GO_ON)
                    )
        ranks.wait()
    return state.student.adapter if state.average is None else state.average.adapter


class _Clock:
    """What one cycle takes, from its beginning to its report."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.started = time.perf_counter()
        self.rows = trainer.evaluator.row_forwards

    def report(self, update: int, train: Train, logs: Mapping[str, float]) -> StepReport:
        """The report of student update `update` (0-based)."""
        spent = self.trainer.evaluator.row_forwards - self.rows
        return StepReport(
            step=update + 1,
            losses={key: value for key, value in logs.items() if _is_loss(key)},
            seconds=time.perf_counter() - self.started,
            forward_equivalents=spent / train.batch_size,
            learning_rate=learning_rate(train.lr, update, train),
            logs={key: value for key, value in logs.items() if not _is_loss(key)},
        )


def _is_loss(key: str) -> bool:
    """True for a term's own value (`bs_dmd`, `critic.flow_matching`), False for what it logs and for gradient norms."""
    name = key.removeprefix("critic.")
    return "." not in name and name != "grad_norm"
