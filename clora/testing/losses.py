"""What `clora.testing.conformance` asks of a loss: a repeatable term and gradients where they belong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import evolve

from clora.contracts.method import TrainsModules
from clora.contracts.step import LossTerm, StepContext
from clora.contracts.values import Phase, Row
from clora.plugin_system.guard import Owners
from clora.testing import drive
from clora.testing.fake_network import EFFECTS, WIDTH, FakeNetwork, outcomes_for, step_of
from clora.training.answers import term_problem


def loss_problems(loss: Any, phase: Phase) -> Iterator[str]:
    """One term a step, of one and of several rows; repeatable; with a gradient for whom it trains, and only there."""
    import torch

    for count in (1, 3):
        step = _with_modules(loss, step_of(_rows(loss, count), phase))
        before = step.targets.clone()
        terms = []
        for _ in range(2):
            network = FakeNetwork()
            with Owners().calling("losses"):
                terms.append(drive(loss(step), network, outcomes_for(loss, step, network)))
            problem = term_problem(terms[-1])
            if problem is not None:
                yield f"of {count} rows it {problem}"
                return
            if not terms[-1].loss.requires_grad:
                yield f"its loss of {count} rows has no gradient: ask for a forward with grad=True"
                return
            terms[-1].loss.backward()
            if network.reached() != [phase]:
                reached = ", ".join(network.reached()) or "nobody"
                yield f"its gradient of {count} rows reaches {reached}; expected {phase} alone"
            yield from _own(terms[-1], step, network)
        if not torch.equal(terms[0].loss, terms[1].loss):
            yield "the same step gave two losses: draw from step.rng, which depend on seed, step and rank alone"
        if not torch.equal(before, step.targets):
            yield "it changed step.targets, which other components read"


def _with_modules(loss: object, step: StepContext) -> StepContext:
    """The step with the loss's own modules, where it has any."""
    import torch

    if not isinstance(loss, TrainsModules):
        return step
    with Owners().calling("losses"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return evolve(step, modules=loss.modules(tuple(step.targets.shape[1:]), WIDTH))


def _own(term: LossTerm, step: StepContext, network: FakeNetwork) -> Iterator[str]:
    """What a loss's modules minimise reaches them and nobody else."""
    import torch

    parameters = [one for name in sorted(step.modules) for one in step.modules[name].parameters()]
    if not parameters:
        return
    if term.own is None:
        yield "it has modules and its term has no `own`: nothing trains them"
        return
    try:
        found = torch.autograd.grad(term.own, [*parameters, *network.factors.values()], allow_unused=True)
    except RuntimeError:
        yield "its `own` shares the graph of its loss: compute it of detached states"
        return
    if not any(each is not None and bool(each.abs().sum() > 0) for each in found[: len(parameters)]):
        yield "its `own` has no gradient to its modules"
    if any(each is not None for each in found[len(parameters) :]):
        yield "its `own` reaches a role's forward: compute it of detached states"


def _rows(loss: Any, count: int) -> list[Row]:
    """So many rows of the streams that a loss reads."""
    streams = [loss.streams[i % len(loss.streams)] for i in range(count)]
    return [Row("effect", EFFECTS[i]) if stream == "effect" else Row("general") for i, stream in enumerate(streams)]
