"""docs/table3.md lists the rows that benchmarks/ablations.py runs, by the titles that its table has."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/table3.md").read_text()


@pytest.fixture
def ablations(monkeypatch: pytest.MonkeyPatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import ablations

    yield ablations
    sys.modules.pop("ablations")


def test_the_rows_are_those_of_the_script(ablations) -> None:
    rows = re.findall(r"^\| (.+?) \| \[`(\w+)\.yaml`\]", PAGE, re.MULTILINE)
    assert [name for _, name in rows] == list(ablations.ABLATIONS)
    for title, name in rows:
        assert yaml.safe_load((ROOT / f"recipes/{name}.yaml").read_text())["title"] == title


def test_the_tables_and_our_own_row_are_the_scripts(ablations) -> None:
    assert set(re.findall(r"--tables (\w+)", PAGE)) == set(ablations.TABLES)
    assert ["critic_on_backward_only.yaml" in PAGE, ablations.OURS] == [True, ("critic_on_backward_only",)]


def test_the_measured_rows_are_in_the_results() -> None:
    results = (ROOT / "docs/results.md").read_text()
    for title, _ in re.findall(r"^\| (.+?) \| \[`(\w+)\.yaml`\]", PAGE, re.MULTILINE):
        assert f"\n| {title} | " in results
