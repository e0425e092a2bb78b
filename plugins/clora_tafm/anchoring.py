"""Flow matching of the student on the teacher's own outputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen
from attrs.validators import in_, optional

from clora.api import (
    ForwardCoroutine,
    LossTerm,
    StepContext,
    Stream,
    StudentLoss,
    add_noise,
    between,
    shift,
    streams_key,
    velocity_target,
)

if TYPE_CHECKING:
    import torch


@frozen
class TaFm(StudentLoss):
    """Trajectory anchoring by flow matching (CollectionLoRA, TA-FM).

    `sigma_sampling: above_dmd` draws as the public code does: u between a DMD noise level and 1, then shifted.
    """

    streams: tuple[Stream, ...] = streams_key("effect")  # whose rows train it
    #: how the level is drawn: as in the paper, or as in the public code
    sigma_sampling: Literal["uniform_shifted", "above_dmd"] = field(
        default="uniform_shifted", validator=in_(("uniform_shifted", "above_dmd"))
    )
    #: the least u of `above_dmd`, in thousandths; null: drawn anew for every row
    t_dmd: float | None = field(default=None, validator=optional(between(0.0, 1000.0, below=True)))

    def check(self) -> Iterable[str]:
        """A sentence where `t_dmd` is given but never read."""
        if self.t_dmd is not None and self.sigma_sampling != "above_dmd":
            yield f"t_dmd {self.t_dmd:g} has no effect without sigma_sampling: above_dmd"

    def __call__(self, step: StepContext) -> ForwardCoroutine[LossTerm]:
        """L = mean((v_student(y_sigma, sigma, c_student) - (eps - y))^2), in float32   (CollectionLoRA, TA-FM).

        y is the teacher's output [R, C, H, W].
        """
        y = step.targets
        sigma = self.sigmas(step).to(y.device)
        noise = step.rng.normal("noise", y)
        velocity = yield step.forward("student", add_noise(y, noise, sigma), sigma, grad=True)
        error = velocity.float() - velocity_target(y.float(), noise.float())
        return LossTerm(error.square().mean())

    def sigmas(self, step: StepContext) -> torch.Tensor:
        """sigma = shift_s(u) [R]: u ~ U(0, 1), or U(t_dmd, 1) with t_dmd = shift_s(U(0, 1))   (paper; public code)."""
        count, s = len(step.rows), step.shift
        u = step.rng.uniform("sigma", count)
        if self.sigma_sampling == "above_dmd":
            t_dmd = shift(step.rng.uniform("t_dmd", count), s) if self.t_dmd is None else self.t_dmd / 1000
            u = t_dmd + (1 - t_dmd) * u
        return shift(u, s)
