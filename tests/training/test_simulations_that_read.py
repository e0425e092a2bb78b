"""A simulation that reads another one: when it runs, on which rows, and what is told of one that never could."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import frozen

from clora.api import Await, LossTerm, Row, Simulated, StepContext
from clora.config import RecipeError, load_recipe
from clora.plugin_system.discovery import discover
from clora.testing import drive, example_step
from clora.testing.simulations import simulation_problems
from clora.training.forward_scheduler import run_together
from clora.training.terms import streams_by_simulation

QUICKSTART = Path(__file__).parents[2] / "recipes/quickstart.yaml"
ROWS = [Row("general"), Row("effect", "ink"), Row("effect", "wool")]


@frozen
class First:
    def simulate(self, step: StepContext) -> Any:
        x = step.rng.normal("noise", step.targets)
        sigma = torch.ones(len(step.rows))
        velocity = yield step.forward("student", x, sigma, grad=True)
        return Simulated(step.rows, x, sigma, x - velocity)


@frozen
class Again:
    """Where the student comes to from half the noise of another simulation's outcome."""

    simulation: str = "first"

    def simulate(self, step: StepContext) -> Any:
        before = (yield Await(self.simulation)).on(step.rows).x0.detach()
        sigma = torch.full((len(step.rows),), 0.5)
        x = 0.5 * before + 0.5 * step.rng.normal("noise", step.targets)
        velocity = yield step.forward("student", x, sigma, grad=True)
        return Simulated(step.rows, x, sigma, x - 0.5 * velocity)


@frozen
class Reads:
    simulation: str
    streams: tuple[Any, ...] = ("effect",)
    weight: float = 1.0

    def __call__(self, step: StepContext) -> Any:
        return LossTerm((yield Await(self.simulation)).on(step.rows).x0.square().mean())


def test_its_reader_begins_when_it_has_arrived_and_gets_its_numbers() -> None:
    step = example_step(ROWS, torch.zeros(3, 2, 4, 4))
    asked: list[int] = []

    def evaluate(forwards: Any) -> list[torch.Tensor]:
        asked.append(len(forwards))
        return [0.25 * forward.x_sigma for forward in forwards]

    simulations = {"again": Again().simulate(step.named("again")), "first": First().simulate(step.named("first"))}
    outcomes, terms = run_together(simulations, {"loss": Reads("again")(step)}, evaluate)
    x = step.named("first").rng.normal("noise", step.targets)
    y = 0.5 * 0.75 * x + 0.5 * step.named("again").rng.normal("noise", step.targets)
    torch.testing.assert_close(outcomes["again"].x0, y - 0.5 * 0.25 * y)
    torch.testing.assert_close(terms["loss"].loss, (0.875 * y).square().mean())
    assert asked == [1, 1]


@pytest.mark.parametrize(
    ("simulations", "losses", "expected"),
    [
        ({"first": First(), "again": Again()}, [Reads("again")], {"first": ("effect",), "again": ("effect",)}),
        (
            {"first": First(), "again": Again(), "third": Again("again")},
            [Reads("third", ("general",)), Reads("first", ("effect",))],
            {"first": ("general", "effect"), "again": ("general",), "third": ("general",)},
        ),
        ({"first": First(), "again": Again()}, [Reads("first")], {"first": ("effect",), "again": ()}),
        ({"a": Again("b"), "b": Again("a")}, [Reads("a")], {"a": ("effect",), "b": ("effect",)}),
    ],
)
def test_a_simulation_covers_the_rows_of_all_that_read_it(simulations: Any, losses: list[Any], expected: Any) -> None:
    assert streams_by_simulation(simulations, dict(enumerate(losses))) == expected  # pyright: ignore[reportArgumentType]


def test_a_chain_of_thousands_is_followed_to_its_end() -> None:
    chain: dict[str, Any] = {str(i): Again(str(i + 1)) for i in range(3000)} | {"3000": First()}
    found = streams_by_simulation(chain, {"loss": Reads("0")})  # pyright: ignore[reportArgumentType]
    assert set(found.values()) == {("effect",)}


def test_it_conforms() -> None:
    assert list(simulation_problems(Again())) == []
    drive(Again().simulate(example_step(ROWS, torch.zeros(3, 2, 4, 4))), lambda f: f.x_sigma, {"first": _outcome()})


def _outcome() -> Simulated:
    zero = torch.zeros(3, 2, 4, 4)
    return Simulated((0, 1, 2), zero, torch.ones(3), zero)


PLUGIN = """
    from attrs import frozen
    from clora.api import Component, hookimpl

    @frozen
    class Again:
        simulation: str
        def simulate(self, step):
            yield ()

    @hookimpl
    def clora_simulations():
        return [Component("again", Again)]
"""


def test_a_circle_of_many_is_told_once_and_in_few_words(
    tmp_path: Path, install: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("again-and-again", {"again": PLUGIN})
    monkeypatch.delenv("CLORA_BLOCK_PLUGINS")
    path = tmp_path / "mine.yaml"
    ring = "\n".join(f"  s{i}: {{use: again, simulation: s{(i + 1) % 900}}}" for i in range(900))
    path.write_text(f"extends: {QUICKSTART}\nsimulations:\n{ring}\n  aside: {{use: again, simulation: s7}}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, (), [], discover())
    (told,) = [line for line in str(caught.value).splitlines() if "waits for itself" in line]
    assert "mine.yaml:3:" in told
    assert told.endswith("simulations.s0 waits for itself: " + " asks for ".join(f"'s{i}'" for i in range(10)))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("simulations: {again: {use: again, simulation: bakcward}}", "did you mean 'backward'?"),
        (
            "simulations: {x: {use: again, simulation: y}, y: {use: again, simulation: x}}",
            "simulations.x waits for itself: 'x' asks for 'y' asks for 'x'",
        ),
        ("simulations: {x: {use: again, simulation: x}}", "simulations.x waits for itself: 'x' asks for 'x'"),
    ],
)
def test_a_simulation_that_waits_for_nobody_or_for_itself_is_told_at_its_line(
    tmp_path: Path, install: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, text: str, sentence: str
) -> None:
    install("again-and-again", {"again": PLUGIN})
    monkeypatch.delenv("CLORA_BLOCK_PLUGINS")  # beside the real ones
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {QUICKSTART}\n{text}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, (), [], discover())
    assert sentence in str(caught.value)
    assert "mine.yaml:2:" in str(caught.value)
