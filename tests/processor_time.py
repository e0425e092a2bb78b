"""pytest's `--processor-time FILE`: what every test takes of the processors, its child processes included.

Unlike the durations that pytest tells, these hardly depend on what else the machine does. A test that takes more than
SLOW seconds, with the fixtures made for it, is to carry the marker `slow`; the summary names those that do not.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import field, frozen

#: seconds of processor time; what takes longer carries the marker `slow`, and `make test-fast` leaves it out
SLOW = 5.0
#: a test near the bound may be on either side of it
BETWEEN = 2.0
_PROPERTY = "processor_seconds"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--processor-time", type=Path, metavar="FILE", help="write each test's processor seconds as JSON")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--processor-time"):
        config.pluginmanager.register(_Meter())
        if not hasattr(config, "workerinput"):  # xdist's workers measure, and the process that started them collects
            config.pluginmanager.register(_Collector(config.getoption("--processor-time")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with most slow tests first, so that at the end no process waits for another's long file."""
    slow: defaultdict[Path, int] = defaultdict(int)
    for item in items:
        slow[item.path] += item.get_closest_marker("slow") is not None
    items.sort(key=lambda item: -slow[item.path])


def _used() -> float:
    return sum(os.times()[:4])


class _Meter:
    """Adds to every report what its phase took."""

    def __init__(self) -> None:
        self._last = _used()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Iterator[None]:
        report = yield
        now = _used()
        report.user_properties.append((_PROPERTY, now - self._last))
        self._last = now
        return report


@frozen(eq=False)  # pluggy keeps plugins in sets
class _Collector:
    """Sums the phases of every test, writes them, and tells markers that are not true."""

    _file: Path
    _seconds: defaultdict[str, float] = field(init=False, factory=lambda: defaultdict(float))
    _marked: set[str] = field(init=False, factory=set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += dict(report.user_properties).get(_PROPERTY, 0.0)
        if "slow" in report.keywords:
            self._marked.add(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        longest_first = dict(sorted(self._seconds.items(), key=lambda pair: -pair[1]))
        rounded = {name: round(seconds, 3) for name, seconds in longest_first.items()}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(rounded, indent=0) + "\n")
        total = sum(longest_first.values())
        terminalreporter.write_line(f"{total / 60:.1f} minutes of processor time; {self._file} has those of every test")
        for name, seconds in longest_first.items():
            if seconds > SLOW + BETWEEN and name not in self._marked:
                terminalreporter.write_line(f"not marked slow: {seconds:.1f} s in {name}")
        # a fixture for several tests counts with the first of them, so a file's marks are judged by its slowest
        slowest: defaultdict[str, float] = defaultdict(float)
        for name in self._marked:
            file = name.partition("::")[0]
            slowest[file] = max(slowest[file], self._seconds[name])
        for file, seconds in slowest.items():
            if seconds < SLOW - BETWEEN:
                terminalreporter.write_line(f"marked slow: {seconds:.1f} s at most in {file}")
