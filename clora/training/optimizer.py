"""One trained adapter: its optimizer, clipping, the learning rate's course, a moving average."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from clora.adapters.adapter import Adapter
from clora.training.chosen_optimizer import ChosenOptimizer
from clora.training.optimizer_state import OptimizerState

if TYPE_CHECKING:
    from clora.config.schema import Train
    from clora.training.distributed import Distributed


_MOMENTS = "optimizer."


def learning_rate(base: float, step: int, train: Train) -> float:
    """The rate of student update `step` (0-based): linear warm-up, constant, cosine to zero over the last `decay`."""
    rate = base
    if step < train.warmup_steps:
        rate *= (step + 1) / train.warmup_steps
    falling = round(train.decay * train.steps)
    left = train.steps - step
    if falling and left <= falling:
        rate *= 0.5 * (1 - math.cos(math.pi * left / (falling + 1)))
    return rate


def _in_cpu_memory(flat: torch.Tensor) -> torch.nn.Parameter:
    """A copy of the weights, and room for their gradient, where a GPU can reach them fast."""
    made = [torch.empty(flat.shape, dtype=flat.dtype, pin_memory=flat.is_cuda) for _ in range(2)]
    copy = torch.nn.Parameter(made[0].copy_(flat))
    copy.grad = made[1]
    return copy


class TrainableAdapter:
    """A trainable adapter with its optimizer."""

    def __init__(
        self,
        adapter: Adapter,
        lr: float,
        train: Train,
        ranks: Distributed,
        chosen: ChosenOptimizer = ChosenOptimizer(),  # noqa: B008 (frozen)
    ) -> None:
        self.adapter = adapter
        self.lr = lr
        self.train = train
        self.ranks = ranks
        self.chosen = chosen
        offloads = train.offload_optimizer and not chosen.on_matrices  # a recipe that asks for both is refused
        #: what the optimizer changes: the weights themselves, or a copy of them in CPU memory
        self.master = _in_cpu_memory(adapter.flat) if offloads else adapter.parameter
        self.optimizer = chosen.make([self.master] if offloads else chosen.parameters(adapter), lr, train)
        self.moments = OptimizerState(self.optimizer)

    def fresh_optimizer(self) -> torch.optim.Optimizer:
        """Another optimizer anew on the adapter's own weights: the run's own state stays as it is."""
        return self.chosen.make(self.chosen.parameters(self.adapter), self.lr, self.train)

    def wanted(self, here: bool) -> bool:
        """True if any rank has gradients to give, `here` saying whether this one has; then all must update together."""
        return self.ranks.any(here)

    def update(self, step: int, *, spoilt: bool = False) -> float:
        """One clipped step from the gradients gathered since the last; returns their norm before clipping.

        Gradients that are not finite, or `spoilt` by a loss that is not, change nothing on any rank.
        """
        grad = self.adapter.flat_grad
        assert grad is not None
        if spoilt:
            grad.fill_(math.nan)
        self.ranks.average(grad)
        norm = float(grad.norm())
        if not math.isfinite(norm):  # the weights stay as they are; the caller stops the run
            return norm
        if norm > self.train.grad_clip:
            grad.mul_(self.train.grad_clip / norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.lr, step, self.train)
        self._step(grad)
        self.adapter.zero_grad()
        return norm

    def _step(self, grad: torch.Tensor) -> None:
        """The optimizer's step, where its state is."""
        if self.master is self.adapter.parameter:
            with self.chosen.calling():
                self.optimizer.step()
            return
        assert self.master.grad is not None
        with torch.no_grad():
            self.master.copy_(self.adapter.flat)
            self.master.grad.copy_(grad)
            with self.chosen.calling():
                self.optimizer.step()
            self.adapter.flat.copy_(self.master)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that an exact resume needs, as tensors."""
        with self.chosen.calling():
            moments = self.moments.tensors()
        return {"flat": self.adapter.flat, **{f"{_MOMENTS}{key}": value for key, value in moments.items()}}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take over a state that `state` gave."""
        self.adapter.flat.copy_(state["flat"])
        self.moments.restore(
            {key.removeprefix(_MOMENTS): value for key, value in state.items() if key.startswith(_MOMENTS)}
        )


class MovingAverage:
    """The student's exponential moving average: an adapter of its own, off where a recipe reproduces the paper."""

    def __init__(self, of: Adapter, decay: float) -> None:
        self.adapter = of.copy()
        self.decay = decay

    def update(self, of: Adapter, updates: int) -> None:
        """Move towards `of` after its update number `updates` (1-based); early ones weigh more."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        self.adapter.flat.lerp_(of.flat, 1 - decay)
