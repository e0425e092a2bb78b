"""A process on a terminal of its own that closes."""

from __future__ import annotations

import os
import signal
import time

#: seconds for what takes two on an idle machine
BOUND = 30


def on_a_terminal(words: list[str], until: bytes) -> int:
    """Start a process on a terminal of its own, close the terminal once it shows `until`; returns the exit code."""
    import pty

    child, terminal = pty.fork()
    if child == 0:
        os.environ["OMP_NUM_THREADS"] = "1"
        os.execv(words[0], words)
    shown = b""
    while until not in shown:
        shown += os.read(terminal, 1024)
    os.close(terminal)
    deadline = time.monotonic() + 4 * BOUND
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the process did not end")
