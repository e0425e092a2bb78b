"""What `clora.testing.conformance` asks of an optimizer: a loss that falls, a state that resumes to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args

from clora.contracts.optimizer import WorksOn
from clora.plugin_system.guard import Owners, came

if TYPE_CHECKING:
    from clora.training.optimizer import TrainableAdapter

SHAPES = {"blocks.0.to_q": (64, 64), "blocks.0.to_out": (64, 48)}
UPDATES, RATE = 40, 1e-2
#: how many more numbers a weight may keep than it says: rows beside these small matrices count more than in a run
MORE = 0.5


def optimizer_problems(optimizer: Any) -> Iterator[str]:
    """Everything wrong with how it trains an adapter on (w - c)^2 / 2, c being a draw for each weight."""
    import torch

    with Owners().calling("optimizer"):
        works_on, told = optimizer.works_on, optimizer.state_per_weight()
    if works_on not in get_args(WorksOn):
        yield f"its works_on is {came(works_on)}; expected 'weights' or 'matrices'"
        return
    whole, first, second = (_trained(optimizer) for _ in range(3))
    start = _updated(whole, range(UPDATES // 2))
    kept = sum(value.numel() for value in whole.moments.tensors().values() if value.dim())
    if kept > (told + MORE) * whole.adapter.flat.numel():
        yield f"it keeps {kept / whole.adapter.flat.numel():.2g} numbers for a weight, and says {told:g}"
    end = _updated(whole, range(UPDATES // 2, UPDATES))
    if not end < start:
        yield f"a quadratic loss did not fall in {UPDATES // 2} updates at {RATE:g}: {start:.4g} became {end:.4g}"
    _updated(first, range(UPDATES // 2))
    second.restore({key: value.clone() for key, value in first.state().items()})
    _updated(second, range(UPDATES // 2, UPDATES))
    if not torch.equal(second.adapter.flat, whole.adapter.flat):
        yield "a run that is resumed trains other weights: its state must be tensors and numbers in `state` and groups"


def _trained(optimizer: Any) -> TrainableAdapter:
    """A small adapter, the same each time, with the component's optimizer."""
    from clora.adapters.adapter import Adapter
    from clora.config.schema import Train
    from clora.diffusion.rng import StepRng
    from clora.training.chosen_optimizer import ChosenOptimizer
    from clora.training.distributed import Distributed
    from clora.training.optimizer import TrainableAdapter

    adapter = Adapter.fresh(SHAPES, 8, 8.0, StepRng(0))
    return TrainableAdapter(adapter, RATE, Train(steps=UPDATES), Distributed(), ChosenOptimizer(optimizer))


def _updated(one: TrainableAdapter, steps: range) -> float:
    """The loss before the first of these updates, which are made."""
    from clora.diffusion.rng import StepRng

    aim = StepRng(1).normal("aim", one.adapter.flat)
    losses = []
    for step in steps:
        apart = one.adapter.flat - aim
        losses.append(float(apart.square().mean() / 2))
        assert one.adapter.flat_grad is not None
        one.adapter.flat_grad.copy_(apart)
        one.update(step)
    return losses[0]
