"""clora from Python: what it makes is what the commands make, and mistakes are told as theirs are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import clora
from clora import cli
from clora.config.problems import RecipeError
from clora.errors import CloraError

pytestmark = pytest.mark.slow  # for the run that most of them need

RECIPE = Path(__file__).parents[2] / "recipes/collection.yaml"
SETTINGS = {
    "effects": ["duotone_ocean", "thermal"],
    "student": {"rank": 2, "alpha": 2, "steps": 4},
    "train": {"steps": 1, "warmup_steps": 0, "batch_size": 2},
    "prepare": {"previews": 0, "train_images": 1, "general_images": 2},
    "evaluate": {"images": 2, "general_images": 1},
    "teacher.steps": 1,
    "warm_start": None,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> clora.OpenRun:
    """A run that was carried out from Python."""
    return clora.run(RECIPE, SETTINGS, runs=tmp_path_factory.mktemp("runs"), quiet=True)


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    picture = Image.new("RGBA", (50, 40), (200, 120, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 20, 20))
    path = tmp_path / "cat.png"
    picture.save(path)
    return path


def test_a_recipe_is_carried_out_and_the_run_opened(made: clora.OpenRun) -> None:
    assert made.effects == ("duotone_ocean", "thermal")
    assert {"bad_case_rate", "general_ratio"} <= made.values.keys()
    assert made.lora.is_file()
    assert [path.name for path in made.reports if path.is_file()] == ["report.html"]
    again = clora.run(RECIPE, SETTINGS, runs=made.folder.path.parent, quiet=True)  # goes on: all is done
    assert again.folder.path == made.folder.path


def test_a_shipped_recipe_and_a_world_are_named_as_on_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"have no file 'clora:quikstart.yaml'; did you mean 'clora:quickstart.yaml'"):
        clora.run("clora:quikstart.yaml", runs=tmp_path)
    with pytest.raises(RecipeError, match=r"quickstart.yaml --world -> .*nowhere.yaml: cannot be read"):
        clora.run("clora:quickstart.yaml", world=tmp_path / "nowhere.yaml", runs=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_sample_is_the_commands_own_picture(made: clora.OpenRun, cat: Path, tmp_path: Path) -> None:
    run = clora.open_run(made.folder.path)
    ours = [run.sample("thermal", cat, seed=3), run.sample("thermal", Image.open(cat), seed=3)]
    words = ["--effect", "thermal", "--image", str(cat), "--seed", "3", "--out", str(tmp_path / "theirs.png")]
    assert cli.main(["sample", str(made.folder.path), *words]) == 0
    theirs = Image.open(tmp_path / "theirs.png")
    assert all(picture.tobytes() == theirs.tobytes() for picture in ours)
    assert run.sample("thermal", cat, seed=4).tobytes() != theirs.tobytes()


def test_pictures_of_one_opened_run_do_not_stand_in_each_others_way(made: clora.OpenRun, cat: Path) -> None:
    other = Image.new("RGB", (40, 40), (0, 0, 120))
    run = clora.open_run(made.folder.path)
    first = run.sample("thermal", cat).tobytes()
    between = run.sample(["thermal", "duotone_ocean"], other, passes=True)
    assert between.size == (32, 32)
    assert run.sample(None, cat, instruction="make it darker").size == (32, 32)
    assert run.sample("thermal", cat).tobytes() == first
    assert clora.open_run(made.folder.path).sample("thermal", other).tobytes() == run.sample("thermal", other).tobytes()


def test_mistakes_are_told(made: clora.OpenRun, cat: Path, tmp_path: Path) -> None:
    with pytest.raises(CloraError, match="has no effect 'termal'; did you mean 'thermal'"):
        made.sample("termal", cat)
    with pytest.raises(CloraError, match="give either an effect"):
        made.sample(None, cat)
    with pytest.raises(CloraError, match="give either an effect"):
        made.sample("thermal", cat, instruction="make it darker")
    with pytest.raises(CloraError, match=r"nowhere\.png"):
        made.sample("thermal", tmp_path / "nowhere.png")
    with pytest.raises(CloraError, match="is not a run folder"):
        clora.open_run(tmp_path)
    with pytest.raises(RecipeError, match="unknown key 'step' in train"):
        clora.run(RECIPE, {"train.step": 3})
    with pytest.raises(AttributeError, match="no attribute 'opn_run'"):
        clora.opn_run  # noqa: B018


def test_importing_clora_brings_nothing_heavy() -> None:
    code = "import clora, sys; assert clora.__version__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
