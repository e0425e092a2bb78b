"""What an update minimises: the weighted sum of the loss terms, averaged over the rows of the whole batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from clora.contracts.method import WeighsOverTime
from clora.errors import CloraError

if TYPE_CHECKING:
    from clora.contracts.method import Loss
    from clora.contracts.step import LossTerm, StepContext
    from clora.contracts.values import Phase


class NonFiniteLossError(CloraError):
    """A loss or gradient became infinite or not a number; the last good checkpoint stands."""


def objective(
    terms: Mapping[str, LossTerm], losses: Mapping[str, Loss], step: StepContext, progress: float
) -> torch.Tensor:
    """L = sum_k weight_k (R_k / B) mean_{R_k} l_k after `progress` in [0, 1) of the run; a scalar.

    R_k are a term's own rows, B those of the batch: twelve rows in one process are twelve ranks of one row, whose
    gradients are averaged.
    """
    total = torch.zeros(())
    for name, term in terms.items():
        total = total + weight_at(losses[name], progress) * share_of(losses[name], step) * term.loss
    return total


def weight_at(loss: Loss, progress: float) -> float:
    """A loss's weight after `progress` in [0, 1) of the run's student updates."""
    return loss.weight_at(progress) if isinstance(loss, WeighsOverTime) else loss.weight


def share_of(loss: Loss, step: StepContext) -> float:
    """R_k / B: the share of a step's rows that belong to a loss's streams."""
    return len(step.route.of(loss.streams)) / len(step.rows)


def logged(phase: Phase, terms: Mapping[str, LossTerm]) -> dict[str, float]:
    """Every term's value and logs as the curves name them: `bs_dmd`, `critic.flow.error.high`."""
    values: dict[str, float] = {}
    for name, term in terms.items():
        label = _label(phase, name)
        values[label] = float(term.loss.detach())
        values |= {f"{label}.{key}": value for key, value in term.logs.items()}
    return values


def not_finite(terms: Mapping[str, LossTerm], losses: Mapping[str, Loss], step: StepContext) -> str | None:
    """The first term that is not finite, as a phrase with its streams and effects; None where all are."""
    for name, term in terms.items():
        if not torch.isfinite(term.loss):
            return f"the term {_label(step.phase, name)} {_of_rows(step.select(losses[name].streams))}"
    return None


def stops(step: StepContext, update: int, found: str | None) -> NonFiniteLossError:
    """The error that stops a run in student update `update` (0-based): what is not finite, and what helps."""
    what = found or f"the term gradient {_of_rows(step)}"
    return NonFiniteLossError(
        f"{step.phase} update {update + 1}: {what}. "
        "The last checkpoint is untouched; try a lower train.lr or train.grad_clip and run the same command again"
    )


def _label(phase: Phase, name: str) -> str:
    return name if phase == "student" else f"critic.{name}"


def _of_rows(step: StepContext) -> str:
    streams = ", ".join(sorted({row.stream for row in step.route.rows}))
    effects = ", ".join(sorted({row.effect for row in step.route.rows if row.effect})) or "none"
    return f"is not a finite number (streams: {streams}; effects: {effects})"
