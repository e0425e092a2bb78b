"""What a DMD step shows of itself: whether its gradient vanishes, the student overshoots, the critic is behind."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    import torch

#: thirds of the schedule, by the position u = unshift_s(sigma) of a row's noise level
BANDS = ("low", "middle", "high")


@frozen(eq=False)
class Judged:
    """A DMD step: the student's x, its gradient, the critic's f, the teacher's r, float32 [R, C, H, W], and u [R]."""

    x: torch.Tensor
    gradient: torch.Tensor
    fake: torch.Tensor
    real: torch.Tensor
    u: torch.Tensor


def contrast(prediction: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """The slope of a prediction on the teacher's, [R]: cov(p, r) / var(r) over C, H, W; 1 is the right contrast.

    Above 1 a student is over-saturated. A critic that is below 1 at high noise is behind the student that it follows,
    and f - r pushes the student's contrast outwards.
    """
    p, r = _centred(prediction), _centred(real)
    return (p * r).sum(1) / _not_zero(r.square().sum(1))


def spread(prediction: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """std(p) / std(r) over C, H, W, [R]: what `contrast` and everything that the teacher does not have come to."""
    p, r = _centred(prediction), _centred(real)
    return p.norm(dim=1) / _not_zero(r.norm(dim=1))


def logs(step: Judged, broken: torch.Tensor) -> dict[str, float]:
    """Means over rows, and over the rows of each third of the noise levels (`contrast_critic.high`), where finite.

    `gradient_norm` is ||g|| / sqrt(CHW), `real_fake_gap` mean |f - r|, `real_fake_distance` ||f - r|| / ||r||,
    `real_fake_cosine` the cosine of f and r (paper: Sec. 8.1, they coincide and the gradient vanishes), `not_finite` a
    count; contrast and spread of student and critic are those above.
    """
    import torch
    from torch.nn.functional import cosine_similarity

    f, r, g = step.fake.flatten(1), step.real.flatten(1), step.gradient.flatten(1)
    whole = {
        "real_fake_gap": (f - r).abs().mean(1),
        "real_fake_distance": (f - r).norm(dim=1) / _not_zero(r.norm(dim=1)),
    }
    by_level = {
        "gradient_norm": g.square().mean(1).sqrt(),
        "real_fake_cosine": cosine_similarity(f, r, dim=1),
        "contrast_student": contrast(step.x, step.real),
        "contrast_critic": contrast(step.fake, step.real),
        "spread_student": spread(step.x, step.real),
        "spread_critic": spread(step.fake, step.real),
    }
    # one copy from the device instead of thirty
    table = torch.stack([*whole.values(), *by_level.values()]).cpu()
    means = dict(zip((*whole, *by_level), table.mean(1).tolist(), strict=True))
    third = (step.u.cpu() * len(BANDS)).long().clamp(0, len(BANDS) - 1)
    for number, band in enumerate(BANDS):
        here = third == number
        if here.any():
            values = table[len(whole) :, here].mean(1).tolist()
            means |= {f"{name}.{band}": value for name, value in zip(by_level, values, strict=True)}
    return {name: value for name, value in means.items() if isfinite(value)} | {"not_finite": float(broken)}


def by_level(name: str, values: torch.Tensor, u: torch.Tensor) -> dict[str, float]:
    """The means of `values` [R] over the rows of each third of the noise levels, by their positions u [R]."""
    third = (u * len(BANDS)).long().clamp(0, len(BANDS) - 1).to(values.device)
    here = {band: values[third == number] for number, band in enumerate(BANDS)}
    return {f"{name}.{band}": float(part.mean()) for band, part in here.items() if len(part)}


def _centred(values: torch.Tensor) -> torch.Tensor:
    flat = values.flatten(1)
    return flat - flat.mean(1, keepdim=True)


def _not_zero(values: torch.Tensor) -> torch.Tensor:
    import torch

    return values.clamp_min(torch.finfo(values.dtype).tiny)
