"""Critic lag: how far the fake score is behind the student that it should know.

Now and then the student stands still while a copy of the critic is fitted to it for some more updates. The lag is how
much larger the critic's loss on held-out rollouts of this very student is than the fitted copy's, on the same noise:

    lag = (L(critic) - L(fit)) / L(fit)

0 says that more updates would not have helped; the critic's own loss cannot say so, since most of it is noise that no
critic predicts. Training is left as it was to the last bit: the draws have names of their own, and the weights are put
back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from clora.training.objective import objective

if TYPE_CHECKING:
    from clora.config.schema import Lag
    from clora.contracts.step import LossTerm, StepContext
    from clora.diffusion.rng import StepRng
    from clora.training.trainer import Trainer

#: what a loss logs of itself by part of its rows, such as `error.high`, has a lag of its own
PARTS = "error."


def is_due(lag: Lag | None, update: int) -> bool:
    """True after student update `update` (0-based) where it is the turn."""
    return lag is not None and (update + 1) % lag.every == 0


def probe(trainer: Trainer, lag: Lag, update: int, rng: StepRng) -> dict[str, float]:
    """The lag of every loss of the critic, and by part where it logs `error.PART`, after student update `update`."""
    with trainer.owned.untouched():
        return _probe(trainer, lag, update, rng)


def _probe(trainer: Trainer, lag: Lag, update: int, rng: StepRng) -> dict[str, float]:
    critics = trainer.critics
    kept = {name: critic.adapter.flat.clone() for name, critic in critics.items()}
    before = _held_out(trainer, lag, update, rng)
    fits = {name: critic.fresh_optimizer() for name, critic in critics.items()}
    for k in range(lag.updates):
        step = _step_context(trainer, rng.named("lag.fit").at(update * lag.updates + k))
        terms, _ = trainer.terms.of("critic", step)
        total = objective(terms, trainer.terms.losses["critic"], step, trainer.progress(update))
        if total.requires_grad:
            total.backward()
        for name, critic in critics.items():
            grad = critic.adapter.flat_grad
            assert grad is not None
            critic.ranks.average(grad)
            with critic.chosen.calling():
                fits[name].step()
            critic.adapter.zero_grad()
    after = _held_out(trainer, lag, update, rng)
    for name, critic in critics.items():
        critic.adapter.flat.copy_(kept[name])
        critic.adapter.zero_grad()
    return {name: (before[name] - loss) / loss for name, loss in after.items() if name in before and loss > 0}


def _step_context(trainer: Trainer, rng: StepRng) -> StepContext:
    return trainer.batches.context(rng, "critic", trainer.schedule)


def _held_out(trainer: Trainer, lag: Lag, update: int, rng: StepRng) -> dict[str, float]:
    """The mean of every loss of the critic, and of its parts, over batches that nothing is fitted to."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for k in range(lag.batches):
        step = _step_context(trainer, rng.named("lag.held_out").at(update * lag.batches + k))
        for name, term in trainer.terms.of("critic", step)[0].items():
            rows = len(step.route.of(trainer.terms.losses["critic"][name].streams))
            for key, value in _values(name, term).items():
                sums[key] = sums.get(key, 0.0) + rows * value
                counts[key] = counts.get(key, 0) + rows
    return {key: value / counts[key] for key, value in sums.items()}


def _values(name: str, term: LossTerm) -> Mapping[str, float]:
    parts = {key.removeprefix(PARTS): value for key, value in term.logs.items() if key.startswith(PARTS)}
    return {f"critic.{name}.lag": float(term.loss.detach())} | {f"critic.{name}.lag.{k}": v for k, v in parts.items()}
