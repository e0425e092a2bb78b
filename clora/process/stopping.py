"""One orderly stop: while a command runs, SIGINT, SIGTERM and SIGHUP end it, and one line says what is kept.

A signal raises Stopped where the program is; a stage that must first finish what it has begun, as the training loop
finishes its cycle, holds it and asks. A signal that was ignored when the command began (nohup, a shell's background
job) stays ignored. Nothing here imports more than the standard library: `main` begins with it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from clora.process.deadline import SAME, Deadline

#: Windows has no SIGHUP
HANDLED = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__)
#: how a sentence on what is kept ends where the command makes things
GO_ON = "The same command goes on from here"


class Stopped(KeyboardInterrupt):
    """A signal asks the command to end."""


class Place(NamedTuple):
    """What the command does, what stays of it when it is stopped there, and how to go on."""

    doing: str = ""
    kept: str = "nothing was changed"
    then: str = ""


class Stop:
    """The stop of one command, from `begin` to `end`.

    With `owns_process` the command is all that the process is for: a stop that takes too long ends the process.
    """

    def __init__(self, *, owns_process: bool = False) -> None:
        self.owns_process = owns_process
        self.number: int | None = None  # the signal that asked first
        self.places = [Place()]
        self.at: Place | None = None  # where the stop met the program
        self.by = ""
        self.holders = 0
        self.raised = False
        self.ending = False  # the command is done: there is nothing left to stop
        self.speaks = True
        self.told = False
        self._since = 0.0
        self._before: dict[int, Any] = {}
        self._outer: Stop | None = None
        self._hook = sys.unraisablehook
        self._deadline: Deadline | None = None

    def begin(self) -> None:
        """Take the signals over; outside the main thread they stay with whoever has them."""
        self._outer = _CURRENT.get()
        _CURRENT.set(self)
        if threading.current_thread() is not threading.main_thread():
            return
        if self.owns_process:
            sys.unraisablehook = self._unraisable
            if os.name == "posix":
                os.register_at_fork(after_in_child=self._give_back)
            self._deadline = Deadline(self._late, lambda: bool(self.holders) and not self.raised)
        for number in HANDLED:
            before = signal.getsignal(number)
            if before not in (signal.SIG_IGN, None):
                self._before[number] = before
                signal.signal(number, self._asked)

    def end(self) -> None:
        """Give the signals back. A process that ends now is ended by a late one at once, without a word."""
        self.ending = True
        self._give_back()
        if self._deadline is not None:
            self._deadline.let_go(still_watching=self.raised)
        _CURRENT.set(self._outer)

    def _give_back(self) -> None:
        """The handlers of before; a process of the command's own, forked ones too, has the system's."""
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if self.owns_process else before)

    def _asked(self, number: int, frame: object) -> None:
        again = self.number is not None
        if self.ending:
            if again and self.owns_process and not self._same():
                os._exit(128 + (self.number or number))
            return
        if again and (number not in (signal.SIGINT, signal.SIGTERM) or self._same()):
            return  # a terminal that closes sends SIGHUP twice
        if not again:
            self.number, self._since = number, time.monotonic()
            if self.holders:
                return
        raise self.stopped()

    def _same(self) -> bool:
        return time.monotonic() - self._since < SAME

    def asked(self) -> bool:
        """True once a signal has come."""
        return self.number is not None

    def stopped(self, place: Place | None = None) -> Stopped:
        """What to raise for a stop, here or at `place`."""
        if self.number is None:
            self.number, self.by = int(signal.SIGTERM), "with the other processes"
        self.note(place)
        self.raised = True
        if self._deadline is not None:
            self._deadline.start_counting()
        return Stopped()

    def note(self, place: Place | None = None) -> None:
        """Remember where the stop met the program; the innermost place counts."""
        if self.number is None:
            self.number = int(signal.SIGINT)  # a plain KeyboardInterrupt
        if self.at is None:
            self.at = place or self.places[-1]

    def caused(self, error: BaseException) -> bool:
        """True where a stop is the reason of an error: libraries turn what a signal raises into errors of their own."""
        return isinstance(error, KeyboardInterrupt) or (self.asked() and isinstance(error, Exception))

    def tell(self) -> int:
        """Say what is kept, on stderr, once; returns the exit code that shells report for the signal."""
        self.note()
        if not self.told and self.speaks:
            self.told = True
            start = "\r\x1b[2K" if sys.stderr.isatty() else ""
            with contextlib.suppress(OSError, ValueError):  # the terminal is gone
                print(start + self._line(), file=sys.stderr, flush=True)
        return 128 + (self.number or 0)

    def leave(self, code: int) -> None:
        """End the process without the interpreter's own end.

        That waits for threads, and beside libraries as large as torch it may take longer than the stop itself.
        """
        atexit._run_exitfuncs()  # what plugins and libraries have asked for, within the deadline
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)

    def _line(self) -> str:
        at = self.at or self.places[-1]
        number = signal.Signals(self.number or signal.SIGINT)
        told = f"stopped {self.by or f'by {number.name}'}{' ' if at.doing else ''}{at.doing}; {at.kept}"
        return f"{told}. {at.then}" if at.then else told

    def _late(self, number: int | None) -> None:
        """End the process from another thread: the program does not come back from a call, or has lost the stop."""
        self.number = self.number or number
        if not self.told and self.speaks:
            self.told = True
            with contextlib.suppress(OSError, ValueError):  # select refuses what is no socket, on Windows
                if select.select([], [2], [], 0.1)[1]:  # a terminal that is held by Ctrl-S would hold this too
                    os.write(2, f"{self._line()}\n".encode())
        os._exit(128 + (self.number or 0))

    def _unraisable(self, args: Any) -> None:
        """Say nothing of a stop that met a destructor or a callback, which cannot pass it on: the deadline ends it."""
        if not isinstance(args.exc_value, KeyboardInterrupt):
            self._hook(args)


_CURRENT: ContextVar[Stop | None] = ContextVar("clora_stop", default=None)  # a thread has none


@contextmanager
def during(doing: str, kept: str, then: str = GO_ON) -> Iterator[None]:
    """Within it (or the function that it decorates) a stop is told with these words, such as "while evaluating"."""
    stop = _CURRENT.get()
    if stop is None:
        yield
        return
    stop.places.append(Place(doing, kept, then))
    try:
        yield
    except KeyboardInterrupt:
        stop.note()
        raise
    finally:
        stop.places.pop()


@contextmanager
def held() -> Iterator[Stop]:
    """Within it a first signal is noted only, and `asked()` tells of it; a second SIGINT or SIGTERM acts at once.

    Raises Stopped at its end where a signal was noted and nobody has acted on it.
    """
    current = _CURRENT.get()
    stop = Stop() if current is None else current
    stop.holders += 1
    if current is None:
        stop.begin()  # a script that trains without `main`
    try:
        yield stop
    finally:
        stop.holders -= 1
        if current is None:
            stop.end()
    if stop.asked() and not stop.holders:
        raise stop.stopped()


def only_if(first: bool) -> None:
    """Of several processes the first alone speaks."""
    stop = _CURRENT.get()
    if stop is not None:
        stop.speaks = first


def stoppable(command: Callable[[], int], *, owns_process: bool) -> int:
    """Call a command and return its exit code; where it is stopped, say what is kept and return 128 + the signal."""
    stop = Stop(owns_process=owns_process)
    try:
        stop.begin()
        code = command()
        stop.ending = True
        return code
    except BaseException as error:
        stop.ending = True  # first of all: from here nothing is raised any more
        if not stop.caused(error):
            raise
        code = stop.tell()
        if owns_process:
            stop.leave(code)
        return code
    finally:
        stop.end()
