"""Every committed recipe is valid, and says in its first line what of the paper it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from clora.cli import main

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_its_cost_is_told(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(recipe)]) == 0
    told = capsys.readouterr().out
    assert "forward passes" in told
    assert "valid" in told


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_begins_with_what_it_is(recipe: Path) -> None:
    assert recipe.read_text().startswith("# ")


def test_the_papers_ablations_are_a_few_lines_each() -> None:
    for recipe in RECIPES:
        if recipe.stem.startswith("ablation_"):
            assert len([line for line in recipe.read_text().splitlines() if not line.startswith("#")]) <= 6, recipe
