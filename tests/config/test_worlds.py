"""The world under a method: which one stands there, whose values win, and what is refused."""

from __future__ import annotations

import pytest

WORLD = """\
backbone: tiny
dataset: tiny
teachers: bank
train: {lr: 0.5, steps: 7}
losses:
  second: {weight: 3.0}
critic: {updates: 2}
"""
METHOD = """\
router: switch
prompts: own
simulations:
  backward: {use: target, tau_max: 800}
losses:
  first: plain
  second: {use: matching, simulation: backward}
critic:
  losses: {follow: plain}
"""
MANY = "{" + ", ".join(f"{i}.yaml: {{}}" for i in range(101)) + "}"
ON_A = "default_world: sea.yaml\n" + METHOD


@pytest.fixture
def worlds(write) -> None:
    write(WORLD, "sea.yaml")
    write(WORLD.replace("0.5", "0.25") + "methods:\n  walk.yaml: {train: {steps: 9}}\n", "hill.yaml")
    write(ON_A, "walk.yaml")


@pytest.mark.usefixtures("worlds")
def test_a_world_gives_what_the_method_leaves_open(load) -> None:
    loaded = load(extends="walk.yaml")
    recipe = loaded.recipe
    assert (recipe.train.lr, recipe.critic.updates, recipe.losses["second"].weight) == (0.5, 2, 3.0)
    assert recipe.losses["second"].simulation == "backward"
    assert list(recipe.losses) == ["first", "second"]  # the method's order, for they are summed in it
    assert loaded.world is not None
    assert loaded.world.name == "sea.yaml"
    origins = loaded.origins
    assert str(origins["losses.second.weight"]) == "sea.yaml:6:20"
    assert str(origins["losses.second.simulation"]).startswith("walk.yaml:")


@pytest.mark.usefixtures("worlds")
def test_a_method_wins_over_its_world(load) -> None:
    assert load("train: {lr: 0.125}", extends="walk.yaml").recipe.train.lr == 0.125
    assert load("critic: {updates: 5}", extends="walk.yaml").recipe.critic.updates == 5


@pytest.mark.usefixtures("worlds")
def test_another_world_is_named_by_the_recipe_or_by_the_command_line(load) -> None:
    assert load("world: hill.yaml", extends="walk.yaml").recipe.train.lr == 0.25
    assert load(extends="walk.yaml", world="hill.yaml").recipe.train.lr == 0.25
    assert load("world: sea.yaml", extends="walk.yaml", world="hill.yaml").recipe.train.lr == 0.25


@pytest.mark.usefixtures("worlds")
def test_with_and_set_lie_on_top_of_recipe_and_world(load, write) -> None:
    write("train: {lr: 0.0625}\n", "gpu.yaml")
    assert load(extends="walk.yaml", with_files=["gpu.yaml"]).recipe.train.lr == 0.0625
    assert load(extends="walk.yaml", with_files=["gpu.yaml"], sets=["train.lr=1e-3"]).recipe.train.lr == 1e-3


@pytest.mark.usefixtures("worlds")
def test_a_recipe_of_null_stands_on_no_world(load, wrong) -> None:
    assert load("world: null\nbackbone: tiny\ndataset: tiny\nteachers: bank", extends="walk.yaml").world is None
    lines = wrong("world: null", extends="walk.yaml")
    assert len(lines) == 3
    assert lines[0].endswith("section 'backbone' is missing; write `backbone: {use: NAME}`, or name a world that has "
                             "one (`world: FILE`)")  # fmt: skip


@pytest.mark.usefixtures("worlds")
def test_a_part_that_the_method_has_not_is_left_out(load) -> None:
    plain = "prompts: own\nrouter: switch\nlosses: {first: plain}\nworld: sea.yaml\n"
    recipe = load(plain, extends=None).recipe
    assert list(recipe.losses) == ["first"]
    assert recipe.critic is None
    recipe = load("losses: {second: null}\ncritic: null", extends="walk.yaml").recipe
    assert (list(recipe.losses), recipe.critic) == (["first"], None)


@pytest.mark.usefixtures("worlds")
def test_a_component_of_another_kind_takes_nothing_of_the_world(load) -> None:
    second = load("losses: {second: {use: plain}}", extends="walk.yaml").recipe.losses["second"]
    assert second.weight == 1.0


def test_a_name_that_is_nearly_one_of_the_methods_is_told(load, write) -> None:
    write(WORLD.replace("second:", "secnd:"), "sea.yaml")
    write(ON_A, "walk.yaml")
    (doubt,) = load(extends="walk.yaml").doubts
    why = "losses.secnd: the recipe has nothing of this name, so it changes nothing; did you mean 'second'?"
    assert str(doubt) == f"sea.yaml:6:3: {why}"


@pytest.mark.usefixtures("worlds")
def test_what_a_world_says_for_one_method_reaches_its_children_alone(load, write) -> None:
    assert load(extends="walk.yaml", world="hill.yaml").recipe.train.steps == 9
    write(METHOD, "other.yaml")
    assert load(extends="other.yaml", world="hill.yaml").recipe.train.steps == 7
    assert load("train: {steps: 3}", extends="walk.yaml", world="hill.yaml").recipe.train.steps == 3


def test_a_warm_start_of_no_updates_is_none(load, write) -> None:
    write(WORLD + "warm_start: {updates: 0}\n", "sea.yaml")
    write(ON_A + "warm_start: {losses: {flow: plain}, router: switch}\n", "walk.yaml")
    loaded = load("warm_start: {router: {p_switch: 1.0}}", extends="walk.yaml")
    assert loaded.recipe.warm_start is None
    assert str(loaded.origins["warm_start"]) == "sea.yaml:8:23"
    assert not [place for place in loaded.code if place.startswith("warm_start")]
    assert load(extends="walk.yaml", sets=["warm_start.updates=4"]).recipe.warm_start.updates == 4


@pytest.mark.usefixtures("worlds")
def test_two_worlds_are_refused_and_one_named_twice_is_not(load, wrong, write) -> None:
    write("world: sea.yaml\n" + METHOD, "on_sea.yaml")
    assert load("world: ./sea.yaml", extends="on_sea.yaml").recipe.train.lr == 0.5
    (line,) = wrong("world: hill.yaml", extends="on_sea.yaml")
    both = "two worlds: hill.yaml here and sea.yaml at on_sea.yaml:1:8"
    assert line == f"2:8: {both}; a recipe stands on one, and `--world FILE` replaces both"
    assert load("world: hill.yaml", extends="on_sea.yaml", world="hill.yaml").recipe.train.lr == 0.25


@pytest.mark.usefixtures("worlds")
@pytest.mark.parametrize("key", ["world", "default_world", "extends"])
def test_a_world_stands_on_nothing(wrong, write, key: str) -> None:
    write(f"{WORLD}{key}: sea.yaml\n", "lake.yaml")
    lines = wrong("world: lake.yaml", extends="walk.yaml")
    why = "a world stands on no other file; say here all that it is, and lay changes on it with `--with`"
    assert lines == [f"2:8 -> lake.yaml:8:1: {key}: {why}"]
    lines = wrong(extends="walk.yaml", world="lake.yaml")
    assert lines == [f"r.yaml --world -> lake.yaml:8:1: {key}: {why}"]


@pytest.mark.usefixtures("worlds")
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("world: seaa.yaml", "2:8: cannot read seaa.yaml: No such file or directory; did you mean 'sea.yaml'?"),
        ("world: [sea.yaml]", "2:8: expected one world's file under `world`, found a list"),
        ("default_world: 3", "2:16: expected one world's file under `default_world`, found 3"),
        ("wrold: sea.yaml", "2:1: unknown key 'wrold'; did you mean 'world'?"),
        ("methods: {walk.yaml: {}}", "2:1: methods is what a world says; this file is a method's or a recipe's"),
    ],
)
def test_a_world_that_cannot_be_meant(wrong, text: str, problem: str) -> None:
    assert wrong(text, extends="walk.yaml") == [problem]


@pytest.mark.usefixtures("worlds")
@pytest.mark.parametrize(
    ("methods", "problem"),
    [
        ("[walk.yaml]", "8:10: expected a mapping of a method's file -> sections, found a list"),
        (MANY, "8:1: methods: says something for 101 methods; at most 100 are read"),
        ("{wakl.yaml: {}}", "8:11: methods: there is no method's file 'wakl.yaml'; did you mean 'walk.yaml'?"),
        ("{walk.yaml: 3}", "8:22: methods: expected a mapping of sections, found 3"),
        ("{walk.yaml: {train: {step: 3}}}", "8:31: unknown key 'step' in train; did you mean 'steps'?"),
        ("{'clora:colection.yaml': {}}", "8:11: the recipes of clora have no file 'clora:colection.yaml'; did you mean "
         "'clora:collection.yaml'?"),
    ],
)  # fmt: skip
def test_mistakes_in_what_is_for_one_method(wrong, write, methods: str, problem: str) -> None:
    write(f"{WORLD}methods: {methods}\n", "lake.yaml")
    assert wrong("world: lake.yaml", extends="walk.yaml") == [f"2:8 -> lake.yaml:{problem}"]


@pytest.mark.usefixtures("worlds")
def test_a_world_is_not_laid_on_top(wrong) -> None:
    why = "methods is said by a world, not by a file that is laid on top; give a world by `--world FILE`"
    assert wrong(extends="walk.yaml", with_files=["hill.yaml"]) == [f"r.yaml --with -> hill.yaml:8:1: {why}"]
    why = "world names what stands under a recipe, not by a file that is laid on top; give a world by `--world FILE`"
    assert wrong(extends="walk.yaml", sets=["world=hill.yaml"]) == [f"--set world: {why}"]


@pytest.mark.usefixtures("worlds")
def test_another_model_laid_on_top_of_a_world_is_doubted(load, write) -> None:
    write("backbone: {use: little}\n", "gpu.yaml")
    (doubt,) = load(extends="walk.yaml", with_files=["gpu.yaml"]).doubts
    why = "lays another model on sea.yaml, whose rates, sizes and metrics stay; a whole world is given by"
    assert str(doubt) == f"gpu.yaml:1:1: backbone: {why} `--world FILE`, which replaces it"
    write("backbone: {use: tiny, folder: x}\n", "gpu.yaml")
    assert load(extends="walk.yaml", with_files=["gpu.yaml"]).doubts == ()
    assert load("world: null\ndataset: tiny\nteachers: bank\nbackbone: little", extends="walk.yaml").doubts == ()


@pytest.mark.usefixtures("worlds")
def test_a_world_that_is_not_there_on_the_command_line(wrong) -> None:
    (line,) = wrong(extends="walk.yaml", world="seaa.yaml")
    assert line == "r.yaml --world -> seaa.yaml: cannot be read: No such file or directory; did you mean 'sea.yaml'?"


@pytest.mark.usefixtures("worlds")
def test_what_is_added_at_serving_stands_on_the_same_world(load, write) -> None:
    write("extends: walk.yaml\n", "fast.yaml")
    loaded = load("serve: {plus: fast.yaml}", extends="walk.yaml", world="hill.yaml")
    assert loaded.plus is not None
    assert loaded.plus.recipe.train.lr == 0.25
    assert loaded.recipe.serve.plus_world == str(loaded.world)
    write(loaded.resolved_yaml(), "kept.yaml")  # as the run's folder has it, where no world stands under it
    again = load("", extends="kept.yaml")
    assert again.world is None
    assert again.plus is not None
    assert again.plus.recipe.train.lr == 0.25
    loaded = load("serve: {plus: fast.yaml, plus_world: sea.yaml}", extends="walk.yaml", world="hill.yaml")
    assert loaded.plus is not None
    assert loaded.plus.recipe.train.lr == 0.5


@pytest.mark.usefixtures("worlds")
def test_the_resolved_recipe_needs_no_world(load, write) -> None:
    loaded = load(extends="walk.yaml")
    write(loaded.resolved_yaml(), "kept.yaml")
    again = load("name: r", extends="kept.yaml")
    assert (again.digest, again.world) == (loaded.digest, None)
