"""`clora show` and `clora plugins` on a small world of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clora.cli import main
from clora.config.load import load_recipe
from clora.planning.plan import make_plan

ROOT = Path(__file__).parents[2]

PARTS = """
    from attrs import frozen
    from clora.api import Component, hookimpl

    @frozen
    class Part:
        x: int = 1

    @hookimpl
    def clora_backbones(): return [Component("one", Part)]
    @hookimpl
    def clora_datasets(): return [Component("one", Part)]
    @hookimpl
    def clora_teachers(): return [Component("one", Part)]
    @hookimpl
    def clora_routers(): return [Component("one", Part), Component("two", Part)]
    @hookimpl
    def clora_prompts(): return [Component("one", Part)]
    @hookimpl
    def clora_run_started(run): pass
"""


@pytest.fixture
def recipe(install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install("one-house", {"one": PARTS, "gone": "import no_such_package"}, version="0.3")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "r.yaml"
    file.write_text(
        "".join(f"{section}: one\n" for section in ("backbone", "dataset", "teachers", "router", "prompts"))
    )
    return file


def test_show(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recipe.parent / "w.yaml").write_text("router: {x: 5}\n")
    assert main(["show", "r.yaml", "--with", "w.yaml", "--set", "train.steps=7", "--set", "seed=3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("# r.yaml, digest ")
    words = [" ".join(line.split()) for line in lines]
    assert {"x: 5 # w.yaml:1", "steps: 7 # --set train.steps", "seed: 3 # --set seed", "x: 1 # default"} <= set(words)


def test_show_plain_is_a_recipe(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "r.yaml", "--plain"]) == 0
    first = capsys.readouterr().out
    (recipe.parent / "r.yaml").write_text(first)
    assert main(["show", "r.yaml", "--plain"]) == 0
    assert capsys.readouterr().out == first


def test_show_tells_every_mistake_and_exits_two(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "r.yaml", "--set", "router=tow", "--set", "train.stepz=1"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "--set router: router has no component 'tow'; did you mean 'two'?",
        "--set train.stepz: unknown key 'stepz' in train; did you mean 'steps'?",
    ]


@pytest.mark.slow
def test_the_digest_that_is_shown_is_the_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("quickstart", "ablation_no_aop", "effect_lora"):
        path = ROOT / f"recipes/{name}.yaml"
        assert main(["show", str(path)]) == 0
        first = capsys.readouterr().out.splitlines()[0]
        assert first == f"# {name}.yaml, digest {make_plan(load_recipe(path)).digest}"


def test_the_digest_of_a_recipe_whose_bank_is_not_here_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(ROOT / "recipes/quickstart.yaml"), "--set", "teachers.manifest=nowhere.yaml"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert " of the recipe alone: `clora validate` tells" in first


def test_plugins(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 1  # one is broken
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "one loaded one-house 0.3" in lines
    assert "router: one, two" in lines
    assert "observes: clora_run_started" in lines
    at = lines.index("gone broken one-house 0.3")
    assert lines[at + 1].startswith("cannot import one_house_gone: ModuleNotFoundError")


def test_plugins_as_json(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 1
    rows = {row["plugin"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["one"]["state"] == "loaded"
    assert rows["one"]["components"]["router"] == ["one", "two"]
    assert rows["one"]["observes"] == ["clora_run_started"]
    assert (rows["gone"]["state"], rows["gone"]["components"]) == ("broken", {})


def test_plugins_are_well_where_none_is_broken(install, capsys: pytest.CaptureFixture[str]) -> None:
    lazy = PARTS.replace('Component("two", Part)', 'Component("two", "two_house_two:Gone")')
    install("two-house", {"two": lazy})
    assert main(["plugins"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["plugins", "--load"]) == 1  # a class that is not there is known once it is asked for
    told = (
        "router: 'two' of plugin 'two' of two-house 1.0 is broken: cannot import 'two_house_two:Gone': AttributeError"
    )
    assert capsys.readouterr().err.startswith(told)


def test_plugins_tells_the_keys_of_a_component(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "dmd", "bank"]) == 0
    out = capsys.readouterr().out
    assert "losses: dmd of clora 0.1.0" in out
    assert "simulations: target of clora 0.1.0" in out  # of the plugin of this name
    assert "    streams: a list of effect, general; default [general, effect]" in out
    assert "    tau_max: a number or null, between 0.1 and 1000; default 750.0" in out
    assert "    manifest: a path; required" in out
    assert main(["plugins", "pdrs"]) == 2
    assert capsys.readouterr().err == "no component, command or plugin is named 'pdrs'; did you mean 'pdsr'?\n"


def test_show_prints_nothing_that_steers_a_terminal(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b[2J\u202e.yaml"
    text = (
        recipe.read_text()
        + r'effects: ["\e[2J", "\u202eabc", "\x9b1m", "\u2028", "a\r\nb", "é 効果 😀", "\U000e0041"]'
        + "\nname: n\n"
    )
    (recipe.parent / name).write_text(text)
    assert main(["show", name]) == 0
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    assert '"\\x1b[2J", "\\u202eabc", "\\x9b1m", "\\u2028", "a\\r\\nb", "é 効果 😀", "\\U000e0041"' in printed
    recipe.write_text(printed)
    assert main(["show", "r.yaml"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[-1] == printed.splitlines()[0].split()[-1]


@pytest.mark.parametrize("path", ["a\0b", "a\udcffb", "a" * 256, "a/" * 2_500])
@pytest.mark.parametrize("option", ["RECIPE", "--with"])
def test_a_path_that_no_file_system_takes(
    recipe: Path, capsys: pytest.CaptureFixture[str], path: str, option: str
) -> None:
    assert main(["show", path] if option == "RECIPE" else ["show", "r.yaml", option, path]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"{option}: the path '")
    assert err.strip().isprintable()
