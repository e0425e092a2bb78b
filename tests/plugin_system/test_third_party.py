"""A stranger's distribution, installed with pip, adds a router and a loss that a recipe uses like the built-in ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import in_process
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip installed the plugin into."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(ROOT / "tests/third_party", source)  # the build leaves files beside its sources
    install = ["pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    done = subprocess.run([sys.executable, "-m", *install, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def clora(*words: str, site: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "clora", *words], capture_output=True, text=True, env=environment, check=False
    )


def test_it_is_listed_with_its_distribution(site: Path) -> None:
    plugins = clora("plugins", site=site).stdout
    assert "clora-roundrobin 1.2.3" in plugins
    assert "huber_anchor" in plugins
    assert "round_robin" in plugins


@pytest.fixture
def importable(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In this process the plugin is installed, and gone afterwards."""
    monkeypatch.syspath_prepend(str(site))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "clora_roundrobin"]:
        del sys.modules[name]


@pytest.mark.slow
@pytest.mark.usefixtures("importable")
def test_a_recipe_runs_with_its_router_and_loss(tmp_path: Path) -> None:
    settings = ["student.rank=4", "student.steps=3", "train.steps=2", "train.batch_size=4", "teacher.steps=2"]
    settings += ["warm_start.updates=1", "evaluate.images=2"]
    settings += ["effects=[thermal, gold_frame]", "evaluate.general_images=2"]
    sets = [word for setting in settings for word in ("--set", setting)]
    done = in_process.clora("run", str(ROOT / "tests/third_party/recipe.yaml"), "--runs", str(tmp_path), *sets)
    assert done.returncode == 0, done.stderr
    (steps,) = tmp_path.glob("*/steps.jsonl")
    reports = [json.loads(line) for line in steps.read_text().splitlines()]
    assert [report["step"] for report in reports] == [1, 2]
    assert all("anchor" in report["losses"] and "ta_fm" not in report["losses"] for report in reports)


def test_its_bounds_are_told_like_ours(site: Path) -> None:
    done = clora("validate", str(ROOT / "tests/third_party/recipe.yaml"), "--set", "losses.anchor.delta=-1", site=site)
    assert done.returncode == 2
    assert "delta" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_distribution_the_recipe_says_what_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clora", "validate", str(ROOT / "tests/third_party/recipe.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "recipe.yaml:4" in done.stderr
    assert "round_robin" in done.stderr
