"""What components own beside their keys: running state, and modules of their own that the core trains.

The core averages their gradients over the ranks, updates them with AdamW, and keeps all of it in the checkpoints, so
that a run resumes to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve, field, frozen
from torch import nn

from clora.contracts.backbone import feature_width
from clora.contracts.method import KeepsState, Learns, TrainsModules
from clora.diffusion.rng import StepRng
from clora.errors import quoted
from clora.plugin_system.guard import Owners, came
from clora.training.distributed import Distributed
from clora.training.optimizer_state import OptimizerState

if TYPE_CHECKING:
    from clora.config.schema import Recipe, Train
    from clora.contracts.step import LossTerm
    from clora.contracts.values import StepReport

_MOMENTS = "moments."


def parts_of(recipe: Recipe) -> dict[str, Any]:
    """The components that take part in training, by their places in the recipe."""
    critic = recipe.critic.losses if recipe.critic else {}
    named = {"router": recipe.router, "prompts": recipe.prompts}
    named |= {f"simulations.{name}": part for name, part in recipe.simulations.items()}
    named |= {f"losses.{name}": part for name, part in recipe.losses.items()}
    return named | {f"critic.losses.{name}": part for name, part in critic.items()}


@frozen
class _Trained:
    """A component's modules with their optimizer."""

    modules: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    moments: OptimizerState

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [one for name in sorted(self.modules) for one in self.modules[name].parameters()]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters, buffers and moments by dotted names; buffers that are not persistent are left out."""
        found = {f"{name}.{key}": t for name, each in self.modules.items() for key, t in each.state_dict().items()}
        return found | {f"{_MOMENTS}{key}": value for key, value in self.moments.tensors().items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors` gave, in place."""
        for name, each in self.modules.items():
            each.load_state_dict({key: tensors[f"{name}.{key}"] for key in each.state_dict()})
        self.moments.restore(_below(tensors, _MOMENTS))


@frozen
class OwnedParts:
    """The state and the modules of a recipe's components; empty for most recipes."""

    keeping: Mapping[str, KeepsState] = field(factory=dict)
    learning: Mapping[str, Learns] = field(factory=dict)
    trained: Mapping[str, _Trained] = field(factory=dict)
    train: Train | None = None
    ranks: Distributed = field(factory=Distributed)
    owners: Owners = field(factory=Owners)

    @classmethod
    def of(
        cls, recipe: Recipe, latent: Sequence[int], device: torch.device, ranks: Distributed, owners: Owners
    ) -> OwnedParts:
        """What the components of a recipe own, on latents of the shape (C, H, W); the same on every rank."""
        parts = parts_of(recipe)
        trained = {
            place: _trained(recipe, place, part, latent, device, owners)
            for place, part in parts.items()
            if isinstance(part, TrainsModules)
        }
        return cls(
            {place: part for place, part in parts.items() if isinstance(part, KeepsState)},
            {place: part for place, part in parts.items() if isinstance(part, Learns)},
            trained,
            recipe.train,
            ranks,
            owners,
        )

    def modules(self, place: str) -> Mapping[str, nn.Module]:
        """The modules of the component at a place; none for most."""
        return self.trained[place].modules if place in self.trained else {}

    def update(self, section: str, terms: Mapping[str, tuple[LossTerm, float]]) -> dict[str, float]:
        """One AdamW step on its term's `own` for every loss of a section with modules; returns the norms.

        `terms` has (term, its rows' share of the batch) by place. A rank whose rows gave no term gives a gradient of
        zero where another rank has one.
        """
        norms: dict[str, float] = {}
        for place, each in self.trained.items():
            if place.rpartition(".")[0] != section:
                continue
            term, share = terms.get(place, (None, 0.0))
            own = None if term is None else term.own
            if not self.ranks.any(own is not None):
                continue
            with self.owners.calling(place):
                flat = _gradient(each.parameters, None if own is None else share * own)
            norms[f"{place.replace('losses.', '')}.modules"] = self._step(each, flat)
        return norms

    def _step(self, each: _Trained, flat: torch.Tensor) -> float:
        """AdamW with the average over the ranks, clipped; a gradient that is not finite changes nothing."""
        assert self.train is not None
        self.ranks.average(flat)
        norm = float(flat.norm())
        if math.isfinite(norm):
            flat.mul_(min(1.0, self.train.grad_clip / max(norm, 1e-30)))
            offset = 0
            for parameter in each.parameters:
                parameter.grad = flat[offset : offset + parameter.numel()].view_as(parameter)
                offset += parameter.numel()
            each.optimizer.step()
        each.optimizer.zero_grad()
        return norm

    def learn(self, report: StepReport) -> None:
        """Hand a finished cycle's report, averaged over the ranks, to every component that learns."""
        if not self.learning:
            return
        cost = self.ranks.averaged({"seconds": report.seconds, "forwards": report.forward_equivalents})
        told = evolve(
            report,
            losses=self.ranks.averaged(report.losses),
            logs=self.ranks.averaged(report.logs),
            seconds=cost["seconds"],  # by the clock no two ranks learn the same
            forward_equivalents=cost["forwards"],
        )
        for place, part in self.learning.items():
            with self.owners.calling(place):
                part.learn(told)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All state as tensors under `parts.PLACE/KEY`. Raises ComponentError for a state that is no tensors."""
        found: dict[str, torch.Tensor] = {}
        for place, part in self.keeping.items():
            with self.owners.calling(place):
                state = part.state()
            problem = state_problem(state)
            if problem is not None:
                raise self.owners.error(place, problem)
            found |= {f"parts.{place}/{key}": value.detach() for key, value in state.items()}
        for place, each in self.trained.items():
            found |= {f"modules.{place}/{key}": value.detach() for key, value in each.tensors().items()}
        return found

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors` gave."""
        for place, part in self.keeping.items():
            with self.owners.calling(place):
                part.restore(_below(tensors, f"parts.{place}/"))
        for place, each in self.trained.items():
            each.restore(_below(tensors, f"modules.{place}/"))

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """After it everything owned is as it was before: what is computed within it is no part of the training."""
        before = {key: value.clone() for key, value in self.tensors().items()}
        try:
            yield
        finally:
            if before:
                self.restore(before)


def _trained(
    recipe: Recipe, place: str, part: TrainsModules, latent: Sequence[int], device: torch.device, owners: Owners
) -> _Trained:
    """A component's modules, made with random numbers of their own, and their optimizer."""
    with owners.calling(place), torch.random.fork_rng(devices=[]):
        torch.manual_seed(StepRng(recipe.seed).named("modules").named(place).number("init") % 2**63)
        made = part.modules(tuple(latent), feature_width(recipe.backbone))
    if not isinstance(made, Mapping) or not all(isinstance(each, nn.Module) for each in made.values()):
        raise owners.error(place, f"its modules() gave {came(made)}; expected a mapping of names to torch modules")
    modules = {str(name): each.to(device) for name, each in made.items()}
    parameters = [one for name in sorted(modules) for one in modules[name].parameters()]
    if not parameters:
        raise owners.error(place, "its modules() have no parameters to train")
    optimizer = torch.optim.AdamW(parameters, part.modules_lr, (0.0, 0.99), weight_decay=0.0)
    return _Trained(modules, optimizer, OptimizerState(optimizer))


def _gradient(parameters: Sequence[nn.Parameter], own: torch.Tensor | None) -> torch.Tensor:
    """The gradient of `own` as one flat tensor; zeros without it."""
    found: Sequence[torch.Tensor | None] = [None] * len(parameters)
    if own is not None:
        found = torch.autograd.grad(own, list(parameters), allow_unused=True)
    pairs = zip(parameters, found, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in pairs])


def state_problem(state: object) -> str | None:
    """What is wrong with what a component gave for its state."""
    if not isinstance(state, Mapping):
        return f"its state() gave {came(state)}; expected a mapping of names to tensors"
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            return f"its state() has {quoted(key)}: {came(value)}; expected names and tensors"
    return None


def _below(tensors: Mapping[str, torch.Tensor], start: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
