"""One finished run that the stopped ones are compared with."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_run import only_run, run_words

from clora import cli


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    runs = tmp_path_factory.mktemp("finished")
    assert cli.main(run_words(runs)) == 0
    return only_run(runs)
