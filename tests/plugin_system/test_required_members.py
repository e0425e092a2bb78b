"""What of a component's form is told before the run: members that are missing, misspelt, or called otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import frozen

from clora.api import StudentLoss
from clora.plugin_system.required_members import likely_mistakes, misfits_of


class Router:
    def route(self, rng: Any, rows: int) -> None: ...


class Defaults:
    def route(self, rng: Any, rows: int = 1, effects: Any = (), more: int = 0) -> None: ...


class Anything:
    def route(self, *given: Any) -> None: ...


class Value:
    route = 3


@frozen
class Misspelt(StudentLoss):
    def need_critic(self) -> bool:
        return True

    def __call__(self, step: Any) -> None: ...


@frozen
class Shorter(StudentLoss):
    def weight_at(self) -> float:
        return 1.0

    def __call__(self, step: Any) -> None: ...


@frozen
class Right(StudentLoss):
    def needs_critic(self) -> bool:
        return True

    def critic_needs(self) -> bool:
        return False

    def __call__(self, step: Any) -> None: ...


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (Router(), "'Router' is no Router: its route takes (rng, rows); it is called with (rng, rows, effects)"),
        (Value(), "'Value' is no Router: its route is no method"),
    ],
)
def test_a_method_of_another_signature_is_told(part: Any, sentence: str) -> None:
    assert list(misfits_of("router", part)) == [sentence]


@pytest.mark.parametrize("part", [Defaults(), Anything()])
def test_a_method_may_take_more(part: Any) -> None:
    assert list(misfits_of("router", part)) == []


def test_a_loss_without_its_equation_is_told() -> None:
    assert list(misfits_of("losses", StudentLoss())) == ["'StudentLoss' is no Loss: it has no __call__"]


def test_a_misspelt_override_of_a_base_class_is_told() -> None:
    (told,) = likely_mistakes(Misspelt())
    assert told == "nobody calls the method 'need_critic' of 'Misspelt'; did you mean 'needs_critic'?"


def test_an_override_of_another_signature_is_told() -> None:
    (told,) = likely_mistakes(Shorter())
    assert told == "'Shorter' is taken for WeighsOverTime, but its weight_at takes (); it is called with (progress)"


def test_a_loss_that_overrides_rightly_is_not_doubted() -> None:
    assert list(likely_mistakes(Right())) == []
