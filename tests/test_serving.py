"""Serving: a chain in passes is one edit after the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from clora.plan import make_plan
from clora.plugins import discover
from clora.recipe.load import load_recipe
from clora.seeding import Draws
from clora.serving import Server
from clora.world import World

RECIPE = Path(__file__).parents[1] / "recipes/quickstart.yaml"
SETS = ["effects=[duotone_ocean, thermal]", "student.steps=3"]


@pytest.fixture(scope="module")
def server() -> Server:
    plan = make_plan(load_recipe(RECIPE, (), SETS, discover()))
    world = World(plan)
    return Server(plan, world)


def test_passes_edit_the_picture_of_the_pass_before(server: Server) -> None:
    sources = list(server.plan.recipe.dataset.sources("thermal", "test")[:2])
    prompts = [server.plan.prompts[name].teacher for name in ("duotone_ocean", "thermal")]
    draws = Draws(3)
    made = server.in_passes("thermal", prompts, sources, draws)

    first = server.few_step("thermal", prompts[:1] * 2, sources, draws.named("pass 0"))
    server.world.conditioning.pictures |= {"first of two": first[0], "second of two": first[1]}
    second = server.few_step("thermal", prompts[1:] * 2, ["first of two", "second of two"], draws.named("pass 1"))
    assert made.equal(second)
    assert not made.equal(first)


def test_a_chain_with_another_seed_does_not_see_the_pictures_of_the_first(server: Server) -> None:
    (source,) = server.plan.recipe.dataset.sources("thermal", "test")[:1]
    prompts = ["make it red", "make it green"]
    first = server.in_passes("thermal", prompts, [source], Draws(1))
    second = server.in_passes("thermal", prompts, [source], Draws(2))
    (between,) = server.few_step("thermal", prompts[:1], [source], Draws(2).named("pass 0"))
    server.world.conditioning.pictures["between"] = between
    assert second.equal(server.few_step("thermal", prompts[1:], ["between"], Draws(2).named("pass 1")))
    assert not second.equal(first)
