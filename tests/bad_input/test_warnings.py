"""What is doubtful about a recipe: told with its place, and nothing is refused for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from clora_teachers.bank import Bank

from clora import cli
from clora.planning.plan import MOST_WARNINGS

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def validated(folder: Path, capsys: pytest.CaptureFixture[str]):
    """Exit code, what `clora validate` printed, and its warnings."""

    def run(*words: str) -> tuple[int, str, list[str]]:
        teachers = "teachers: {manifest: bank/bank.yaml}\n"
        Path("r.yaml").write_text(f"extends: {RECIPES / 'collection.yaml'}\n{teachers}")
        code = cli.main(["validate", "r.yaml", *words])
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return run


def test_a_recipe_without_doubts_has_no_warnings(validated):
    code, out, told = validated()
    assert (code, told) == (0, [])
    assert out.endswith("valid: nothing stands in the way of this run\n")


def test_a_components_warnings_are_told_once_with_their_place_and_refuse_nothing(validated, monkeypatch):
    monkeypatch.setattr(Bank, "warnings", lambda self: ["odd", "odd", "queer"], raising=False)
    code, out, told = validated()
    assert code == 0
    assert told == ["warning: r.yaml:2:1: teachers: odd", "warning: r.yaml:2:1: teachers: queer"]
    assert out.endswith("; 2 warnings above\n")
    monkeypatch.setenv("RANK", "1")
    assert validated()[2] == []


def test_a_thousand_warnings_are_told_in_a_few(validated, monkeypatch):
    monkeypatch.setattr(Bank, "warnings", lambda self: map(str, range(1020)), raising=False)
    told = validated()[2]
    assert len(told) == MOST_WARNINGS + 1
    assert told[-1] == "warning: r.yaml:2:1: teachers: 1,000 more warnings like these"


def test_warnings_are_not_asked_for_where_something_is_wrong(validated, monkeypatch):
    monkeypatch.setattr(Bank, "warnings", lambda self: pytest.fail("asked"), raising=False)
    code, _, told = validated("--set", "effects=[thermla]")
    assert code == 2
    assert not any("warning" in line for line in told)
