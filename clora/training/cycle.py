"""One cycle of training: a student update and its critic updates, under one of two schedules of rollouts.

independent: every update makes its own batch and its own rollout, stopped at the drawn step; the student's x_g also
serves the critic's first update (with 8 steps, 5 critic updates and p_switch = 0.5: about 47 forward-equivalents), or
with `critic.reuse_rollout: false` a fresh rollout of the updated student, as in the public code (about 51.5).

shared: the student does not change within a cycle, so one full rollout serves the critic's updates, each with a draw of
its own, and the student's update, which comes last and so meets a critic that has just followed this very student
(about 34).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve

from clora.contracts.method import SharesTrajectory, UsesSimulation, WeighsOverTime
from clora.contracts.values import LossTerm, Phase, Simulated, StepContext, Stream, Trajectory
from clora.errors import CloraError
from clora.planning.shift import few_steps
from clora.planning.teacher_schedule import first_step
from clora.plugin_system.guard import Owners
from clora.training.answers import simulated_problem, term_problem, trajectory_problem
from clora.training.critics import SHARED, critic_of
from clora.training.forward_scheduler import Guard, run_together
from clora.training.shard_sync import ShardSync

if TYPE_CHECKING:
    from clora.adapters.evaluator import Evaluator
    from clora.config.schema import Recipe
    from clora.contracts.method import Loss
    from clora.diffusion.rng import StepRng
    from clora.training.batches import Batches
    from clora.training.optimizer import TrainableAdapter


class NonFiniteLossError(CloraError):
    """A loss or gradient became infinite or not a number; the last good checkpoint stands."""


class Cycle:
    """Runs cycles: `run(n)` makes student update n (0-based) and its critic updates."""

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
    ) -> None:
        self.recipe = recipe
        self.batches = batches
        self.evaluator = evaluator
        self.student = student
        self.critic = critic
        self.own = dict(own or {})  # the critics that simulations have to themselves, by adapter
        self.pace = pace or ShardSync()
        self.owners = owners or Owners()
        self.critic_losses: Mapping[str, Loss] = recipe.critic.losses if recipe.critic else {}
        self.critic_updates = recipe.critic.updates if recipe.critic else 0
        self.reuse_rollout = recipe.critic.reuse_rollout if recipe.critic else True
        self.schedule = few_steps(recipe)

    def run(self, update: int, rng: StepRng) -> dict[str, float]:
        """Make update `update`; returns the losses and logs. Step n of the run is update * critic updates + k."""
        rng = rng.at(first_step(self.recipe, update))
        if self.recipe.train.schedule == "shared":
            return self._shared(update, rng)
        return self._independent(update, rng)

    def _shared(self, update: int, rng: StepRng) -> dict[str, float]:
        step = self.batches.context(rng, "student", self.schedule)
        contexts = {name: evolve(step, trajectory=path) for name, path in self._rollouts(step).items()}
        logs: dict[str, float] = {}
        for k in range(self.critic_updates):
            critics = {name: evolve(s, phase="critic", rng=rng.at(rng.step + k)) for name, s in contexts.items()}
            here = evolve(step, phase="critic", rng=rng.at(rng.step + k))
            logs |= self._update_critic(update, here, critics, {})
        terms, _ = self._terms("student", step, contexts, self.recipe.losses, {})
        return logs | self._apply("student", update, step, terms, {"student": self.student})

    def _independent(self, update: int, rng: StepRng) -> dict[str, float]:
        step = self.batches.context(rng, "student", self.schedule)
        terms, outcomes = self._terms("student", step, {}, self.recipe.losses, {})
        ready = {name: outcome.detach() for name, outcome in outcomes.items()} if self.reuse_rollout else {}
        logs = self._apply("student", update, step, terms, {"student": self.student})
        for k in range(self.critic_updates):
            if k:
                step = self.batches.context(rng.at(rng.step + k), "critic", self.schedule)
            critic_scene = evolve(step, phase="critic", rng=rng.at(rng.step + k))
            if k == 0 and not self.reuse_rollout:
                critic_scene = critic_scene.named("fresh")  # not the noise of the student's own rollout
            logs |= self._update_critic(update, critic_scene, {}, ready if k == 0 else {})
        return logs

    def _rollouts(self, step: StepContext) -> dict[str, Trajectory]:
        """One full trajectory over all rows for every simulation that can share one."""
        sharing = {
            name: simulation
            for name, simulation in self.recipe.simulations.items()
            if isinstance(simulation, SharesTrajectory)
            and self._streams(name, {**self.recipe.losses, **self.critic_losses})
        }
        rollouts = {}
        for name, simulation in sharing.items():
            with self.owners.calling(f"simulations.{name}"):
                rollouts[name] = simulation.rollout(step.named(f"simulations.{name}.rollout"))
        latent = tuple(step.targets.shape[1:])
        check = partial(_rollout_problem, len(step.rows), latent)
        made = run_together({}, rollouts, self.evaluator, guard=Guard(self.owners, latent, "simulations", check))[1]
        self.pace.finish()
        return made

    def _streams(self, simulation: str, losses: Mapping[str, Loss]) -> tuple[Stream, ...]:
        """The streams whose rows a simulation must cover for these losses."""
        users = [s for s in losses.values() if isinstance(s, UsesSimulation) and s.simulation == simulation]
        return tuple(dict.fromkeys(stream for loss in users for stream in loss.streams))

    def _terms(
        self,
        phase: Phase,
        step: StepContext,
        contexts: Mapping[str, StepContext],
        losses: Mapping[str, Loss],
        ready: Mapping[str, Simulated],
    ) -> tuple[dict[str, LossTerm], dict[str, Simulated]]:
        """All loss terms of a phase. `contexts` holds a simulation's own step where it has a trajectory to read."""
        section = "losses" if phase == "student" else "critic.losses"
        latent = tuple(step.targets.shape[1:])
        simulations: dict[str, Any] = {}
        asked: dict[str, tuple[int, ...]] = {}
        usable = dict(ready)
        for name, simulation in self.recipe.simulations.items():
            part = contexts.get(name, step).named(f"simulations.{name}").select(self._streams(name, losses))
            if name in usable and not set(part.rows) <= set(usable[name].rows):
                del usable[name]
            if part.rows and name not in usable:
                with self.owners.calling(f"simulations.{name}"):
                    simulations[name] = simulation.simulate(part)
                asked[f"simulations.{name}"] = part.rows
        running = {}
        for name, loss in losses.items():
            part = step.named(f"{phase}.losses.{name}").select(loss.streams)
            if part.rows:
                with self.owners.calling(f"{section}.{name}"):
                    running[name] = loss(evolve(part, critic=critic_of(self.recipe.critic, loss)))
        guard = Guard(self.owners, latent, section, partial(_result_problem, asked, latent))
        outcomes, terms = run_together(simulations, running, self.evaluator, usable, guard)
        self.pace.finish()
        return terms, outcomes

    def _update_critic(
        self, update: int, step: StepContext, contexts: Mapping[str, StepContext], ready: Mapping[str, Simulated]
    ) -> dict[str, float]:
        terms, _ = self._terms("critic", step, contexts, self.critic_losses, ready)
        return self._apply("critic", update, step, terms, self.critics)

    @property
    def critics(self) -> dict[str, TrainableAdapter]:
        """Every critic by its adapter, the shared one first."""
        return {} if self.critic is None else {SHARED: self.critic, **self.own}

    def critic_terms(self, step: StepContext) -> dict[str, LossTerm]:
        """The terms of the critic's losses on fresh rollouts of the student, with their graph; nothing is updated."""
        return self._terms("critic", step, {}, self.critic_losses, {})[0]

    def critic_objective(self, terms: Mapping[str, LossTerm], step: StepContext, update: int) -> torch.Tensor:
        """What the critics minimise in student update `update`: the weighted sum over the whole batch's rows."""
        total = torch.zeros(())
        for name, term in terms.items():
            loss = self.critic_losses[name]
            share = len(step.route.of(loss.streams)) / len(step.rows)
            total = total + self._weight(loss, update) * share * term.loss
        return total

    def _apply(
        self,
        phase: Phase,
        update: int,
        step: StepContext,
        terms: Mapping[str, LossTerm],
        trained: Mapping[str, TrainableAdapter],
    ) -> dict[str, float]:
        """Sum the weighted terms, go back through them, update who is trained; returns what the curves show.

        L = sum_k weight_k (R_k / B) mean_{R_k} l_k: R_k are a term's own rows, B those of the batch. So twelve rows in
        one process are twelve ranks of one row, whose gradients are averaged. Every row has one adapter, so of several
        critics each gets the gradient of its own terms.
        """
        losses = self.recipe.losses if phase == "student" else self.critic_losses
        logs: dict[str, float] = {}
        culprit: str | None = None
        total = torch.zeros(())
        for name, term in terms.items():
            share = len(step.route.of(losses[name].streams)) / len(step.rows)
            total = total + self._weight(losses[name], update) * share * term.loss
            label = name if phase == "student" else f"critic.{name}"
            logs[label] = float(term.loss.detach())
            logs |= {f"{label}.{key}": value for key, value in term.logs.items()}
            if culprit is None and not torch.isfinite(term.loss):
                culprit = _where(phase, label, update, step.select(losses[name].streams))
        owed = self.pace.owed()
        fed = {critic_of(self.recipe.critic, losses[name]) if phase == "critic" else phase for name in terms}
        moving = {name: each for name, each in trained.items() if each.wanted(name in fed)}
        if not moving:  # every row was of a stream that no loss of this phase reads
            return logs
        if owed is not None:
            total = total + owed
        if terms and not total.requires_grad:
            section = "losses" if phase == "student" else "critic.losses"
            raise self.owners.error(f"{section}.{next(iter(terms))}", "its loss has no gradient: no forward had any")
        if terms or owed is not None:
            total.backward()
        # the gradient passes it on: after the average every rank sees it, and all stop together with nothing changed
        norms = {name: each.update(update, spoilt=culprit is not None) for name, each in moving.items()}
        logs |= {f"{name.replace('/', '.')}.grad_norm": norm for name, norm in norms.items()}
        if not all(map(math.isfinite, norms.values())):
            raise NonFiniteLossError(culprit or _where(phase, "gradient", update, step))
        return logs

    def _weight(self, loss: Loss, update: int) -> float:
        """A loss's weight in student update `update` (0-based)."""
        if isinstance(loss, WeighsOverTime):
            return loss.weight_at(update / max(self.recipe.train.steps, 1))
        return loss.weight


def _rollout_problem(rows: int, latent: Sequence[int], place: str, path: object) -> str | None:
    return trajectory_problem(path, rows, latent)


def _result_problem(
    asked: Mapping[str, Sequence[int]], latent: Sequence[int], place: str, result: object
) -> str | None:
    """What is wrong with what a simulation (one of `asked`, with its rows) or a loss returned."""
    return simulated_problem(result, asked[place], latent) if place in asked else term_problem(result)


def _where(phase: Phase, term: str, update: int, step: StepContext) -> str:
    streams = ", ".join(sorted({row.stream for row in step.route.rows}))
    effects = ", ".join(sorted({row.effect for row in step.route.rows if row.effect})) or "none"
    return (
        f"{phase} update {update + 1}: the term {term} is not a finite number "
        f"(streams: {streams}; effects: {effects}). "
        "The last checkpoint is untouched; try a lower train.lr or train.grad_clip and run the same command again"
    )
