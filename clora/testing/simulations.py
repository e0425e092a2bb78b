"""What `clora.testing.conformance` asks of a simulation: an outcome for every row, and a rollout that saves work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from attrs import evolve

from clora.contracts.method import ChecksSchedule, SharesTrajectory
from clora.contracts.step import StepContext
from clora.contracts.values import Row
from clora.plugin_system.guard import Owners, sentences
from clora.testing import drive, example_step
from clora.testing.fake_network import EFFECTS, FakeNetwork, outcomes_for, step_of
from clora.training.answers import simulated_problem, trajectory_problem


def _schedule_problems(simulation: object) -> Iterator[str]:
    """Faults of the check itself; what it finds wrong with a schedule is its own business."""
    if isinstance(simulation, ChecksSchedule):
        for steps in (1, 4, 50):
            schedule = _one_row(steps).schedule
            found = sentences("check_schedule", lambda schedule=schedule: simulation.check_schedule(schedule))
            yield from (told for told in found if told.startswith("its check_schedule"))


def simulation_problems(simulation: Any) -> Iterator[str]:
    """An outcome for every row in both phases, the student's with a gradient; repeatable; a rollout that serves."""
    import torch

    yield from _schedule_problems(simulation)
    rollout = _rollout_of(simulation)
    for phase in ("student", "critic"):
        step = step_of([Row("effect", effect) for effect in EFFECTS], phase)
        latent = tuple(step.targets.shape[1:])
        made = []
        for _ in range(2):
            network = FakeNetwork()
            with Owners().calling("simulations"):
                made.append(drive(simulation.simulate(step), network, outcomes_for(simulation, step, network)))
            problem = simulated_problem(made[-1], step.rows, latent)
            if problem is not None:
                yield f"in the {phase}'s phase it {problem}"
                return
        if phase == "student" and not made[0].x0.requires_grad:
            yield "its x0 has no gradient in the student's phase: ask for the last forward with grad=True"
        if not torch.equal(made[0].x0, made[1].x0):
            yield "the same step gave two outcomes: draw from step.rng"
        if rollout is not None:
            path = drive(rollout(step), FakeNetwork())
            problem = trajectory_problem(path, len(step.rows), latent)
            if problem is not None:
                yield f"its rollout {problem}"
                return
            alone, shared = FakeNetwork(), FakeNetwork()
            drive(simulation.simulate(step), alone, outcomes_for(simulation, step, alone))
            drive(simulation.simulate(evolve(step, trajectory=path)), shared, outcomes_for(simulation, step, shared))
            if shared.asked > alone.asked:
                yield f"with a trajectory it asks for {shared.asked} forwards, and for {alone.asked} without"


def _rollout_of(simulation: object) -> Callable[[StepContext], Any] | None:
    """The rollout of a simulation that can share one."""
    return simulation.rollout if isinstance(simulation, SharesTrajectory) else None


def _one_row(steps: int) -> StepContext:
    import torch

    return example_step([Row("general")], torch.zeros(1, 1, 2, 2), steps=steps)
