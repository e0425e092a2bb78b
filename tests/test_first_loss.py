"""docs/first_loss.md says what is so: its code is what the command writes, and its recipe passes."""

from __future__ import annotations

import linecache
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from distribution import write_distribution
from in_process import clora

from clora import cli

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/first_loss.md").read_text()


def block(language: str) -> str:
    """The page's one block of a language."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return text


@pytest.fixture
def made(tmp_path: Path) -> Path:
    assert cli.main(["new-plugin", "clora-huber-loss", "--kind", "loss", "--out", str(tmp_path)]) == 0
    return tmp_path / "clora-huber-loss"


def test_the_loss_of_the_page_is_the_one_that_is_written(made: Path) -> None:
    assert (made / "src/clora_huber_loss/loss.py").read_text() == block("python")


def forget() -> None:
    """Have the page's package imported anew."""
    for name in [name for name in sys.modules if name.startswith("clora_huber_loss")]:
        del sys.modules[name]
    linecache.checkcache()


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    forget()


def test_the_recipe_of_the_page_passes_and_its_mistake_is_told_as_the_page_has_it(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = made / "src"
    write_distribution(site, "clora-huber-loss", {"huber_loss": "clora_huber_loss"}, "0.1.0")
    (tmp_path / "huber.yaml").write_text(block("yaml"))

    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a change within a second would not be seen
    monkeypatch.chdir(tmp_path)

    def validated() -> subprocess.CompletedProcess[str]:
        forget()
        return clora("validate", "huber.yaml")

    done = validated()
    assert done.returncode == 0, done.stderr
    assert "not counted" not in done.stdout
    loss = site / "clora_huber_loss/loss.py"
    wrong = loss.read_text().replace("huber_loss(error, error.detach() * 0, delta=self.delta)", "error.mean((1, 2, 3))")
    loss.write_text(wrong)
    sentence = next(line.strip() for line in PAGE.splitlines() if line.startswith("    losses.anchor ("))
    told = re.sub(r"tensor \[\d+\]", "tensor [12]", validated().stdout)
    assert sentence in told
