"""Commands of plugins: listed, called as the core's are, and told by their plugin where something is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from clora import cli
from clora.plugin_system.core_commands import clora_commands
from clora.plugin_system.discovery import discover

ROOT = Path(__file__).parents[2]
REGISTER = """
    from clora.api import Command, hookimpl

    @hookimpl
    def clora_commands():
        return [{commands}]
"""
SHOUT = """
    from clora.api import CloraError

    def add_arguments(parser):
        parser.add_argument("words", nargs="+", help="what to shout")
        parser.add_argument("--quietly", action="store_true")

    def run(args):
        if args.quietly:
            raise CloraError("a shout is never quiet")
        print(" ".join(args.words).upper())
        return 3
"""

Give = Callable[..., Path]


@pytest.fixture
def give(install, monkeypatch: pytest.MonkeyPatch) -> Give:
    """`give("shout-house", source)` installs a distribution whose plugin registers the command `shout` of a module."""

    def write(
        house: str, source: str = SHOUT, name: str = "shout", more: str = "", entry: str = "loud", of: str = ""
    ) -> Path:
        module = of or f"{house.replace('-', '_')}_command"
        command = f'Command("{name}", "say something loudly", "{module}"{more})'
        site = Path(install(house, {entry: dedent(REGISTER).format(commands=command)}))
        (site / f"{module}.py").write_text(dedent(source))
        monkeypatch.delitem(sys.modules, module, raising=False)
        return site / f"{module}.py"

    return write


def called(*words: str) -> int:
    """The exit code of a command, whether it is returned or argparse's."""
    try:
        return cli.main(list(words))
    except SystemExit as end:
        return int(end.code or 0)


def test_a_plugins_command_is_called_with_its_arguments_and_gives_its_exit_code(give, capsys) -> None:
    give("shout-house")
    assert called("shout", "ink", "and", "clay") == 3
    assert capsys.readouterr().out == "INK AND CLAY\n"
    assert called("shout", "--help") == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: clora shout [-h]")
    assert "Say something loudly." in out
    assert "--traceback" in out
    assert "--threads" not in out


def test_its_wrong_words_and_its_own_mistakes_are_two(give, capsys) -> None:
    give("shout-house")
    assert called("shout") == 2
    assert "clora shout: error: the following arguments are required: words" in capsys.readouterr().err
    assert called("shout", "ink", "--quietly") == 2
    assert capsys.readouterr().err == "a shout is never quiet\n"
    assert called("shout", "ink", "--quietly", "--traceback") == 2
    assert "in run\n" in capsys.readouterr().err


def test_help_lists_it_with_its_distribution(give, capsys) -> None:
    give("shout-house")
    assert called("--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "shout say something loudly (shout-house)" in text
    assert all(f" {command.name} {command.help} " in text for command in clora_commands())
    assert called("--help", "shout") == 0


def test_its_module_is_imported_when_it_is_called_and_not_before(give, capsys) -> None:
    give("shout-house")
    assert called("plugins") == 0
    assert called("--help") == 0
    assert "shout_house_command" not in sys.modules
    assert called("shout", "ink") == 3
    assert "shout_house_command" in sys.modules


@pytest.mark.parametrize("words", [["run", "--help"], ["show", "--help"], ["new-plugin", "--help"], ["--version"]])
def test_a_command_of_the_core_imports_no_plugin_before_it_needs_one(words: list[str]) -> None:
    code = (
        "import sys\nfrom clora.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        "seen = [name for name in sys.modules if 'discovery' in name or name.startswith('clora_')]\n"
        "sys.exit(' '.join(seen) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_clora_plugins_lists_it_and_tells_its_arguments(give, capsys) -> None:
    give("shout-house")
    assert called("plugins") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[lines.index("loud loaded shout-house 1.0") + 1] == "commands: shout"
    assert called("plugins", "--json") == 0
    rows = {row["plugin"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["loud"]["commands"], rows["loud"]["components"], rows["loud"]["observes"]) == (["shout"], {}, [])
    for name in ("shout", "loud", "shout-house:shout"):
        assert called("plugins", name) == 0
        out = capsys.readouterr().out
        assert out.startswith("commands: shout of shout-house 1.0\n    usage: clora shout [--traceback] [--quietly]")
        assert "what to shout" in out


@pytest.mark.slow
def test_one_that_computes_takes_threads(give) -> None:
    source = """
        import os

        def add_arguments(parser):
            pass

        def run(args):
            import torch
            print(os.environ["OMP_NUM_THREADS"], torch.get_num_threads())
            return 0
    """
    site = give("count-house", source, "count", ", computes=True").parent
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    words = [sys.executable, "-m", "clora", "count", "--threads", "3"]
    done = subprocess.run(words, env={**clean, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 3\n", "3 threads: --threads says so\n")


def test_one_that_says_the_threads_itself_is_not_spoken_for(give, capsys) -> None:
    source = "def add_arguments(parser): pass\ndef run(args): return 0\n"
    give("count-house", source, "count", ", computes=True, tells_threads=True")
    assert called("count", "--threads", "1") == 0
    assert capsys.readouterr().err == ""
    assert called("count", "--threads", "0") == 2


@pytest.mark.parametrize("name", [command.name for command in clora_commands()])
def test_a_command_with_a_name_of_the_cores_breaks_its_plugin_and_the_cores_is_called(give, capsys, name) -> None:
    give("copy-house", name=name)
    (plugin,) = (plugin for plugin in discover().plugins if plugin.distribution == "copy-house")
    assert plugin.state == "broken"
    assert plugin.reason == f"clora_commands: {name!r} is a command of clora's own; choose another"
    assert called(name, "--help") == 0
    assert "Say something loudly" not in capsys.readouterr().out


def test_one_name_from_two_plugins_must_be_chosen(give, capsys) -> None:
    give("a-house")
    give("b-house", SHOUT.replace("upper", "title"))
    assert called("shout", "ink") == 2
    told = capsys.readouterr().err
    assert told == (
        "the command 'shout' is given by the plugins 'loud' of a-house 1.0 and 'loud' of b-house 1.0; "
        "write clora a-house:shout or clora b-house:shout\n"
    )
    assert called("b-house:shout", "ink") == 3
    assert capsys.readouterr().out == "Ink\n"
    assert called("plugins") == 0
    assert f"warning: {told}" in capsys.readouterr().out
    assert called("--help") == 0
    out = capsys.readouterr().out
    assert "\n    a-house:shout\n" in out
    assert "\n    b-house:shout\n" in out


def test_one_name_from_two_plugins_of_one_distribution_needs_one_blocked(install, capsys) -> None:
    source = REGISTER.format(commands='Command("shout", "say it", __name__)')
    install("a-house", {"one": source, "two": source})
    assert called("shout", "ink") == 2
    assert capsys.readouterr().err == (
        "the command 'shout' is given by the plugins 'one' of a-house 1.0 and 'two' of a-house 1.0; "
        "one of them must be blocked\n"
    )
    assert called("--help") == 0


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("Command('Shout', 'x', 'os')", "'Shout' is no name of a command; small letters, digits and single hyphens"),
        ("Command('a b', 'x', 'os')", "'a b' is no name of a command"),
        ("Command('-x', 'x', 'os')", "'-x' is no name of a command"),
        ("Command('a:b', 'x', 'os')", "'a:b' is no name of a command"),
        ("Command('', 'x', 'os')", "'' is no name of a command"),
        ("Command('x' * 41, 'x', 'os')", "'xxxx"),
        ("Command(3, 'x', 'os')", "3 is no name of a command"),
        ("Command('shout', '', 'os')", "the help of 'shout' must be one line of 1 to 200 characters without %"),
        ("Command('shout', 'a\\nb', 'os')", "the help of 'shout' must be one line"),
        ("Command('shout', '%(prog)s', 'os')", "the help of 'shout' must be one line"),
        ("Command('shout', None, 'os')", "the help of 'shout' must be one line"),
        ("Command('shout', 'x', 'a:B')", "the module of 'shout' must be written as package.module, not 'a:B'"),
        ("Command('shout', 'x', None)", "the module of 'shout' must be written as package.module, not None"),
        ("Command('shout', 'x', 'no_house')", "the module of 'shout' is not there: 'no_house'"),
        ("Command('shout', 'x', 'os.no_house')", "the module of 'shout' is not there: 'os.no_house' (ModuleNotFound"),
    ],
)
def test_a_wrong_registration_breaks_the_plugin_and_names_the_hook(install, capsys, command: str, why: str) -> None:
    word = "Shout" if "Shout" in command else "shout" if "'shout'" in command else "bad"
    install("bad-house", {"bad": dedent(REGISTER).format(commands=command)})
    assert called("plugins") == 1
    assert f"    clora_commands: {why}" in capsys.readouterr().out
    assert called(word, "ink") == 2
    told = capsys.readouterr().err
    assert told.startswith(f"no command is named {word!r}")
    assert "plugin 'bad' of bad-house 1.0 is broken: clora_commands: " in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("return None", "clora_commands must return list[Command], not NoneType"),
        ("return ['shout']", "clora_commands must return list[Command], but the list holds 'shout'"),
        ("return [Command('a', 'x', 'os')] * 2", "clora_commands registers 'a' twice"),
        ("raise OSError('no disk')", "clora_commands raised OSError: no disk"),
    ],
)
def test_what_is_no_list_of_commands_breaks_the_plugin(install, body: str, why: str) -> None:
    source = f"from clora.api import Command, hookimpl\n@hookimpl\ndef clora_commands():\n    {body}\n"
    install("bad-house", {"bad": source})
    (plugin,) = (plugin for plugin in discover().plugins if plugin.distribution == "bad-house")
    assert (plugin.state, plugin.reason) == ("broken", why)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import no_such_package", "cannot import 'bad_house_command': ModuleNotFoundError: No module named 'no_such_"),
        ("raise SystemExit(3)", "cannot import 'bad_house_command': SystemExit: 3"),
        ("def run(args): return 0", "the module 'bad_house_command' has no function add_arguments of one argument"),
        ("def add_arguments(parser): pass", "the module 'bad_house_command' has no function run of one argument"),
        ("def add_arguments(): pass\ndef run(args): pass", "has no function add_arguments of one argument"),
        ("def add_arguments(parser): pass\nrun = 3", "has no function run of one argument"),
    ],
)
def test_a_module_that_is_no_command_is_told_with_its_plugin_once_it_is_asked_for(give, capsys, source, why) -> None:
    give("bad-house", source)
    told = "the command 'shout' of plugin 'loud' of bad-house 1.0 is broken: "
    assert called("shout", "ink") == 2
    err = capsys.readouterr().err
    assert err.startswith(told)
    assert why in err
    assert err.count("\n") == 1
    assert called("plugins") == 0
    assert capsys.readouterr().err == ""
    assert called("plugins", "--load") == 1
    assert capsys.readouterr().err == err


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("return 'done'", "its run gave str 'done'; expected the exit code, an int"),
        ("return None", "its run gave None; expected the exit code, an int"),
        ("raise ValueError('no such colour')", "ValueError: no such colour at bad_house_command.py:4"),
    ],
)
def test_what_goes_wrong_in_it_is_one_line_that_names_it(give, capsys, body: str, why: str) -> None:
    give("bad-house", f"def add_arguments(parser):\n    pass\ndef run(args):\n    {body}\n")
    assert called("shout") == 1
    assert capsys.readouterr().err == f"clora shout (shout of bad-house 1.0): {why}\n"
    assert called("shout", "--traceback") == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_argument_may_be_called_run(give, capsys) -> None:
    declares = "def add_arguments(parser):\n    parser.add_argument('run')\n"
    give("fine-house", f"{declares}def run(args):\n    print(args.run)\n    return 0\n")
    assert called("shout", "here") == 0
    assert capsys.readouterr().out == "here\n"


def test_arguments_that_clash_with_the_cores_are_told(give, capsys) -> None:
    clash = "def add_arguments(parser):\n    parser.add_argument('--traceback')\ndef run(args): return 0\n"
    give("bad-house", clash)
    assert called("shout") == 1
    expected = r"clora shout \(shout of bad-house 1.0\): ArgumentError: .*--traceback.* at bad_house_command.py:2\n"
    assert re.fullmatch(expected, capsys.readouterr().err)


@pytest.mark.parametrize("ends", ["sys.exit(4)", "raise BrokenPipeError", "raise KeyboardInterrupt"])
def test_its_own_end_a_closed_pipe_and_a_stop_are_no_mistakes_of_its(give, ends: str) -> None:
    source = f"import sys\ndef add_arguments(parser):\n    pass\ndef run(args):\n    {ends}\n"
    site = give("end-house", source).parent
    words = [sys.executable, "-m", "clora", "shout"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    expected = {"sys.exit(4)": (4, ""), "raise BrokenPipeError": (141, "")}
    assert (done.returncode, done.stderr) == expected.get(ends, (130, "stopped by SIGINT; nothing was changed\n"))


def test_a_file_that_the_system_refuses_is_told_as_for_the_cores(give, capsys) -> None:
    give("bad-house", "def add_arguments(parser):\n    pass\ndef run(args):\n    open('nowhere/x')\n")
    assert called("shout") == 2
    assert capsys.readouterr().err == "nowhere/x: No such file or directory\n"


@pytest.mark.parametrize("word", ["shoot", "shout-house:shoot"])
def test_an_unknown_command_brings_the_nearest(give, capsys, word: str) -> None:
    give("shout-house")
    assert called(word) == 2
    assert capsys.readouterr().err.startswith(
        f"no command is named {word!r}; did you mean 'shout'?" if ":" not in word else f"no command is named {word!r}; "
    )
