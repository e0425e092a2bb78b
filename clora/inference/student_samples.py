"""Pictures of the student while it trains, made so that no number of the training changes.

Their noise has streams of its own, which are the same at every update, so that two sheets differ by the student alone.
What they are made from is encoded apart from the training's conditions: the last bits of an encoding depend on the
batch that it is made in. Torch's own generators are put back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from clora.contracts.run import EffectEdits, SampleRequest
from clora.diffusion.rng import StepRng
from clora.inference.edit_sampler import EditSampler

if TYPE_CHECKING:
    from clora.inference.conditioning import Condition
    from clora.inference.session import ModelSession
    from clora.planning.plan import Plan

#: bytes of encoded words and pictures that are kept between two updates
KEPT_BYTES = 1 << 26


class StudentSamples:
    """Makes the pictures of requests with the weights that the student has now, on a session that trains it."""

    def __init__(self, plan: Plan, session: ModelSession) -> None:
        self.plan = plan
        self.session = session
        self.conditioning = session.separate_conditioning(KEPT_BYTES)
        self.sampler = EditSampler(plan, session, self.conditioning)
        self.rng = StepRng(plan.recipe.seed).named("observers")

    def make(self, request: SampleRequest) -> tuple[EffectEdits, ...]:
        """The pictures of a request, on the CPU. A backbone in parts has its VAE in memory meanwhile."""
        devices = [self.session.device] if self.session.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            try:
                return tuple(self._effect(effect, request.pictures) for effect in request.effects)
            finally:
                self.session.only("network")

    def _effect(self, effect: str, pictures: int) -> EffectEdits:
        names = sources_of(self.plan, effect, pictures)
        prompts = [prompt_of(self.plan, effect)] * len(names)
        sample = self.sampler.few_step if self.plan.recipe.serve.sampler == "few_step" else self.sampler.teacher
        student = sample("student", prompts, names, self.rng.named(effect))
        return EffectEdits(effect, names, self.conditioning.images(names).cpu(), student)


def sources_of(plan: Plan, effect: str, pictures: int) -> tuple[str, ...]:
    """The test pictures of an effect that are shown."""
    return tuple(plan.recipe.dataset.sources(effect, "test")[:pictures])


def prompt_of(plan: Plan, effect: str) -> str:
    """The words that the run will be served with."""
    words = plan.prompts[effect]
    return words.student if plan.recipe.serve.prompts == "student" else words.teacher


def conditions_of_samples(plan: Plan) -> Iterator[Condition]:
    """All that the pictures of a plan's observers are made from."""
    for request in plan.samples.values():
        for effect in request.effects:
            prompts = {prompt_of(plan, effect)} | ({""} if plan.recipe.serve.sampler == "teacher" else set())
            for name in sources_of(plan, effect, request.pictures):
                yield from ((prompt, name) for prompt in sorted(prompts))
