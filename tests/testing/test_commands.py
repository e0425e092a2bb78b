"""What `clora.testing.commands` finds wrong with a command, and how it calls one."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from clora.api import Command, Quantity
from clora.errors import CloraError
from clora.plugin_system.discovery import discover
from clora.plugin_system.guard import ComponentError
from clora.runs.run_dir import RunDir
from clora.testing.commands import call, command_problems
from clora.testing.runs import write_evaluated_run

FINE = """
def add_arguments(parser):
    parser.add_argument("number", type=int, help="a number")

def run(args):
    if args.number > 9:
        raise ValueError("too large")
    return args.number
"""
OURS = [command.command for command in discover().commands if command.distribution == "clora"]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a module's source and returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(source: str) -> str:
        (tmp_path / "a_command.py").write_text(source)
        importlib.invalidate_caches()
        sys.modules.pop("a_command", None)
        return "a_command"

    yield write
    sys.modules.pop("a_command", None)


def test_a_fine_command_has_no_problem_and_gives_its_exit_code(module) -> None:
    command = Command("count", "count to a number", module(FINE))
    assert command_problems(command) == []
    assert call(command, "7") == 7
    with pytest.raises(ComponentError, match=r"ValueError: too large at a_command\.py:7"):
        call(command, "10")
    with pytest.raises(SystemExit) as end:
        call(command, "seven")
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def run(args): return 0", "has no function add_arguments of one argument"),
        (FINE.replace("a number", "100%!"), "the help of an argument cannot be printed: "),
        (FINE.replace('("number"', '("--traceback"'), "ArgumentError: argument --traceback: conflicting option string"),
        ("import numpy\n" + FINE, "importing a_command imports numpy; import them in its run"),
    ],
)
def test_each_rule_that_is_broken_is_told(module, source: str, problem: str) -> None:
    found = command_problems(Command("count", "count to a number", module(source)))
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    ("name", "line", "problem"),
    [
        ("run", "count", "'run' is a command of clora's own; choose another"),
        ("count", "Count", "its help begins with a small letter and has no full stop at its end, not 'Count'"),
        ("count", "count it.", "its help begins with a small letter and has no full stop at its end, not 'count it.'"),
        ("Count", "count", "'Count' is no name of a command; small letters, digits and single hyphens make one"),
    ],
)
def test_a_wrong_name_or_line_is_told(module, name: str, line: str, problem: str) -> None:
    assert command_problems(Command(name, line, module(FINE))) == [problem]


@pytest.mark.parametrize("command", OURS, ids=lambda command: command.name)
def test_the_shipped_plugins_commands_keep_the_rules(command: Command) -> None:
    assert command_problems(command) == []


def test_a_written_run_is_read_as_any(tmp_path: Path) -> None:
    values, quantities = {"psnr": 31.5, "lost": float("nan")}, {"lost": Quantity("lower")}
    run = RunDir(write_evaluated_run(tmp_path / "mine", values, quantities, seed=3))
    assert (run.info().name, run.info().seed) == ("mine", 3)
    assert run.read_results().values["psnr"] == 31.5
    assert run.read_results().better == {"lost": "lower"}
    with pytest.raises(CloraError, match="is not a run folder"):
        RunDir(tmp_path).info()
