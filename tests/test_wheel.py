"""The wheel holds every module and recipe, and its recipes work from anywhere, far from the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # for the wheel that all of them need

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built and unpacked as pip does."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def files_below(folder: Path, *endings: str) -> set[str]:
    """Files by their paths below a folder, less tests and caches."""
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.suffix in endings}
    return {name for name in names if not {"tests", "__pycache__"} & set(name.split("/"))}


def test_every_module_and_recipe_is_in_the_wheel(site: Path) -> None:
    assert files_below(site / "clora", ".py") == files_below(ROOT / "clora", ".py")
    assert files_below(site / "clora/recipes", ".yaml", ".json") == files_below(ROOT / "recipes", ".yaml", ".json")
    for plugin in (ROOT / "plugins").iterdir():
        assert files_below(site / plugin.name, ".py", ".yaml") == files_below(plugin, ".py", ".yaml")


def called(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`clora` of the wheel, in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "clora", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_shipped_recipes_work_outside_the_repository(site: Path, tmp_path: Path) -> None:
    shown = called(site, tmp_path, "show", "clora:quickstart.yaml")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"# world: {site}/clora/recipes/worlds/emoji.yaml" in shown.stdout
    assert f"manifest: {site}/clora_emoji/assets/teachers/bank.yaml" in shown.stdout
    assert str(ROOT) not in shown.stdout
    mine = "extends: clora:ablation_no_aop.yaml\nworld: clora:worlds/emoji.yaml\ntrain: {steps: 80}\n"
    (tmp_path / "mine.yaml").write_text(mine)
    checked = called(site, tmp_path, "validate", "mine.yaml")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "valid: nothing stands in the way of this run" in checked.stdout


def test_a_misspelt_shipped_recipe_is_told_with_the_nearest(site: Path, tmp_path: Path) -> None:
    shown = called(site, tmp_path, "show", "clora:quikstart.yaml")
    assert shown.returncode == 2
    assert shown.stderr.endswith("; did you mean 'clora:quickstart.yaml'?\n")
