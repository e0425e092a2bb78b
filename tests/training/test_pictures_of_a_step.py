"""A step beyond forwards: pictures of latents with their graph, and the backbone's own guidance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import frozen

from clora.api import Await, LossTerm, StepContext, StudentLoss
from clora.config import load_recipe
from clora.contracts.values import Row
from clora.diffusion.rng import StepRng
from clora.inference.session import ModelSession
from clora.planning.cost import _EmptySteps
from clora.planning.plan import make_plan
from clora.plugin_system.discovery import discover
from clora.testing import example_step
from clora.testing.losses import loss_problems
from clora.training.batches import Batches, Targets

QUICKSTART = Path(__file__).parents[2] / "recipes/quickstart.yaml"
ROWS = [Row("general"), Row("effect", "ink"), Row("effect", "wool")]


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
