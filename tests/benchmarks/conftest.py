"""Benchmarks are scripts that import one another by name."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their folder is where they are looked for."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
