"""Signals sent to real processes: during imports, in calls that do not come back, at the end, on a closed terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from on_terminal import BOUND, on_a_terminal

pytestmark = [
    pytest.mark.slow,  # many short tests, which take seconds together
    pytest.mark.skipif(os.name != "posix", reason="signals and terminals as POSIX has them"),
]

RECIPES = Path(__file__).parents[2] / "recipes"
#: `clora show` with another body: the whole command line, and nothing heavy
SHELL = """
import os, signal, sys, time
from clora import cli
from clora.cli import show
from clora.process.stopping import during, held
{}
show.run = run
sys.argv = ["clora", "show", "x.yaml"]
if __name__ == "__main__":
    sys.exit(cli.main())
"""


def driver(body: str) -> list[str]:
    return [sys.executable, "-c", SHELL.format(body)]


def start(words: list[str], **keywords) -> subprocess.Popen[str]:
    """A process with its streams as pipes and one thread for arithmetic."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | keywords
    return subprocess.Popen(words, env=environment, text=True, **pipes)


def ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


IMPORTING = """
import importlib.abc, os, signal, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == sys.argv[-2]:
            os.kill(os.getpid(), int(sys.argv[-1]))
sys.meta_path.insert(0, Finder())
from clora import cli
name, sys.argv = sys.argv, ["clora", "validate", {recipe!r}]
kept, Finder.find_spec = Finder.find_spec, lambda self, module, path, target=None: (
    os.kill(os.getpid(), int(name[-1])) if module == name[-2] else None)
sys.exit(cli.main())
"""


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("clora.cli.validate", signal.SIGINT),  # before the words of the command line are read
        ("yaml", signal.SIGHUP),
        ("torch.version", signal.SIGTERM),
        ("torch._tensor", signal.SIGINT),
        ("torch.nn.functional", signal.SIGHUP),
        ("safetensors", signal.SIGINT),
    ],
)
def test_a_signal_while_a_module_is_imported(module: str, number: signal.Signals) -> None:
    code = IMPORTING.format(recipe=str(RECIPES / "quickstart.yaml"))
    process = start([sys.executable, "-c", code, module, str(int(number))])
    out, said = process.communicate(timeout=4 * BOUND)
    assert (process.returncode, out, said) == (128 + number, "", f"stopped by {number.name}; nothing was changed\n")


#: bodies that do not come back by themselves
STUCK = {
    "a call that does not come back": """
import hashlib
def run(args):
    with during("while waiting", "all is kept"):
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
""",
    "a library that swallows all": """
def run(args):
    with during("while waiting", "all is kept"):
        print("ready", flush=True)
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass
""",
    "a destructor": """
class Slow:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(60)
def run(args):
    with during("while waiting", "all is kept"):
        slow = Slow()
        del slow
        time.sleep(60)
""",
    "a thread that the interpreter waits for": """
import threading
def run(args):
    threading.Thread(target=time.sleep, args=(60,)).start()
    with during("while waiting", "all is kept"):
        print("ready", flush=True)
        time.sleep(60)
""",
    "a step that is taken at exit": """
import atexit
def run(args):
    atexit.register(time.sleep, 60)
    with during("while waiting", "all is kept"):
        print("ready", flush=True)
        time.sleep(60)
""",
}


@pytest.fixture(scope="module")
def stuck() -> dict[tuple[str, signal.Signals], subprocess.Popen[str]]:
    """A process for each body and signal, which it has got: all wait out their two seconds at the same time."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    processes = {(where, number): start(driver(body)) for where, body in STUCK.items() for number in numbers}
    for (_, number), process in processes.items():
        ready(process)
        process.send_signal(number)
    return processes


@pytest.mark.parametrize("where", STUCK)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_does_not_come_back_is_ended(stuck, where: str, number: signal.Signals) -> None:
    process = stuck[where, number]
    _, said = process.communicate(timeout=BOUND)
    line = f"stopped by {number.name} while waiting; all is kept. The same command goes on from here\n"
    assert (process.returncode, said) == (128 + number, line)


CYCLE = """
import hashlib
def run(args):
    with during("while training", "the last checkpoint is kept"), held():
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def test_a_long_cycle_is_waited_for_and_a_second_signal_ends_it() -> None:
    process = start(driver(CYCLE))
    ready(process)
    for _ in range(3):
        process.send_signal(signal.SIGTERM)  # the same stop: a launcher passes on what it gets
    for _ in range(2):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        process.send_signal(signal.SIGHUP)  # a terminal that closes sends it more than once
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=BOUND)
    assert process.returncode == 143
    kept = "while training; the last checkpoint is kept. The same command goes on from here"
    assert said == f"stopped by SIGTERM {kept}\n"


LATE = """
import atexit
def run(args):
    atexit.register(time.sleep, {seconds})
    print("ready", flush=True)
    {then}
"""


LATE_CASES = [
    (number, then, lines)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for then, lines in (("return 0", 0), ("time.sleep(60)", 1))
]


@pytest.fixture(scope="module")
def late() -> Iterator[dict[tuple[signal.Signals, str], Future[tuple[int, str]]]]:
    """The exit code and the stderr of a process for each case, which is sent its signal until it has ended."""

    def outcome(number: signal.Signals, then: str) -> tuple[int, str]:
        process = start(driver(LATE.format(seconds=5, then=then)))
        ready(process)
        deadline = time.monotonic() + BOUND
        while process.poll() is None:
            assert time.monotonic() < deadline
            process.send_signal(number)
            time.sleep(0.001)
        return process.returncode, process.communicate()[1]

    with ThreadPoolExecutor(len(LATE_CASES)) as pool:
        yield {(number, then): pool.submit(outcome, number, then) for number, then, _ in LATE_CASES}


@pytest.mark.parametrize(("number", "then", "lines"), LATE_CASES)
def test_signals_that_go_on_to_the_last_line_and_beyond_leave_no_traceback(
    late, number: signal.Signals, then: str, lines: int
) -> None:
    code, said = late[number, then].result()
    assert code in (0, 128 + number, -number)
    assert said in ("", f"stopped by {number.name}; nothing was changed\n")
    assert len(said.splitlines()) >= lines


FORKED = """
def run(args):
    ready, begun = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begun, b"x")
        time.sleep(60)
        os._exit(9)
    os.read(ready, 1)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    time.sleep(2.5)
    print(os.waitstatus_to_exitcode(status))
    return 0
"""


def test_a_signal_to_a_forked_process_is_its_own() -> None:
    process = start(driver(FORKED))
    assert process.communicate(timeout=BOUND) == ("-15\n", "")
    assert process.returncode == 0


IGNORED = """
def run(args):
    for number in (signal.SIGINT, signal.SIGHUP):
        os.kill(os.getpid(), number)
    print("went on")
    return 0
"""


def test_what_was_ignored_at_the_start_stays_ignored() -> None:
    def ignore() -> None:  # as nohup does, and a shell without a terminal for what it puts in the background
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    process = start(driver(IGNORED), preexec_fn=ignore)
    assert process.communicate(timeout=BOUND) == ("went on\n", "")
    assert process.returncode == 0


TALKING = """
def run(args):
    from clora.runs.progress import Progress
    progress = Progress()
    os.read(0, 1)
    for _ in range(100):
        progress.say("x" * 1000)
        print("x" * 1000, file=sys.stderr)
    print("done")
    return 0
"""


def test_a_run_goes_on_when_the_reader_of_its_progress_has_gone() -> None:
    process = start(driver(TALKING), stdin=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.close()
    process.stderr = None
    assert process.communicate("x", timeout=BOUND)[0] == "done\n"
    assert process.returncode == 0


TALKING_ON = """
def run(args):
    from clora.runs.progress import Progress
    progress = Progress()
    {ignore}
    os.write(2, b"ready")
    wait = time.monotonic() + {wait}
    with during("while training", "all is kept"):
        while time.monotonic() < wait:
            progress.say("x")
            print("x", flush=True)
            time.sleep(0.01)
    with open({file!r}, "w") as file:
        file.write(f"went on, {{progress.stream.isatty()}}")
    return 0
"""


def test_a_terminal_that_closes_ends_the_command(tmp_path: Path) -> None:
    body = TALKING_ON.format(ignore="", wait=60, file=str(tmp_path / "file"))
    assert on_a_terminal(driver(body), b"ready") == 129
    assert not (tmp_path / "file").exists()


def test_without_sighup_the_command_outlives_its_terminal(tmp_path: Path) -> None:
    ignore = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    body = TALKING_ON.format(ignore=ignore, wait=1, file=str(tmp_path / "file"))
    assert on_a_terminal(driver(body), b"ready") == 0
    assert (tmp_path / "file").read_text() == "went on, False"  # nobody reads it any more
