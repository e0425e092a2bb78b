"""What a run trains, at its first update or as a checkpoint has it: student, critics, moving average, owned parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attrs import evolve

from clora.adapters.adapter import Adapter
from clora.contracts.backbone import trained_shapes
from clora.diffusion.rng import StepRng
from clora.errors import CloraError, shown
from clora.inference.session import read_adapter
from clora.planning import extension
from clora.runs.run_dir import RunDir
from clora.training.checkpoint import Checkpoints, State, newest_good
from clora.training.chosen_optimizer import ChosenOptimizer
from clora.training.critics import SHARED, own_critics
from clora.training.optimizer import MovingAverage, TrainableAdapter
from clora.training.owned import OwnedParts
from clora.training.warm_start import hand_over

if TYPE_CHECKING:
    from clora.inference.session import ModelSession
    from clora.planning.plan import Plan
    from clora.training.distributed import Distributed


def make_state(plan: Plan, session: ModelSession, ranks: Distributed) -> State:
    """Fresh student, critics and moving average on the session's base; the same on every rank."""
    recipe = plan.recipe
    rng = StepRng(recipe.seed).named("init")
    shapes = trained_shapes(recipe.backbone)  # teachers may cover more

    def fresh(name: str, rank: int) -> Adapter:
        alpha = recipe.student.alpha * rank / recipe.student.rank
        return session.adapted.add(name, Adapter.fresh(shapes, rank, alpha, rng.named(name)).to(session.device))

    def trainable(adapter: Adapter, lr: float) -> TrainableAdapter:
        return TrainableAdapter(adapter, lr, recipe.train, ranks, ChosenOptimizer(recipe.optimizer, plan.owners))

    student = trainable(fresh("student", recipe.student.rank), recipe.train.lr)
    critics: dict[str, TrainableAdapter] = {}
    if recipe.critic is not None:
        for name in (SHARED, *own_critics(recipe.critic)):
            adapter = fresh(name, recipe.critic.rank or recipe.student.rank)
            critics[name] = trainable(adapter, recipe.critic.lr)
    decay = recipe.student.ema
    average = None if decay is None else MovingAverage(student.adapter, decay)
    return State(student, critics.pop(SHARED, None), average, critics)


def begin(
    plan: Plan,
    session: ModelSession,
    checkpoints: Checkpoints,
    latent: Sequence[int],
    ranks: Distributed,
    warm: Callable[[], Adapter | None],
) -> State:
    """The state before the first update: fresh, or the LoRA that the run goes on from, or the warm start's.

    `latent` is (C, H, W) of the batches. `warm` is asked only where there is no good checkpoint to go on from.
    """
    recipe = plan.recipe
    learnt = None if newest_good(checkpoints.folder) is not None else warm()
    state = make_state(plan, session, ranks)
    if recipe.start is not None:
        extension.begin(state, read_adapter(session, RunDir(recipe.start.run).check_lora()), recipe.start)
    if learnt is not None and recipe.warm_start is not None:
        hand_over(state, learnt, recipe.warm_start)
    return evolve(state, owned=OwnedParts.of(recipe, latent, session.device, ranks, plan.owners))


def resume(checkpoints: Checkpoints, state: State, ranks: Distributed) -> int:
    """The updates done: the first rank puts damaged checkpoints aside, then all take the same one."""
    done = checkpoints.resume(state) if ranks.first else 0
    ranks.wait()
    if not ranks.first:
        done = checkpoints.resume(state)
    if not ranks.agree(done):
        raise CloraError(f"{shown(checkpoints.folder)}: not every process sees the same newest checkpoint; try again")
    return done
