"""pytest's `--processor-time FILE`: what every test takes of the processors, its child processes included.

Unlike the durations that pytest tells, these hardly depend on what else the machine does. A test that takes more than
SLOW seconds, with the fixtures made for it, is to carry the marker `slow`, and so are all tests of a file whose others
take more than SLOW_FILE seconds together; the summary names those that do not.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from attrs import field, frozen

#: seconds of processor time; a test that takes longer carries the marker `slow`, and `make test-fast` leaves it out
SLOW = 1.0
#: a file of quicker tests that take longer together carries it at its top
SLOW_FILE = 3.0
#: what is so many times a bound, or such a part of it, is told; a test near the bound may be on either side of it
FAR = 2.0
_MOST_SLOW = 0.3
_PROPERTY = "processor_seconds"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--processor-time", type=Path, metavar="FILE", help="write each test's processor seconds as JSON")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--processor-time"):
        config.pluginmanager.register(_Meter())
        if not hasattr(config, "workerinput"):  # xdist's workers measure, and the process that started them collects
            config.pluginmanager.register(_Collector(config.getoption("--processor-time")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first, so that at the end no process waits for another's long file.

    How long is what the markers say: `slow(20)` stands for 20 seconds, a bare `slow` for those of most slow tests.
    """
    slow: defaultdict[Path, float] = defaultdict(float)
    for item in items:
        marker = item.get_closest_marker("slow")
        if marker is not None:
            slow[item.path] += marker.args[0] if marker.args else _MOST_SLOW
    items.sort(key=lambda item: -slow[item.path])


def _used() -> float:
    return sum(os.times()[:4])


class _Meter:
    """Adds to every report what its phase took."""

    def __init__(self) -> None:
        self._last = _used()

    def pytest_collection_finish(self) -> None:
        self._last = _used()  # collecting is not the first test's

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
        minutes = f"{total / 60:.1f} minutes of processor time beside collecting"
        terminalreporter.write_line(f"{minutes}; {self._file} has those of every test")
        for sentence in (*self._not_marked(longest_first), *self._marked_in_vain()):
            terminalreporter.write_line(sentence)

    def _not_marked(self, longest_first: Mapping[str, float]) -> Iterator[str]:
        """Tests, and files of quick tests, that should carry the marker."""
        quick: defaultdict[str, float] = defaultdict(float)
        for name, seconds in longest_first.items():
            if name in self._marked:
                continue
            if seconds > SLOW * FAR:
                yield f"not marked slow: {seconds:.1f} s in {name}"
            else:
                quick[_file(name)] += seconds
        for file, seconds in quick.items():
            if seconds > SLOW_FILE * FAR:
                yield f"not marked slow: {seconds:.1f} s in all quick tests of {file}"

    def _marked_in_vain(self) -> Iterator[str]:
        """Files whose markers are not true.

        A fixture for several tests counts with the first of them, so a file's marks are judged by its slowest test.
        """
        slowest: defaultdict[str, float] = defaultdict(float)
        together: defaultdict[str, float] = defaultdict(float)
        for name in self._marked:
            slowest[_file(name)] = max(slowest[_file(name)], self._seconds[name])
            together[_file(name)] += self._seconds[name]
        for file, seconds in slowest.items():
            if seconds < SLOW / FAR and together[file] < SLOW_FILE / FAR:
                yield f"marked slow: {together[file]:.1f} s in {file}"


def _file(name: str) -> str:
    """The file of a test's name."""
    return name.partition("::")[0]
