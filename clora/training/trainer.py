"""CollectionLoRA's training from top to bottom: route, prompts, simulations, losses, student update, critic updates.

One cycle is one student update and its critic updates, under one of two schedules of rollouts:

independent: every update makes its own batch and its own rollout, stopped at the drawn step; the student's x_g also
serves the critic's first update (with 8 steps, 5 critic updates and p_switch = 0.5: about 47 forward-equivalents), or
with `critic.reuse_rollout: false` a fresh rollout of the updated student, as in the public code (about 51.5).

shared: the student does not change within a cycle, so one full rollout serves the critic's updates, each with a draw of
its own, and the student's update, which comes last and so meets a critic that has just followed this very student
(about 34).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import evolve

from clora.planning.shift import few_steps
from clora.planning.teacher_schedule import first_step
from clora.plugin_system.guard import Owners
from clora.training.critics import SHARED, critic_of
from clora.training.objective import logged, not_finite, objective, share_of, stops
from clora.training.owned import OwnedParts
from clora.training.shard_sync import ShardSync
from clora.training.terms import SECTIONS, Terms

if TYPE_CHECKING:
    from clora.adapters.evaluator import Evaluator
    from clora.config.schema import Recipe
    from clora.contracts.step import LossTerm, StepContext
    from clora.diffusion.rng import StepRng
    from clora.inference.session import ModelSession
    from clora.planning.plan import Plan
    from clora.training.batches import Batches
    from clora.training.checkpoint import State
    from clora.training.optimizer import TrainableAdapter


class Trainer:
    """Makes cycles on a student and the critics that follow it."""

    def __init__(
        self,
        recipe: Recipe,
        batches: Batches,
        evaluator: Evaluator,
        student: TrainableAdapter,
        critic: TrainableAdapter | None,
        pace: ShardSync | None = None,
        own: Mapping[str, TrainableAdapter] | None = None,
        owners: Owners | None = None,
        owned: OwnedParts | None = None,
    ) -> None:
        self.recipe = recipe
        self.batches = batches
        self.evaluator = evaluator
        self.student = student
        # every critic by its adapter, the shared one first
        self.critics = {} if critic is None else {SHARED: critic, **(own or {})}
        self.pace = pace or ShardSync()
        self.owners = owners or Owners()
        self.owned = owned or OwnedParts()
        self.terms = Terms(recipe, evaluator, self.pace, self.owners, self.owned)
        self.critic_updates = recipe.critic.updates if recipe.critic else 0
        self.reuse_rollout = recipe.critic.reuse_rollout if recipe.critic else True
        self.schedule = few_steps(recipe)

    @classmethod
    def of(cls, plan: Plan, session: ModelSession, batches: Batches, state: State) -> Trainer:
        """The trainer of a plan's recipe on a model in memory."""
        parts = plan.recipe, batches, session.evaluator, state.student, state.critic, session.pace
        return cls(*parts, state.own, plan.owners, state.owned)

    def cycle(self, update: int, rng: StepRng) -> dict[str, float]:
        """Make student update `update` (0-based) and its critic updates; returns the losses and logs.

        The batches are those of the steps update * critic updates + k.
        """
        rng = rng.at(first_step(self.recipe, update))
        # every row gets a stream and a teacher (PDSR), its words (AOP) and its teacher's own output
        step = self.batches.context(rng, "student", self.schedule)
        if self.recipe.train.schedule == "shared":
            return self._shared_rollout(update, step)
        # simulations bring the student to states that it will meet (BS, TS); losses judge it there (DMD) or anchor it
        terms, arrived = self.terms.of("student", step)
        logs = self.update(update, step, terms)
        ready = {name: outcome.detach() for name, outcome in arrived.items()} if self.reuse_rollout else {}
        for k in range(self.critic_updates):
            if k:
                step = self.batches.context(rng.at(rng.step + k), "critic", self.schedule)
            here = evolve(step, phase="critic", rng=rng.at(rng.step + k))
            if k == 0 and not self.reuse_rollout:
                here = here.named("fresh")  # not the noise of the student's own rollout
            terms, _ = self.terms.of("critic", here, ready=ready if k == 0 else {})
            logs |= self.update(update, here, terms)
        return logs

    def progress(self, update: int) -> float:
        """The share of the run, in [0, 1), that is done when student update `update` begins."""
        return update / max(self.recipe.train.steps, 1)

    def _shared_rollout(self, update: int, step: StepContext) -> dict[str, float]:
        contexts = {name: evolve(step, trajectory=path) for name, path in self.terms.rollouts(step).items()}
        logs: dict[str, float] = {}
        for k in range(self.critic_updates):
            rng = step.rng.at(step.rng.step + k)
            here = evolve(step, phase="critic", rng=rng)
            theirs = {name: evolve(each, phase="critic", rng=rng) for name, each in contexts.items()}
            logs |= self.update(update, here, self.terms.of("critic", here, theirs)[0])
        return logs | self.update(update, step, self.terms.of("student", step, contexts)[0])

    def update(self, update: int, step: StepContext, terms: Mapping[str, LossTerm]) -> dict[str, float]:
        """One optimizer step of whom the step's phase trains, on the weighted sum of its terms.

        Every row has one adapter, so of several critics each gets the gradient of its own terms. Returns the losses and
        the norms of the gradients; raises NonFiniteLossError, on all ranks together, with nothing changed.
        """
        losses, section = self.terms.losses[step.phase], SECTIONS[step.phase]
        logs, found = logged(step.phase, terms), not_finite(terms, losses, step)
        owed = self.pace.owed()  # what a rank without terms still owes to the others' backward pass
        trained = {"student": self.student} if step.phase == "student" else self.critics
        fed = {critic_of(self.recipe.critic, losses[name]) if step.phase == "critic" else "student" for name in terms}
        moving = {name: each for name, each in trained.items() if each.wanted(name in fed)}
        if not moving:  # every row was of a stream that no loss of this phase reads
            return logs
        total = objective(terms, losses, step, self.progress(update))
        if owed is not None:
            total = total + owed
        if terms and not total.requires_grad:
            raise self.owners.error(f"{section}.{next(iter(terms))}", "its loss has no gradient: no forward had any")
        if terms or owed is not None:
            total.backward()
        # the gradient carries it on: after the average every rank sees it, and all stop together with nothing changed
        norms = {name: each.update(update, spoilt=found is not None) for name, each in moving.items()}
        if all(map(math.isfinite, norms.values())):
            shares = {f"{section}.{name}": (term, share_of(losses[name], step)) for name, term in terms.items()}
            norms |= self.owned.update(section, shares)
        if not all(map(math.isfinite, norms.values())):
            raise stops(step, update, found)
        return logs | {f"{name.replace('/', '.')}.grad_norm": norm for name, norm in norms.items()}
