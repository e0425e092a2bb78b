"""How many threads compute, and how they wait: from the cores that are really free, before torch starts its pools.

Two threads on two cores beside another busy process cost several times the processor time of one: whichever thread is
not running keeps the other spinning. So a thread is started for each core that is free, and where others work on the
machine the threads that wait sleep.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, MutableMapping
from math import floor

from attrs import frozen

from clora.errors import escaped
from clora.process.free_cores import Cores, look

#: what --threads takes
MOST = 4096
#: of a core: so much may be taken by others and it still counts as free, for a machine is never quite idle
TOLERATED = 0.3
#: the OpenMP runtimes' own variables; a person who has set one has chosen
COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
#: for libgomp and others, and for LLVM's and Intel's, which has its own variable
PASSIVE = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}

OTHERWISE = "; --threads says otherwise"

_made: list[Choice] = []  # the pools are the process's, and so is the choice


@frozen
class Choice:
    """So many threads, and why; `count` is None where the environment says it, `fixed` where a person chose it."""

    count: int | None
    why: str
    fixed: bool = False

    def __str__(self) -> str:
        return self.why if self.count is None else f"{counted(self.count, 'thread')}: {self.why}"


def add_threads_argument(parser: argparse.ArgumentParser) -> None:
    """--threads."""
    parser.add_argument(
        "--threads",
        type=_count,
        metavar="N",
        help=f"threads that compute, 1 to {MOST} (default: the cores that are free, or what OMP_NUM_THREADS says)",
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MOST)) and 1 <= int(text) <= MOST):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MOST}")
    return int(text)


def with_threads(run: Callable[[argparse.Namespace], int], *, tells: bool) -> Callable[[argparse.Namespace], int]:
    """A command that sets its threads up first, and says which where `tells`; else the run itself says it."""

    def prepared(args: argparse.Namespace) -> int:
        choice = set_up(args.threads, os.environ)
        if tells and choice is not None:
            _apply(choice)
            print(choice, file=sys.stderr)
        return run(args)

    return prepared


def set_up(asked: int | None, environment: MutableMapping[str, str]) -> Choice | None:
    """Choose, and have torch's pools start so; None, with nothing changed, where torch runs already and none are asked.

    The runtimes read the environment once, when torch is imported: after that only a number can be changed.
    """
    _made.clear()
    if "torch" in sys.modules:
        if asked is None:
            return None
        _set(asked)
        choice = Choice(asked, "--threads says so", fixed=True)
    else:
        choice = _chosen(asked, environment)
    _made.append(choice)
    return choice


def _chosen(asked: int | None, environment: MutableMapping[str, str]) -> Choice:
    named = next((name for name in COUNTS if environment.get(name)), None)
    if asked is not None:
        environment.update({name: str(asked) for name in COUNTS if name == COUNTS[0] or name in environment})
        return Choice(asked, "--threads says so", fixed=True)
    if named is not None:
        return Choice(None, f"threads: {named}={escaped(environment[named][:20])} says how many", fixed=True)
    cores = look(environment)
    choice = choose(cores)
    environment[COUNTS[0]] = str(choice.count)
    if cores.busy > TOLERATED and not any(name in environment for name in WAITING):
        environment.update(PASSIVE)
    return choice


def choose(cores: Cores) -> Choice:
    """A thread for each free core: at least one, at most what torch itself takes, one for each physical core."""
    count = max(1, min(cores.physical, floor(cores.free + TOLERATED)))
    why = counted(cores.logical, "core")
    if cores.physical < cores.logical:
        why += f" ({cores.physical} physical)"
    if cores.quota is not None and cores.quota < cores.logical:
        why += f", a quota of {cores.quota:.2g}"
    if cores.processes > 1:
        return Choice(count, f"{why}, shared by {cores.processes} processes")
    if cores.allowed - cores.free > TOLERATED:
        return Choice(count, f"{why}, {cores.allowed - cores.free:.1f} of them busy with other work{OTHERWISE}")
    if cores.busy > TOLERATED:
        return Choice(count, f"{why}, enough of them free")
    return Choice(count, f"{why}, {({1: 'idle', 2: 'both idle'}).get(cores.logical, 'all idle')}")


def of_run(before: int) -> tuple[int, str | None]:
    """The threads that a run has, and what to say of them; `before` is their number in earlier calls, 0 without any.

    Sums depend on the number of threads in their last bits, so a run keeps the number that it began with unless a
    person says another.
    """
    import torch

    choice = _made[-1] if _made else None
    if choice is None:  # whoever called has set torch up
        return torch.get_num_threads(), None
    _apply(choice)
    if choice.fixed or not 1 <= before <= MOST or before == torch.get_num_threads():
        return torch.get_num_threads(), str(choice)
    _set(before)
    began = f"{counted(before, 'thread')}, as when this run began, so that its sums stay the same"
    return before, f"{began} (now it would be {choice.count}){OTHERWISE}"


def _apply(choice: Choice) -> None:
    """A number that a person gave holds even where MKL, which decides at its start, would take fewer."""
    if choice.fixed and choice.count is not None:
        _set(choice.count)


def _set(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def counted(count: int, noun: str) -> str:
    """`1 thread`, `2 threads`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
