"""The loss terms of one phase: simulations and losses run side by side on their rows, every answer checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import evolve

from clora.contracts.method import SharesTrajectory, UsesSimulation
from clora.contracts.step import LossTerm, Simulated, StepContext, Trajectory
from clora.contracts.values import Phase, Stream
from clora.training.answers import simulated_problem, term_problem, trajectory_problem
from clora.training.critics import critic_of
from clora.training.forward_scheduler import Guard, run_together

if TYPE_CHECKING:
    from clora.adapters.evaluator import Evaluator
    from clora.config.schema import Recipe
    from clora.contracts.method import Loss, SimulationSchedule
    from clora.plugin_system.guard import Owners
    from clora.training.owned import OwnedParts
    from clora.training.shard_sync import ShardSync

#: where in a recipe the losses of a phase stand
SECTIONS: Mapping[Phase, str] = {"student": "losses", "critic": "critic.losses"}


class Terms:
    """Computes the loss terms of a recipe for a step."""

    def __init__(
        self, recipe: Recipe, evaluator: Evaluator, pace: ShardSync, owners: Owners, owned: OwnedParts
    ) -> None:
        self.recipe = recipe
        self.evaluator = evaluator
        self.pace = pace
        self.owners = owners
        self.owned = owned
        self.losses: dict[Phase, Mapping[str, Loss]] = {
            "student": recipe.losses,
            "critic": recipe.critic.losses if recipe.critic else {},
        }

    def rollouts(self, step: StepContext) -> dict[str, Trajectory]:
        """One full trajectory [steps, B, C, H, W] over all rows for every simulation that can share one."""
        every = {**self.losses["student"], **self.losses["critic"]}
        running = {}
        for name, streams in streams_by_simulation(self.recipe.simulations, every).items():
            simulation = self.recipe.simulations[name]
            if isinstance(simulation, SharesTrajectory) and streams:
                with self.owners.calling(f"simulations.{name}"):
                    running[name] = simulation.rollout(step.named(f"simulations.{name}.rollout"))
        latent = tuple(step.targets.shape[1:])
        check = partial(_rollout_problem, len(step.rows), latent)
        made = run_together({}, running, self.evaluator, guard=Guard(self.owners, latent, "simulations", check))[1]
        self.pace.finish()
        return made

    def of(
        self,
        phase: Phase,
        step: StepContext,
        contexts: Mapping[str, StepContext] | None = None,
        ready: Mapping[str, Simulated] | None = None,
    ) -> tuple[dict[str, LossTerm], dict[str, Simulated]]:
        """The terms of a phase's losses, and where the simulations arrived, both by name.

        `contexts` holds a simulation's own step where it has a trajectory to read; `ready` outcomes that are known
        already and are taken where they cover the rows.
        """
        section, losses = SECTIONS[phase], self.losses[phase]
        latent = tuple(step.targets.shape[1:])
        known = dict(ready or {})
        simulations: dict[str, Any] = {}
        asked: dict[str, tuple[int, ...]] = {}
        for name, streams in streams_by_simulation(self.recipe.simulations, losses).items():
            simulation = self.recipe.simulations[name]
            part = (contexts or {}).get(name, step).named(f"simulations.{name}").select(streams)
            if name in known and not set(part.rows) <= set(known[name].rows):
                del known[name]
            if part.rows and name not in known:
                with self.owners.calling(f"simulations.{name}"):
                    simulations[name] = simulation.simulate(part)
                asked[f"simulations.{name}"] = part.rows
        running = {}
        for name, loss in losses.items():
            part = step.named(f"{phase}.losses.{name}").select(loss.streams)
            if part.rows:
                place = f"{section}.{name}"
                own = self.owned.modules(place)
                with self.owners.calling(place):
                    running[name] = loss(evolve(part, critic=critic_of(self.recipe.critic, loss), modules=own))
        guard = Guard(self.owners, latent, section, partial(_result_problem, asked, latent))
        outcomes, terms = run_together(simulations, running, self.evaluator, known, guard)
        self.pace.finish()
        return terms, outcomes


def streams_by_simulation(
    simulations: Mapping[str, SimulationSchedule], losses: Mapping[str, Loss]
) -> dict[str, tuple[Stream, ...]]:
    """The streams whose rows every simulation must cover for these losses, also by way of simulations that read it."""
    asked: dict[str, dict[Stream, None]] = {name: {} for name in simulations}
    for loss in losses.values():
        for name in _chain(loss, simulations):
            asked[name] |= dict.fromkeys(loss.streams)
    return {name: tuple(streams) for name, streams in asked.items()}


def _chain(loss: Loss, simulations: Mapping[str, SimulationSchedule]) -> Sequence[str]:
    """The simulation that a loss reads, the one that this reads, and so on; each once."""
    chain: dict[str, None] = {}
    part: Any = loss
    while isinstance(part, UsesSimulation) and part.simulation in simulations and part.simulation not in chain:
        chain[part.simulation] = None
        part = simulations[part.simulation]
    return tuple(chain)


def _rollout_problem(rows: int, latent: Sequence[int], place: str, path: object) -> str | None:
    return trajectory_problem(path, rows, latent)


def _result_problem(
    asked: Mapping[str, Sequence[int]], latent: Sequence[int], place: str, result: object
) -> str | None:
    """What is wrong with what a simulation (one of `asked`, with its rows) or a loss returned."""
    return simulated_problem(result, asked[place], latent) if place in asked else term_problem(result)
