"""Every committed recipe is valid, and says in its first line what of the paper it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from clora.cli import main
from clora.config.load import load_recipe
from clora.diffusion.flow import Schedule

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


def test_as_the_paper_has_the_papers_values() -> None:
    """The values of the paper's Sec. 4 and, where the text says nothing, of its public code."""
    recipe = load_recipe(RECIPES[0].with_name("as_the_paper.yaml")).recipe
    student, train, teacher = recipe.student, recipe.train, recipe.teacher
    assert (student.rank, student.alpha, student.steps, student.shift, student.ema) == (128, 128.0, 8, 3.0, None)
    levels = [1000, 954.5, 900, 833.3, 750, 642.9, 500, 300]
    assert [1000 * s for s in Schedule.shifted(student.steps, student.shift).sigmas] == pytest.approx(levels, abs=0.1)
    assert (train.steps, train.batch_size, train.lr, train.grad_clip) == (5000, 1, 1e-4, 10.0)
    assert (train.betas, train.weight_decay, train.warmup_steps, train.decay) == ((0.9, 0.999), 0.01, 0, 0.0)
    assert (recipe.critic.updates, recipe.critic.lr, recipe.critic.reuse_rollout) == (5, 1e-4, False)
    assert {name: loss.simulation for name, loss in recipe.critic.losses.items()} == {"on_backward": "backward"}
    assert (teacher.steps, teacher.guidance_scale) == (40, 4.0)
    assert (recipe.router.p_switch, recipe.router.hold_steps) == (0.5, 1)
    assert recipe.warm_start is None
    assert [loss.weight for loss in recipe.losses.values()] == [1.0, 1.0, 1.0]
    bs, ts, ta = (recipe.losses[name] for name in ("bs_dmd", "ts_dmd", "ta_fm"))
    assert (bs.streams, ts.streams, ta.streams) == (("general", "effect"), ("effect",), ("effect",))
    assert (bs.guidance_scale, ts.guidance_scale) == (5.0, 5.0)  # the code's c + 4 (c - u)
    assert (bs.tau_min, ts.tau_min, ts.bound) == (0.0, 500.0, "post_shift")
    assert (recipe.simulations["target"].tau_max, ta.sigma_sampling) == (750.0, "uniform_shifted")
