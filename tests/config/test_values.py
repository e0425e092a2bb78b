"""What right values become."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_the_right_recipe_is_typed(load) -> None:
    recipe = load().recipe
    assert recipe.train.steps == 10
    assert recipe.router.p_switch == 0.25
    assert recipe.losses["second"].simulation == "backward"
    assert recipe.critic is not None
    assert list(recipe.critic.losses) == ["follow"]
    assert recipe.kernels is None


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("1_000", 1000.0), ("+.5", 0.5), ("3", 3.0), ("2.", 2.0), ("1E+2", 100.0)]
)
def test_numbers(load, text: str, value: float) -> None:
    found = load(f"train: {{grad_clip: {text}}}").recipe.train.grad_clip
    assert found == value
    assert type(found) is float


def test_words_that_other_readers_take_for_booleans_are_text(load) -> None:
    assert load("effects: [no, on, y, 2024-01-01, 1:30, '3']").recipe.effects == (
        "no",
        "on",
        "y",
        "2024-01-01",
        "1:30",
        "3",
    )


def test_every_type_of_field(load) -> None:
    router = load(
        """
        router:
          use: fixed
          effect: bloom
          scale: null
          many: [1, 2]
          pair: [1, 2.5]
          words: {a: 1, b: null}
          either: 3
          anything: {a: [1, no, null, 1e-3, true]}
          names: [a]
          old: [4]
          inner: {folder: here}
        """
    ).recipe.router
    assert router.scale is None
    assert router.many == (1, 2)
    assert router.pair == (1.0, 2.5)
    assert router.words == {"a": 1}
    assert router.either == 3
    assert router.anything == {"a": (1, "no", None, 1e-3, True)}
    assert router.names == ("a",)
    assert router.old == [4]
    assert router.inner.folder == Path.cwd() / "here"


def test_a_path_is_relative_to_the_file_it_stands_in(load, write) -> None:
    write("dataset: {folder: pictures}\n", "worlds/w.yaml")
    recipe = load("teachers: {folder: ../bank}", with_files=["worlds/w.yaml"], sets=["backbone.folder=base"]).recipe
    assert recipe.dataset.folder == Path.cwd() / "worlds" / "pictures"
    assert recipe.teachers.folder == Path.cwd().parent / "bank"
    assert recipe.backbone.folder == Path.cwd() / "base"
    assert recipe.backbone.relative == Path("cache")


def test_another_recipe_is_found_from_the_file_that_names_it(load, write) -> None:
    write("serve: {plus: fast.yaml}\n", "worlds/w.yaml")
    fast = write("extends: ../right.yaml\n", "worlds/fast.yaml")
    assert load(with_files=["worlds/w.yaml"]).recipe.serve.plus == str(fast)


def test_the_name_is_the_files_unless_given(load) -> None:
    assert load().recipe.name == "r"
    assert load("name: mine").recipe.name == "mine"


def test_null_gives_a_section_or_a_key_back_to_its_default(load) -> None:
    recipe = load("train: null\nrouter: {p_switch: null}\nsimulations: {backward: {tau_max: null}}").recipe
    assert recipe.train.steps == 5000
    assert recipe.router.p_switch == 0.5
    assert recipe.simulations["backward"].tau_max == 750.0


def test_a_qualified_name_chooses_the_distribution(load) -> None:
    assert load("router: 'tiny-house:fixed'\n", sets=["router.effect=bloom"]).recipe.router.effect == "bloom"


def test_defaults_only_where_the_critic_is_asked_for(load) -> None:
    recipe = load("losses: {second: null}\ncritic: {losses: null}").recipe
    assert recipe.critic is not None
    assert recipe.critic.losses == {}
    assert load("losses: {second: null}\ncritic: null").recipe.critic is None


def test_a_field_with_an_alias_has_that_for_a_key(load) -> None:
    loaded = load("router: {use: fixed, effect: bloom, make: 3}")
    assert loaded.recipe.router.make() == 3.0
    assert "make: 3.0" in loaded.resolved_yaml()
