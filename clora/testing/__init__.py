"""Helpers for the tests of components, ours and third parties': a small step, and a loop that drives one generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from clora.contracts.step import Await, Forward, Inside, Simulated, StepContext, Trajectory
from clora.contracts.values import Conditions, Phase, RoleConditions, Route, Row
from clora.diffusion.flow import Schedule
from clora.diffusion.rng import StepRng

if TYPE_CHECKING:
    import torch

    from clora.contracts.step import ForwardCoroutine

T = TypeVar("T")


def drive(
    asking: ForwardCoroutine[T],
    velocity: Callable[[Forward], torch.Tensor | Inside],
    simulated: Mapping[str, Simulated] | None = None,
) -> T:
    """Run one simulation or loss to its end and return its result.

    `velocity` answers every Forward with a tensor like its x_sigma, or an Inside where it has depths; a graph is
    recorded only where the Forward asks for one, as in the training loop. Raises KeyError where a loss awaits a
    simulation that `simulated` lacks, and TypeError for anything else that is yielded.
    """
    import torch

    from clora.plugin_system.guard import came
    from clora.training.answers import forwards_of, reply

    answer: Any = None
    while True:
        try:
            question = asking.send(answer)
        except StopIteration as end:
            return end.value
        if isinstance(question, Await):
            answer = (simulated or {})[question.simulation]
            continue
        forwards = forwards_of(question)
        if forwards is None:
            raise TypeError(f"expected a Forward, a tuple or a dict of them, or an Await, and got {came(question)}")
        answers: list[torch.Tensor | Inside] = []
        for forward in forwards:
            with torch.set_grad_enabled(forward.recorded):
                answers.append(velocity(forward))
        answer = reply(question, answers)


def example_step(
    rows: Sequence[Row],
    targets: torch.Tensor,
    *,
    phase: Phase = "student",
    rng: StepRng | None = None,
    steps: int = 8,
    shift: float = 3.0,
    trajectory: Trajectory | None = None,
) -> StepContext:
    """A step over latents `targets` [R, C, H, W] whose conditions say who reads them.

    Text [R, 1, 1] is 1 for the student, 2 for the teacher and 0 for no words, plus a tenth of the row's number; the
    source latents are zero. Its `decode` shows the first three channels, fewer ones again.
    """
    import torch

    count = len(rows)

    def conditions(word: float) -> Conditions:
        text = (word + 0.1 * torch.arange(count, dtype=targets.dtype)).reshape(count, 1, 1)
        return Conditions(text, torch.ones(count, 1, dtype=torch.bool), torch.zeros_like(targets))

    return StepContext(
        phase=phase,
        rng=rng or StepRng(seed=0),
        schedule=Schedule.shifted(steps, shift),
        shift=shift,
        route=Route(tuple(rows)),
        rows=tuple(range(count)),
        conditions=RoleConditions(conditions(1.0), conditions(2.0), conditions(0.0)),
        targets=targets,
        trajectory=trajectory,
        decode=_first_channels,
    )


def _first_channels(latents: torch.Tensor) -> torch.Tensor:
    return latents[:, [channel % latents.shape[1] for channel in range(3)]].clamp(-1, 1)
