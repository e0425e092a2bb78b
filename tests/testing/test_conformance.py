"""A broken example of each rule for components is caught by the checks for authors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import define, field, frozen

from clora.api import Await, LossTerm, Measured, Prompts, Route, Row, Simulated, between
from clora.testing.conformance import problems_of


@frozen
class Loss:
    """A loss that breaks one rule."""

    how: str = "well"
    streams: tuple[str, ...] = ("effect", "general")
    weight: float = field(default=1.0, validator=between(0.0, 10.0))

    def __call__(self, step):
        x, sigma = step.targets, torch.ones(len(step.rows))
        if self.how == "changes":
            x.mul_(0.5)
        role = "critic" if self.how == "reaches" else "student"
        velocity = yield step.forward(role, x, sigma, grad=self.how != "constant")
        if self.how == "reaches":
            velocity = velocity + x.requires_grad_()
        noise = torch.rand(()) if self.how == "draws" else 1.0
        if self.how == "raises":
            raise ArithmeticError("no ink")
        return LossTerm((velocity * noise).square().mean() if self.how != "rows" else velocity.flatten(1).mean(1))


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("changes", "it changed step.targets"),
        ("constant", "has no gradient: ask for a forward with grad=True"),
        ("reaches", "its gradient of 1 rows reaches nobody; expected student alone"),
        ("draws", "the same step gave two losses: draw from step.rng"),
        ("rows", "a LossTerm whose loss is a tensor [1]"),
        ("raises", "losses: ArithmeticError: no ink at test_conformance.py:"),
    ],
)
def test_a_loss_that_breaks_a_rule_is_caught(how: str, sentence: str) -> None:
    assert any(sentence in problem for problem in problems_of("losses", Loss(how), checks_imports=False))
    assert problems_of("losses", Loss(), checks_imports=False) == []


@frozen
class Owning:
    """A loss with a module and a state that breaks one rule."""

    how: str = ""
    streams: tuple[str, ...] = ("effect",)
    weight: float = field(default=1.0, validator=between(0.0, 1.0))
    modules_lr: float = field(default=1e-3, validator=between(1e-10, 1.0))
    _kept: dict[str, torch.Tensor] = field(factory=lambda: {"mean": torch.ones(2)}, init=False, eq=False)

    def modules(self, latent, width):
        return {"judge": torch.nn.Linear(latent[0], 1)}

    def state(self):
        return {"mean": 1.0} if self.how == "numbers" else self._kept

    def restore(self, state):
        self._kept["mean"] = state["mean"] + (self.how == "other")

    def __call__(self, step):
        velocity = yield step.forward("student", step.targets, torch.ones(len(step.rows)), grad=True)
        judged = step.modules["judge"](velocity.movedim(1, -1)).mean()
        own = step.modules["judge"](velocity.detach().movedim(1, -1)).mean()
        if self.how == "reaches":
            again = yield step.forward("student", step.targets, torch.ones(len(step.rows)), grad=True)
            own = step.modules["judge"](again.movedim(1, -1)).mean()
        wrong = {"none": None, "shares": judged.square(), "elsewhere": torch.ones((), requires_grad=True)}
        return LossTerm(judged, own=wrong.get(self.how, own))


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("none", "it has modules and its term has no `own`: nothing trains them"),
        ("shares", "its `own` shares the graph of its loss: compute it of detached states"),
        ("reaches", "its `own` reaches a role's forward: compute it of detached states"),
        ("elsewhere", "its `own` has no gradient to its modules"),
        ("numbers", "its state() has 'mean': float 1.0; expected names and tensors"),
        ("other", "its state() after restore() is not what was restored"),
    ],
)
def test_a_loss_that_owns_something_and_breaks_a_rule_is_caught(how: str, sentence: str) -> None:
    assert problems_of("losses", Owning(), checks_imports=False) == []
    found = problems_of("losses", Owning(how), checks_imports=False)
    assert any(sentence in problem for problem in found), found


@frozen
class Simulation:
    """A simulation that breaks one rule."""

    how: str = "well"

    def check_schedule(self, schedule):
        return "no" if self.how == "check" else ()

    def simulate(self, step):
        x, sigma = step.targets, torch.ones(len(step.rows))
        velocity = yield step.forward("student", x, sigma, grad=self.how != "constant")
        noise = torch.rand(()) if self.how == "draws" else 1.0
        return Simulated(step.rows[: 1 if self.how == "rows" else None], x, sigma, velocity * noise)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("check", "its check_schedule gave str 'no'"),
        ("constant", "its x0 has no gradient in the student's phase"),
        ("draws", "the same step gave two outcomes"),
        ("rows", "in the student's phase it returned the rows"),
    ],
)
def test_a_simulation_that_breaks_a_rule_is_caught(how: str, sentence: str) -> None:
    assert any(sentence in problem for problem in problems_of("simulations", Simulation(how), checks_imports=False))
    assert problems_of("simulations", Simulation(), checks_imports=False) == []


@define
class Turns:
    """A router that remembers, and so is neither frozen nor repeatable."""

    turn: int = 0

    def route(self, rng, rows, effects):
        self.turn += 1
        return Route((Row("effect", effects[self.turn % len(effects)]),) * rows)


@frozen
class Few:
    """A router of too few rows."""

    def route(self, rng, rows, effects):
        return Route((Row("general"),))


@frozen
class Chatty:
    """Words that change."""

    said: list = field(factory=list)

    def effect(self, card):
        self.said.append(card.name)
        return Prompts(f"{card.name} {len(self.said)}", "a")

    def general(self, item):
        return Prompts(item.instruction, item.instruction)


@frozen
class Spoils:
    """A metric that changes its pictures."""

    def measure(self, evaluation):
        evaluation.effects[0].student.mul_(0.5)
        return Measured({"a": float(evaluation.effects[0].student.abs().mean())})


@frozen
class NoAdapter:
    """A kernel that forgets the adapter."""

    def __call__(self, x, weight, bias, segments):
        return torch.nn.functional.linear(x, weight, bias)


@frozen
class Bare:
    share: float = 0.5

    def route(self, rng, rows, effects):
        return Route((Row("general"),) * rows)


Bare.__doc__ = None


@frozen
class Nearly:
    """A loss whose weight would never be asked for."""

    streams: tuple[str, ...] = ("effect",)
    weight: float = field(default=1.0, validator=between(0.0, 10.0))

    def weigth_at(self, progress):
        return 1.0

    def __call__(self, step):
        outcome = yield Await("nobody")
        return LossTerm(outcome.x0.mean())


@pytest.mark.parametrize(
    ("kind", "part", "sentences"),
    [
        (
            "router",
            Turns(),
            ["can be changed after it is made", "turn has no bounds", "other routes than when asked out"],
        ),
        ("router", Few(), ["gave a route of 1 rows; expected 3"]),
        ("router", Bare(), ["Bare has no docstring", "share has no bounds; give it validator=between(low, high)"]),
        ("prompts", Chatty(), ["it gives other words each time"]),
        ("metrics", Spoils(), ["the same pictures gave two findings", "it changed the pictures"]),
        ("kernels", NoAdapter(), ["its result is not x W^T + b", "its gradient of A is not that of the equation"]),
        ("kernels", Few(), ["'Few' is no LoraKernel: it has no __call__"]),
        ("losses", Nearly(), ["did you mean 'weight_at'?", "losses: KeyError: 'nobody'"]),
    ],
)
def test_every_rule_has_an_example_that_it_catches(kind: str, part: Any, sentences: list[str]) -> None:
    found = problems_of(kind, part, checks_imports=False)
    for sentence in sentences:
        assert any(sentence in problem for problem in found), found


@pytest.mark.slow
def test_a_module_that_brings_torch_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy_house.py").write_text(
        "import torch\nfrom attrs import frozen\n\n@frozen\nclass Mine:\n    'A router.'\n"
        "    def route(self, rng, rows, effects):\n        from clora.api import Route, Row\n"
        "        return Route((Row('general'),) * rows)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    import heavy_house

    (told,) = problems_of("router", heavy_house.Mine())
    assert told.startswith("importing heavy_house imports torch")
    sys.modules.pop("heavy_house")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'loss' is no kind of components; they are teachers, router"):
        problems_of("loss", Loss())
