"""A third-party plugin as a real distribution: a module and a .dist-info folder on sys.path."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from textwrap import dedent

import pytest
import shallow_emoji
from distribution import write_distribution

from clora.lora_io import layouts

# before anything imports torch: its threads wait for one another far longer than these small networks compute
os.environ.setdefault("OMP_NUM_THREADS", "1")

# a shell's background job ignores SIGINT, nohup SIGHUP, and so would all that the tests start
for _number in (signal.SIGINT, signal.SIGHUP) if os.name != "nt" else ():
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

Install = Callable[..., str]


def pytest_unconfigure() -> None:
    shallow_emoji.forget()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs `install(distribution, {entry point: source})` and returns the folder; the real plugins are blocked."""
    site = tmp_path / "site"
    site.mkdir()
    real = {entry_point.name for entry_point in entry_points(group="clora.plugins")}
    monkeypatch.setenv("CLORA_BLOCK_PLUGINS", ",".join(sorted(real)))
    monkeypatch.syspath_prepend(str(site))
    modules: list[str] = []

    def write(distribution: str, sources: dict[str, str], version: str = "1.0") -> str:
        found = {name: f"{distribution.replace('-', '_')}_{name}" for name in sources}
        for name, module in found.items():
            (site / f"{module}.py").write_text(dedent(sources[name]))
        modules.extend(found.values())
        write_distribution(site, distribution, found, version)
        return str(site)

    yield write
    layouts.install(())  # what a test has discovered is gone with it
    for module in modules:
        sys.modules.pop(module, None)
