"""What a person sees while a run works: one line a stage, and in training rate, time left and the losses."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from clora.contracts.values import StepReport


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


class Progress:
    """Prints progress: a rewritten line on a terminal, a line every few seconds elsewhere; silent where not `on`."""

    def __init__(self, *, on: bool = True, stream: TextIO | None = None) -> None:
        self.on = on
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.started = time.monotonic()
        self.spoke = 0.0
        self.first_step: int | None = None
        self.first_time = 0.0
        self.counting: tuple[str, int, float] | None = None  # what is counted, where it began, when
        self.smooth: dict[str, float] = {}
        self.label = ""

    def say(self, text: str) -> None:
        """One line that stays."""
        if self.on:
            self._clear()
            self._print(f"[{clock(time.monotonic() - self.started)}] {text}", end="\n")

    def step(self, report: StepReport, steps: int, label: str = "train") -> None:
        """A cycle's line: rate, time left, smoothed losses, cost."""
        if label != self.label:
            self.label, self.first_step, self.smooth, self.spoke = label, None, {}, 0.0  # the first is shown at once
        for name, value in report.losses.items():
            before = self.smooth.setdefault(name, value)
            self.smooth[name] = before + 0.1 * (value - before)
        now = time.monotonic()
        if self.first_step is None:
            self.first_step, self.first_time = report.step - 1, now - report.seconds
        if not self.on or (now - self.spoke < (0.2 if self.live else 10) and report.step < steps):
            return
        self.spoke = now
        rate = (report.step - self.first_step) / max(now - self.first_time, 1e-9)
        line = (
            f"{label} {report.step}/{steps}  {rate:.2f} updates/s  {clock((steps - report.step) / rate)} left  "
            f"{_losses(self.smooth)}  {report.forward_equivalents:.0f} forwards"
        )
        if self.live:
            self._print(f"\r\x1b[2K{line}", end="" if report.step < steps else "\n")
        else:
            self.say(line)

    def counted(self, label: str, done: int, total: int) -> None:
        """A stage's line while it makes one thing after the other: how many are made, rate, time left."""
        now = time.monotonic()
        if self.counting is None or self.counting[0] != label or done < self.counting[1]:
            self.counting, self.spoke = (label, done, now), 0.0
        _, first, began = self.counting
        if not self.on or (now - self.spoke < (0.2 if self.live else 10) and 0 < done < total):
            return
        self.spoke = now
        line = f"{label} {done}/{total}"
        if done > first:
            rate = (done - first) / max(now - began, 1e-9)
            line += f"  {rate:.2f}/s  {clock((total - done) / rate)} left"
        if self.live and done < total:
            self._print(f"\r\x1b[2K{line}", end="")
        else:
            self.say(line)

    def _clear(self) -> None:
        if self.live:
            self._print("\r\x1b[2K", end="")

    def _print(self, text: str, *, end: str) -> None:
        with contextlib.suppress(OSError):  # the terminal has closed, or the reader has gone: the work goes on
            print(text, end=end, file=self.stream, flush=True)


def _losses(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in values.items())
