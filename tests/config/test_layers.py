"""Parents, `--with` and `--set`: what is merged, what is dropped, and where the mistakes of a layer are told."""

from __future__ import annotations

import pytest

from clora.config import RecipeError, load_recipe


def test_mappings_are_merged_and_lists_replaced(load) -> None:
    recipe = load("train: {betas: [0.5, 0.6]}\nlosses: {third: plain}", sets=["train.betas=[0.1, 0.2]"]).recipe
    assert recipe.train.steps == 10
    assert recipe.train.betas == (0.1, 0.2)
    assert list(recipe.losses) == ["first", "second", "third"]


def test_null_removes_a_loss(load) -> None:
    assert list(load("losses: {first: null}").recipe.losses) == ["second"]


def test_a_removed_loss_can_be_put_back(load, write) -> None:
    write("extends: right.yaml\nlosses: {first: null}\n", "without.yaml")
    assert "first" in load("losses: {first: plain}", extends="without.yaml").recipe.losses


def test_another_component_drops_the_keys_of_the_one_below(load) -> None:
    recipe = load("router: {use: fixed, effect: bloom}").recipe
    assert recipe.router.effect == "bloom"
    assert load("router: fixed", sets=["router.effect=bloom"]).recipe.router.effect == "bloom"


def test_the_same_component_keeps_the_keys_below(load) -> None:
    assert load("router: switch").recipe.router.p_switch == 0.25
    assert load("router: {use: switch, hold_steps: 2}").recipe.router.p_switch == 0.25
    assert load("simulations: {backward: target}").recipe.simulations["backward"].tau_max == 800


def test_the_short_form_can_be_added_to(load) -> None:
    assert load(sets=["prompts.weight=2"]).recipe.prompts.weight == 2.0


def test_set_lies_on_with_lies_on_the_recipe(load, write) -> None:
    write("train: {steps: 2, batch_size: 2, warmup_steps: 2}\n", "w.yaml")
    train = load(
        "train: {steps: 1, batch_size: 1, warmup_steps: 1, keep_checkpoints: 9}",
        with_files=["w.yaml"],
        sets=["train.steps=3", "train.batch_size=4", "train.batch_size=5"],
    ).recipe.train
    assert (train.steps, train.batch_size, train.warmup_steps, train.keep_checkpoints) == (3, 5, 2, 9)


def test_names_and_titles_are_not_inherited(load, write) -> None:
    write("extends: right.yaml\nname: parent\ntitle: Parent\n", "parent.yaml")
    write("name: world\ntitle: World\n", "w.yaml")
    recipe = load(extends="parent.yaml", with_files=["w.yaml"]).recipe
    assert (recipe.name, recipe.title) == ("r", "")


def test_a_with_file_may_extend(load, write) -> None:
    write("train: {steps: 4}\n", "below.yaml")
    write("extends: below.yaml\n", "w.yaml")
    assert load(with_files=["w.yaml"]).recipe.train.steps == 4


@pytest.mark.parametrize(
    ("sets", "problem"),
    [
        ("train.steps=abc", "--set train.steps: train.steps: expected an integer, found 'abc'"),
        ("train.steps", "--set train.steps: expected key=value, such as train.steps=200"),
        ("train..steps=1", "--set train..steps=1: expected key=value, such as train.steps=200"),
        ("train.stepz=1", "--set train.stepz: unknown key 'stepz' in train; did you mean 'steps'?"),
        ("train.betas.0=1", "--set train.betas.0: train.betas: expected a list of 2 numbers, found a mapping"),
        ("effects=!!python/none x", "--set effects: tag '!!python/none' is not allowed; the recipe's types say"),
    ],
)
def test_mistakes_of_set(wrong, sets: str, problem: str) -> None:
    assert wrong(sets=[sets])[0].startswith(problem)


def test_set_that_is_not_yaml(wrong) -> None:
    (problem,) = wrong(sets=["effects=[a"])
    assert problem.startswith("--set effects: not YAML: ")


def test_an_empty_set_is_null(load) -> None:
    assert load(sets=["train="]).recipe.train.steps == 5000


def test_a_circle_of_parents(wrong, write) -> None:
    write("extends: r.yaml\n", "parent.yaml")
    message = "recipes extend one another in a circle: r.yaml -> parent.yaml -> r.yaml"
    assert wrong(extends="parent.yaml") == [f"1:10 -> parent.yaml:1:10: {message}"]
    assert wrong(extends="r.yaml") == ["1:10: recipes extend one another in a circle: r.yaml -> r.yaml"]


def test_too_many_parents(wrong, write) -> None:
    for i in range(20):
        write(f"extends: p{i + 1}.yaml\n", f"p{i}.yaml")
    (problem,) = wrong(extends="p0.yaml")
    assert "more than 16 recipes extend one another" in problem


def test_a_parent_that_is_not_there(wrong) -> None:
    message = "cannot read rigth.yaml: No such file or directory; did you mean 'right.yaml'?"
    assert wrong(extends="rigth.yaml") == [f"1:10: {message}"]
    assert wrong(extends="[right.yaml]") == ["1:10: expected one recipe file under `extends`, found a list"]


def test_a_recipe_that_is_not_there(catalogue, write) -> None:
    with pytest.raises(
        RecipeError, match=r"^rigt.yaml: cannot be read: No such file or directory; did you mean 'right"
    ):
        load_recipe("rigt.yaml", (), (), catalogue)


def test_mistakes_of_a_parent_stand_in_the_parent(wrong, write) -> None:
    write("extends: right.yaml\ntrain: {steps: 3.9}\n", "parent.yaml")
    assert wrong("train: {lr: 0}", extends="parent.yaml") == [
        "1:10 -> parent.yaml:2:16: train.steps: expected an integer, found 3.9",
        "2:13: train.lr must be between 1e-10 and 1, found 0.0",
    ]
