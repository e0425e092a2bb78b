"""The entry of the command line: start-up, exit codes, help."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from clora import cli
from clora.cli import show
from clora.errors import CloraError
from clora.plugin_system.core_commands import clora_commands

NAMES = [command.name for command in clora_commands()]


def python(code: str) -> int:
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, clora.cli\n"
        "try: clora.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "named = {'torch', 'numpy', 'diffusers', 'transformers', 'peft', 'requests', 'clora.planning.plan'}\n"
        "heavy = named & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert python(code) == 0


@pytest.mark.slow
def test_packages_that_nobody_asked_for_say_nothing() -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"  # importing diffusers and peft, as most do
    done = subprocess.run([sys.executable, "-m", "clora", "validate", str(recipe)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"\n    {command}\s", out) for command in NAMES)


def test_python_m_clora() -> None:
    done = subprocess.run([sys.executable, "-m", "clora", "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("clora ")


@pytest.mark.parametrize("words", [[], ["--bogus"], ["--bogus", "run"]])
def test_no_command_is_two(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2


@pytest.mark.parametrize("word", ["bogus", "", "x:run", "clora:run", "\x1b[2J", "\udcff", "a" * 5000])
def test_a_word_that_is_no_command_is_two_and_one_line(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word, "x"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("no command is named ")
    assert err.strip().isprintable()


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (CloraError("a b"), 2, "a b\n"),
        (KeyboardInterrupt(), 130, "stopped by SIGINT; nothing was changed\n"),
    ],
)
def test_what_a_command_raises(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, told: str
) -> None:
    def fail(args: object) -> int:
        raise error

    monkeypatch.setattr(show, "run", fail)
    assert cli.main(["show", "r.yaml"]) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", told)


def test_a_reader_that_goes_away_is_no_mistake() -> None:
    code = (
        "import sys, clora.cli\nfrom clora.cli import plugins\n"
        "def run(args):\n    while True: print('x' * 1000)\n"
        "plugins.run = run\nsys.exit(clora.cli.main(['plugins']))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 141
        assert process.stderr.read() == b""
