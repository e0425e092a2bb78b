"""What a component may yield and return in a step; everything else is a sentence that says what came instead."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, get_args

import torch

from clora.contracts.step import Await, Forward, Inside, LossTerm, Simulated, Trajectory
from clora.contracts.values import Role
from clora.errors import quoted
from clora.plugin_system.guard import came

#: times that one generator asks in one step: the longest rollouts ask once for each of their steps, of at most 1000
MOST_QUESTIONS = 25_000
ROLES: tuple[str, ...] = get_args(Role)


def generator_problem(value: object) -> str | None:
    """What is wrong with what a component gave for its computation."""
    if isinstance(value, Generator):
        return None
    return f"expected a generator, which yields the forwards that it needs, and got {came(value)}"


def forwards_of(question: object) -> tuple[Forward, ...] | None:
    """The forwards of a question: one alone, a tuple, or a dict's; None where it is no question."""
    if isinstance(question, Forward):
        return (question,)
    parts = question.values() if isinstance(question, dict) else question if isinstance(question, tuple) else None
    if parts is None or not all(isinstance(part, Forward) for part in parts):
        return None
    return tuple(parts)


def reply(question: object, answers: Sequence[torch.Tensor | Inside]) -> Any:
    """The answers in the form of their question."""
    if isinstance(question, Forward):
        return answers[0]
    return dict(zip(question, answers, strict=True)) if isinstance(question, dict) else tuple(answers)


def question_problem(question: object, latent: Sequence[int] | None) -> str | None:
    """What is wrong with what a generator yielded; `latent` is (C, H, W) of the batch, where that is known."""
    if isinstance(question, Await):
        return None
    forwards = forwards_of(question)
    if forwards is None:
        wrong = question
        if isinstance(question, (tuple, dict)):
            parts = question.values() if isinstance(question, dict) else question
            wrong = next(part for part in parts if not isinstance(part, Forward))
        return f"yielded {came(wrong)}; expected a Forward, a tuple or a dict of them, or an Await"
    return next((problem for forward in forwards if (problem := _forward_problem(forward, latent))), None)


def _forward_problem(forward: Forward, latent: Sequence[int] | None) -> str | None:
    rows, x, sigma = len(forward.adapters), forward.x_sigma, forward.sigma
    if forward.role not in ROLES:
        return f"yielded a Forward of the role {quoted(forward.role)}; the roles are {', '.join(ROLES)}"
    shape = "C, H, W" if latent is None else ", ".join(map(str, latent))
    if not isinstance(x, torch.Tensor) or x.dim() != 4 or len(x) != rows or latent not in (None, tuple(x.shape[1:])):
        return f"yielded a Forward whose x_sigma is {came(x)}; expected [{rows}, {shape}], a row for each of its rows"
    if not isinstance(sigma, torch.Tensor) or sigma.shape != (rows,) or not sigma.is_floating_point():
        return f"yielded a Forward whose sigma is {came(sigma)}; expected [{rows}], a number for each of its rows"
    depths = forward.depths
    if not isinstance(depths, tuple) or not all(isinstance(each, float | int) and 0 < each <= 1 for each in depths):
        return f"yielded a Forward whose depths are {came(depths)}; expected numbers above 0 and up to 1"
    return None


def term_problem(term: object) -> str | None:
    """What is wrong with what a loss returned."""
    if not isinstance(term, LossTerm):
        return f"returned {came(term)}; expected a LossTerm"
    loss = term.loss
    if not isinstance(loss, torch.Tensor) or loss.dim() != 0 or not loss.is_floating_point():
        return f"returned a LossTerm whose loss is {came(loss)}; expected one number, the mean over its rows"
    own = term.own
    if own is not None and not (isinstance(own, torch.Tensor) and own.dim() == 0 and own.requires_grad):
        return f"returned a LossTerm whose own is {came(own)}; expected one number with a gradient to its modules"
    if not isinstance(term.logs, Mapping):
        return f"returned logs that are {came(term.logs)}; expected a mapping of names to numbers"
    for name, value in term.logs.items():
        if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"returned the log {quoted(name)}, which is {came(value)}; expected a number (float(...))"
    return None


def simulated_problem(outcome: object, rows: Sequence[int], latent: Sequence[int]) -> str | None:
    """What is wrong with what a simulation returned for these rows of the batch."""
    if not isinstance(outcome, Simulated):
        return f"returned {came(outcome)}; expected a Simulated"
    if tuple(outcome.rows) != tuple(rows):
        return f"returned the rows {quoted(list(outcome.rows))}; expected those of its step, {quoted(list(rows))}"
    for name, expected in {"x_sigma": (len(rows), *latent), "x0": (len(rows), *latent), "sigma": (len(rows),)}.items():
        value = getattr(outcome, name)
        if not isinstance(value, torch.Tensor) or tuple(value.shape) != expected:
            return f"returned a Simulated whose {name} is {came(value)}; expected {list(expected)}"
    return None


def trajectory_problem(path: object, rows: int, latent: Sequence[int]) -> str | None:
    """What is wrong with what a simulation returned for its rollout."""
    if not isinstance(path, Trajectory):
        return f"returned {came(path)} for its rollout; expected a Trajectory"
    for name in ("x_sigma", "x0"):
        value = getattr(path, name)
        if not isinstance(value, torch.Tensor) or value.dim() != 5 or tuple(value.shape[1:]) != (rows, *latent):
            expected = ", ".join(map(str, ("steps", rows, *latent)))
            return f"returned a Trajectory whose {name} is {came(value)}; expected [{expected}]"
    return None
