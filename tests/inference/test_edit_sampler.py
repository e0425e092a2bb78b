"""Serving: a chain in passes is one edit after the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from clora.config.load import load_recipe
from clora.diffusion.rng import StepRng
from clora.inference.edit_sampler import EditSampler
from clora.inference.session import ModelSession
from clora.planning.plan import make_plan
from clora.plugin_system.discovery import discover

RECIPE = Path(__file__).parents[2] / "recipes/quickstart.yaml"
SETS = ["effects=[duotone_ocean, thermal]", "student.steps=3"]


@pytest.fixture(scope="module")
def server() -> EditSampler:
    plan = make_plan(load_recipe(RECIPE, (), SETS, discover()))
    session = ModelSession(plan)
    return EditSampler(plan, session)


def test_passes_edit_the_picture_of_the_pass_before(server: EditSampler) -> None:
    sources = list(server.plan.recipe.dataset.sources("thermal", "test")[:2])
    prompts = [server.plan.prompts[name].teacher for name in ("duotone_ocean", "thermal")]
    rng = StepRng(3)
    made = server.in_passes("thermal", prompts, sources, rng)

    first = server.few_step("thermal", prompts[:1] * 2, sources, rng.named("pass 0"))
    server.session.conditioning.pictures |= {"first of two": first[0], "second of two": first[1]}
    second = server.few_step("thermal", prompts[1:] * 2, ["first of two", "second of two"], rng.named("pass 1"))
    assert made.equal(second)
    assert not made.equal(first)


def test_a_chain_with_another_seed_does_not_see_the_pictures_of_the_first(server: EditSampler) -> None:
    (source,) = server.plan.recipe.dataset.sources("thermal", "test")[:1]
    prompts = ["make it red", "make it green"]
    first = server.in_passes("thermal", prompts, [source], StepRng(1))
    second = server.in_passes("thermal", prompts, [source], StepRng(2))
    (between,) = server.few_step("thermal", prompts[:1], [source], StepRng(2).named("pass 0"))
    server.session.conditioning.pictures["between"] = between
    assert second.equal(server.few_step("thermal", prompts[1:], ["between"], StepRng(2).named("pass 1")))
    assert not second.equal(first)
