"""A loss of the student under critic.losses, and one of the critic elsewhere: each is told at its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from clora.config import RecipeError, load_recipe
from clora.plugin_system.discovery import discover

QUICKSTART = Path(__file__).parents[2] / "recipes/quickstart.yaml"


def told(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {QUICKSTART}\n{text}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, (), [], discover())
    return str(caught.value).splitlines()


@pytest.mark.parametrize("loss", ["ta_fm", "velocity_matching", "dmd", "gan", "opd"])
def test_a_students_loss_is_refused_under_the_critics(tmp_path: Path, loss: str) -> None:
    reads = "" if loss in ("ta_fm", "velocity_matching") else ", simulation: backward"
    (problem,) = told(tmp_path, f"critic:\n  losses:\n    mine: {{use: {loss}{reads}}}")
    assert problem.endswith("mine.yaml:4:5: critic.losses.mine is a loss of the student; it belongs under losses")


@pytest.mark.parametrize("section", ["losses", "warm_start.losses"])
def test_the_critics_loss_is_refused_elsewhere(tmp_path: Path, section: str) -> None:
    above = "warm_start:\n" if "." in section else ""
    indent = "  " if above else ""
    text = f"{above}{indent}losses:\n{indent}  mine: {{use: critic_flow_matching, simulation: backward}}"
    assert told(tmp_path, text)[0].endswith(f"{section}.mine is a loss of the critic; it belongs under critic.losses")
