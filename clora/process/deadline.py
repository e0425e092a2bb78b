"""A thread that ends the process where a stop takes too long.

Python runs a signal's handler between two steps of the main thread: never while that thread waits in a library's call,
as for another process that has gone, and a library may swallow what the handler raises. The system's own handler
writes the signal's number to a socket at once, and this thread reads it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable

#: seconds from the signal, or from the end of what held it, to the end of the process
GRACE = 1.5
#: seconds in which a second signal is the first one again: a launcher passes on what the terminal has sent to all
SAME = 1.0
_STOP = frozenset({int(signal.SIGINT), int(signal.SIGTERM)})
_STOP_ONCE = frozenset(int(number) for number in signal.Signals if number.name == "SIGHUP")
_COUNT, _END = 254, 255  # no signal has these numbers


class Deadline:
    """Watches from the moment it is made, in the main thread.

    `late` ends the process and is given the signal's number; `holds` is true while the stop may wait.
    """

    def __init__(self, late: Callable[[int | None], None], holds: Callable[[], bool]) -> None:
        self._late = late
        self._holds = holds
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        if os.name == "posix":  # what a forked process gets is not this one's
            os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
        threading.Thread(target=self._watch, name="clora-deadline", daemon=True).start()

    def start_counting(self) -> None:
        """The stop is on its way, and nothing holds it."""
        self._send(_COUNT)

    def let_go(self, *, still_watching: bool) -> None:
        """Look at no more signals; the interpreter's own end is watched only where a stop was asked for."""
        signal.set_wakeup_fd(self._before)
        if not still_watching:
            self._send(_END)

    def _send(self, byte: int) -> None:
        try:
            self._writer.send(bytes([byte]))
        except BlockingIOError:  # full of signals: they count as well
            return

    def _watch(self) -> None:
        number: int | None = None
        first, until, again = 0.0, None, False
        while True:
            wait = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([self._reader], [], [], wait)[0]:
                if again or not self._holds():
                    self._late(number)
                until = None
                continue
            for byte in self._reader.recv(64):
                now = time.monotonic()
                if byte == _END:
                    return
                if byte in _STOP and number is not None and now - first >= SAME:
                    again = True
                elif byte in _STOP | _STOP_ONCE and number is None:
                    number, first = byte, now
                elif byte != _COUNT:
                    continue
                until = now + GRACE if until is None else until
