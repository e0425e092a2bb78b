"""Every mistake in a recipe's values: its place, the offending word, what was expected."""

from __future__ import annotations

import re

import pytest


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        # keys
        ("trian: {}", "2:1: unknown key 'trian'; did you mean 'train'?"),
        ("train: {stepz: 3}", "2:9: unknown key 'stepz' in train; did you mean 'steps'?"),
        ("router: {p_swich: 1}", "2:10: unknown key 'p_swich' in router; did you mean 'p_switch'?"),
        ("router: {_cache: 1}", "2:10: unknown key '_cache' in router; known: hold_steps, p_switch"),
        ("serve: {plsu: 1}", "2:9: unknown key 'plsu' in serve; did you mean 'plus'?"),
        # types
        ("train: {steps: 3.9}", "2:16: train.steps: expected an integer, found 3.9"),
        ("train: {steps: 1e3}", "2:16: train.steps: expected an integer, found 1e3"),
        ('train: {steps: "3"}', '2:16: train.steps: expected an integer, found the text "3"; leave the quotes out'),
        ("train: {steps: 010}", "2:16: train.steps: expected an integer, found '010'; leave the leading zeros out"),
        ("train: {steps: 1:30}", "2:16: train.steps: expected an integer, found '1:30'"),
        ("train: {steps: true}", "2:16: train.steps: expected an integer, found true"),
        ("train: {steps: [1]}", "2:16: train.steps: expected an integer, found a list"),
        ("train: {lr: fast}", "2:13: train.lr: expected a number, found 'fast'"),
        ("train: {lr: .inf}", "2:13: train.lr: expected a number, found '.inf'"),
        ("train: {lr: 1e999}", "2:13: train.lr: expected a number, found '1e999'"),
        ("train: {betas: [0.9]}", "2:16: train.betas: expected a list of 2 numbers, found a list of 1"),
        ("train: {betas: [0.9, no]}", "2:22: train.betas.1: expected a number, found 'no'"),
        ("train: 3", "2:8: train: expected a mapping, found 3"),
        ("title: 3", '2:8: title: expected text, found 3; as text it is written "3"'),
        ("title: true", '2:8: title: expected text, found true; as text it is written "true"'),
        ("title: {a: 1}", "2:1: title: expected text, found a mapping"),
        ("effects: bloom", "2:10: effects: expected a list of texts, found 'bloom'; write [bloom]"),
        (
            "losses: {first: {streams: [effekt]}}",
            "2:28: losses.first.streams.0: expected one of effect, general, found 'effekt'; did you mean 'effect'?",
        ),
        (
            "train: {schedule: sharde}",
            "2:19: train.schedule: expected one of independent, shared, found 'sharde'; did you mean 'shared'?",
        ),
        # bounds
        ("train: {batch_size: 0}", "2:21: train.batch_size must be between 1 and 4096, found 0"),
        ("train: {lr: 0}", "2:13: train.lr must be between 1e-10 and 1, found 0.0"),
        ("student: {ema: 1.5}", "2:16: student.ema must be between 0 and 0.999999, found 1.5"),
        ("router: {p_switch: -1e-4}", "2:20: router.p_switch must be at least 0.0, found -0.0001"),
        (
            "simulations: {backward: {tau_min: 900}}",
            "1:10 -> right.yaml:7:36: simulations.backward.tau_max: no noise level lies between 900.0 and 800.0",
        ),
        # components
        ("router: swich", "2:9: router has no component 'swich'; did you mean 'switch'?"),
        ("router: {use: 3}", "2:15: expected a component's name under `use`, found 3"),
        ("router: [switch]", "2:9: router: expected a component's name or {use: NAME, ...}, found a list"),
        ("losses: {third: {weight: 2}}", "2:10: 'use' is missing in losses.third: which component is it?"),
        ("losses: [plain]", "2:9: losses: expected a mapping of name -> {use: NAME}, found a list"),
        ("losses: {a.b: plain}", "2:10: 'a.b' in losses is no name; letters, digits, - and _ make one"),
        ('losses: {"": plain}', "2:10: '' in losses is no name; letters, digits, - and _ make one"),
        ("teachers: picky", "2:11: teachers: never content"),
        (
            "teachers: vague",
            "2:11: teachers: the types of class Vague cannot be read: name 'Nowhere' is not defined",
        ),
        # missing
        ("router: null", "2:9: section 'router' is missing; write `router: {use: NAME}`"),
        ("router: fixed", "2:9: 'effect' is missing in router"),
        # sections together
        (
            "losses: {second: {simulation: bakward}}",
            "2:31: losses.second asks for simulation 'bakward', not in `simulations`; did you mean 'backward'?",
        ),
        (
            "critic: {losses: {follow: {use: matching, simulation: x}}}",
            "2:55: critic.losses.follow asks for simulation 'x', not in `simulations`; known: backward",
        ),
        (
            "critic: null",
            "1:10 -> right.yaml:10:3: losses.second asks for the critic, but there is no `critic` section",
        ),
        (
            "simulations: {backward: {tau_max: 200}}",
            "2:15: simulations.backward: no step of the schedule lies below tau_max 200.0",
        ),
        ("serve: {plus: nowhere.yaml}", "2:15: serve.plus: no recipe at {cwd}/nowhere.yaml"),
    ],
)
def test_one_mistake(wrong, tmp_path, line: str, problem: str) -> None:
    assert wrong(line) == [problem.replace("{cwd}", str(tmp_path / "work"))]


def test_a_check_that_raises_is_told_with_its_line_of_code(wrong) -> None:
    (problem,) = wrong("simulations: {b: unready}")
    assert re.fullmatch(r"2:18: simulations\.b: its check_schedule raised KeyError: 'sigma' at \w+\.py:\d+", problem)


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "True", "FALSE", '"true"'])
def test_only_true_and_false_are_booleans(wrong, word: str) -> None:
    (problem,) = wrong(f"train: {{pack: {word}}}")
    assert problem.startswith("2:15: train.pack: expected true or false, found ")
    assert problem.endswith("only true and false, unquoted and in small letters, are booleans here")


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("many: [1, 2.5]", "router.many.1: expected an integer, found 2.5"),
        ("either: atuo", "router.either: expected an integer or auto, found 'atuo'"),
        ("words: {a: b}", "router.words.a: expected an integer, found 'b'"),
        ("words: [1]", "router.words: expected a mapping, found a list"),
        ("inner: {foldr: x}", "unknown key 'foldr' in router.inner; did you mean 'folder'?"),
        ("inner: {folder: ''}", 'router.inner.folder: expected a path, found the text ""'),
        ("code: A1", "router.code must match regex '[a-z]+' ('A1' doesn't)"),
        ("tensor: 3", "router.tensor: a recipe cannot give a value of type complex"),
        ("effect: null", "'effect' is missing in router"),
        ("make: 0", "router.make must be more than 0.0, found 0.0"),
        ("made_: 2", "unknown key 'made_' in router; did you mean 'make'?"),
    ],
)
def test_types_of_components(wrong, key: str, problem: str) -> None:
    (line,) = wrong(
        f"router:\n  use: fixed\n  effect: bloom\n  {key}\n".replace("  effect: bloom\n  effect", "  effect")
    )
    assert line.split(": ", 1)[1] == problem


def test_all_mistakes_at_once_in_the_order_of_lines(wrong) -> None:
    problems = wrong(
        """
        train: {steps: 3.9, lr: 0, stepz: 1}
        router: {use: swich}
        trian: 1
        losses: {second: {simulation: bakward}}
        student: {rank: 0}
        """,
        sets=["train.pack=maybe"],
    )
    assert [problem.split(": ")[0] for problem in problems] == [
        "--set train.pack",
        "3:16",
        "3:25",
        "3:28",
        "4:15",
        "5:1",
        "6:31",
        "7:17",
    ]


def test_missing_sections_are_told_together(wrong) -> None:
    sections = [problem.split("'")[1] for problem in wrong("title: nothing else", extends=None)]
    assert sections == ["backbone", "dataset", "teachers", "router", "prompts"]


def test_an_empty_file_lacks_every_section(wrong) -> None:
    assert len(wrong("", extends=None)) == 5
    assert len(wrong("# nothing\n", extends=None)) == 5


def test_a_recipe_that_is_a_list(wrong) -> None:
    assert wrong("- a\n", extends=None) == ["1:1: expected a mapping of sections, found a list"]
