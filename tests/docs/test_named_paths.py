"""Files and folders that a document names in backticks are there: prose is no link, so mkdocs does not look."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
]
_PATH = re.compile(r"`((?:clora|plugins|tests|benchmarks|recipes|docs)/[\w./-]+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    assert [path for path in _PATH.findall(page.read_text()) if not (ROOT / path).exists()] == []


def test_many_paths_are_named() -> None:
    assert sum(len(_PATH.findall(page.read_text())) for page in PAGES) > 30
