"""A step beyond forwards: pictures of latents, the backbone's own guidance, a simulation that reads another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import frozen

from clora.api import Await, LossTerm, Simulated, StepContext, StudentLoss
from clora.config import RecipeError, load_recipe
from clora.contracts.values import Row
from clora.diffusion.rng import StepRng
from clora.inference.session import ModelSession
from clora.planning.cost import _EmptySteps
from clora.planning.plan import make_plan
from clora.plugin_system.discovery import discover
from clora.testing import drive, example_step
from clora.testing.losses import loss_problems
from clora.testing.simulations import simulation_problems
from clora.training.batches import Batches, Targets
from clora.training.forward_scheduler import run_together
from clora.training.terms import streams_by_simulation

QUICKSTART = Path(__file__).parents[2] / "recipes/quickstart.yaml"
ROWS = [Row("general"), Row("effect", "ink"), Row("effect", "wool")]


# --- pictures and guidance -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan() -> Any:
    return make_plan(load_recipe(QUICKSTART, (), [], discover()), thorough=False)


def context(plan: Any, session: ModelSession) -> StepContext:
    source = plan.recipe.dataset.sources("thermal", "train")[0]
    targets = Targets(dict.fromkeys(plan.mix, (source,)), lambda effect, name: torch.zeros(48, 8, 8), session.device)
    return Batches(plan, session, targets).context(StepRng(0), "student", None)  # pyright: ignore[reportArgumentType]


def test_a_step_decodes_as_the_backbone_does_and_keeps_the_graph(plan: Any) -> None:
    session = ModelSession(plan)
    step = context(plan, session)
    latents = torch.randn(2, 48, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    pictures = step.decode(latents)
    assert pictures.equal(session.backbone.decode(latents))
    pictures.sum().backward()
    assert latents.grad is not None
    assert latents.grad.equal((latents.detach().abs() <= 1).float())  # every pixel is one number of one latent
    assert step.select(("effect",)).named("x").decode == step.decode


def test_a_step_guides_as_the_backbone_does_where_that_has_a_way_of_its_own(
    plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = ModelSession(plan)
    c, u = torch.randn(2, 1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(context(plan, session).guide(c, u, 3.0), u + 3 * (c - u))
    monkeypatch.setattr(type(session.backbone), "guide", lambda self, c, u, w: c * w - u, raising=False)
    assert context(plan, session).guide(c, u, 3.0).equal(c * 3 - u)


def test_the_cost_of_a_loss_of_pictures_is_counted_on_pictures(plan: Any) -> None:
    latents = torch.randn(3, 5, 4, 6, requires_grad=True)
    pictures = _EmptySteps(plan, 2).context(StepRng(0), "student", None).decode(latents)  # pyright: ignore[reportArgumentType]
    assert pictures.shape == (3, 3, 32, 48)
    assert pictures.requires_grad


@frozen
class PixelDistance(StudentLoss):
    """The mean square distance of a simulation's pictures from the teacher's."""

    simulation: str = "backward"

    def __call__(self, step: StepContext) -> Any:
        x0 = (yield Await(self.simulation)).on(step.rows).x0
        return LossTerm((step.decode(x0) - step.decode(step.targets)).square().mean())


def test_a_loss_of_pictures_conforms() -> None:
    assert list(loss_problems(PixelDistance(), "student")) == []


def test_a_step_made_by_hand_needs_a_decoder_of_its_own() -> None:
    step = example_step(ROWS, torch.zeros(3, 2, 4, 4))
    bare = StepContext(
        step.phase, step.rng, step.schedule, step.shift, step.route, step.rows, step.conditions, step.targets
    )
    with pytest.raises(ValueError, match="this step has no decoder"):
        bare.decode(step.targets)
    assert step.decode(torch.full((3, 2, 4, 4), 2.0)).equal(torch.ones(3, 3, 4, 4))


# --- a simulation that reads another -------------------------------------------------------------------------------


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
            {"first": ("effect", "general"), "again": ("general",), "third": ("general",)},
        ),
        ({"first": First(), "again": Again()}, [Reads("first")], {"first": ("effect",), "again": ()}),
        ({"a": Again("b"), "b": Again("a")}, [Reads("a")], {"a": ("effect",), "b": ("effect",)}),
    ],
)
def test_a_simulation_covers_the_rows_of_all_that_read_it(simulations: Any, losses: list[Any], expected: Any) -> None:
    assert streams_by_simulation(simulations, dict(enumerate(losses))) == expected  # pyright: ignore[reportArgumentType]


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
