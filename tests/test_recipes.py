"""Every committed recipe is valid, and says in its first line what of the paper it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from clora.cli import main
from clora.config.load import LoadedRecipe, load_recipe
from clora.config.tree import Keys, Node, Text
from clora.config.yaml_parser import parse_file
from clora.diffusion.flow import Schedule

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
FOLDER = RECIPES[0].parent
WORLDS = [FOLDER / "worlds" / name for name in ("emoji.yaml", "qwen_image_edit.yaml", "flux_kontext.yaml")]
EMOJI, OTHERS = WORLDS[0], WORLDS[1:]
#: all but the quick start, whose effects are those of its world
METHODS = [recipe for recipe in RECIPES if recipe.stem != "quickstart"]
#: sections whose every value belongs to a model, its data or a budget
BUDGETS = (
    "backbone",
    "dataset",
    "teachers",
    "metrics",
    "kernels",
    "teacher",
    "student",
    "train",
    "prepare",
    "evaluate",
)
#: and such keys of others
NUMBERS = ("guidance_scale", "updates", "lr", "betas", "decay", "dtype")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_its_cost_is_told(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(recipe)]) == 0
    told = capsys.readouterr().out
    assert "forward passes" in told
    assert "valid" in told


@pytest.mark.parametrize("recipe", [*RECIPES, *WORLDS], ids=lambda path: path.stem)
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


def given_by(loaded: LoadedRecipe) -> dict[str, Path | None]:
    """The file that gave each value; None for a default."""
    return {path: None if mark is None else mark.file for path, mark in loaded.origins.items()}


@pytest.mark.parametrize("world", OTHERS, ids=lambda path: path.stem)
@pytest.mark.parametrize("method", METHODS, ids=lambda path: path.stem)
def test_no_value_of_the_emoji_world_reaches_another(method: Path, world: Path) -> None:
    loaded = load_recipe(method, world=world)
    assert EMOJI not in given_by(loaded).values()
    if loaded.plus is not None:
        assert loaded.plus.world == world
        assert EMOJI not in given_by(loaded.plus).values()
    assert loaded.recipe.warm_start is None
    assert loaded.doubts == ()


@pytest.mark.parametrize("method", [one for one in METHODS if one.stem != "as_the_paper"], ids=lambda path: path.stem)
def test_a_method_states_no_value_of_a_world(method: Path) -> None:
    loaded = load_recipe(method)
    assert loaded.world == EMOJI
    values = {path: file for path, file in given_by(loaded).items() if path.split(".")[0] in BUDGETS}
    values |= {path: file for path, file in given_by(loaded).items() if path.split(".")[-1] in NUMBERS}
    assert {path: file for path, file in values.items() if file not in (None, EMOJI)} == {}


def test_as_the_paper_takes_model_and_data_alone_from_its_world() -> None:
    file = FOLDER / "as_the_paper.yaml"
    for world in WORLDS:
        recipe = load_recipe(file, world=world).recipe
        assert (recipe.student.rank, recipe.train.lr, recipe.critic.updates) == (128, 1e-4, 5)
        assert (recipe.train.betas, recipe.teacher.guidance_scale) == ((0.9, 0.999), 4.0)


@pytest.mark.parametrize("world", WORLDS, ids=lambda path: path.stem)
def test_a_world_undoes_nothing(world: Path) -> None:
    """Null is a value of a few keys, such as a shift; a part that is taken away would be another world's."""
    tree = parse_file(world).tree
    assert isinstance(tree, Keys)
    assert sorted(nulls(tree)) in ([], ["student.ema", "teacher.shift"])


def nulls(node: Node, path: str = "") -> list[str]:
    if isinstance(node, Keys):
        return [each for key, entry in node.entries.items() for each in nulls(entry.value, f"{path}.{key}")]
    return [path[1:]] if isinstance(node, Text) and node.is_null else []


def test_the_quick_start_is_of_the_emoji_world_and_another_may_replace_it() -> None:
    quickstart = FOLDER / "quickstart.yaml"
    assert load_recipe(quickstart).world == EMOJI
    assert load_recipe(quickstart, world=OTHERS[0]).world == OTHERS[0]


def test_a_small_gpus_file_lies_on_top_of_a_world() -> None:
    loaded = load_recipe(FOLDER / "collection.yaml", [FOLDER / "worlds/gpu_24gb.yaml"], world=OTHERS[0])
    assert (loaded.recipe.student.rank, loaded.recipe.teacher.slots) == (64, 1)


@pytest.mark.parametrize("command", ["show", "validate"])
def test_a_commands_world_replaces_the_recipes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [command, str(FOLDER / "ablation_no_aop.yaml"), "--world", str(EMOJI)]
    assert main(words) == 0
    assert main([*words[:-1], str(FOLDER / "worlds/emojj.yaml")]) == 2
    assert "did you mean 'emoji.yaml'?" in capsys.readouterr().err
