"""`clora new-plugin`: one distribution of each kind, installed with pip, passes its own tests and works in a recipe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from in_process import clora
from shallow_emoji import shallow_emoji

from clora import cli
from clora.api import LoraDelta, write_lora
from clora.contracts import hookspecs
from clora.lora_io import layouts
from clora.plugin_system.new_plugin import KINDS

pytestmark = pytest.mark.slow  # for the plugins that most of them need

ROOT = Path(__file__).parents[2]
#: kind -> the distribution's name
MADE = {kind: f"clora-my-{kind.replace('_', '-')}" for kind in KINDS}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with a plugin of every kind, and the site that all of them are installed in."""
    folder = tmp_path_factory.mktemp("plugins")
    for kind, name in MADE.items():
        assert cli.main(["new-plugin", name, "--kind", kind, "--out", str(folder)]) == 0
    site = folder / "site"
    sources = [str(folder / name) for name in MADE.values()]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-build-isolation",
        "--no-deps",
        "--target",
        str(site),
    ]
    subprocess.run([*pip, *sources], check=True)
    return folder, site


def called(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.slow(14)
def test_the_tests_of_every_kind_pass(made) -> None:
    folder, site = made
    tests = [str(folder / name / "tests") for name in MADE.values()]
    done = called(
        site, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", "-c", os.devnull, *tests
    )
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= len(KINDS)


def test_the_code_of_every_kind_is_in_order(made) -> None:
    folder, _ = made
    sources = [str(folder / name) for name in MADE.values()]
    # the order of imports depends on the plugin's own name
    for words in (["check", "--ignore", "I001"], ["format", "--check"]):
        done = called(folder / "site", "-m", "ruff", *words, "--config", str(ROOT / "pyproject.toml"), *sources)
        assert done.returncode == 0, done.stdout


def test_every_kind_is_registered_and_loads(made) -> None:
    done = called(made[1], "-m", "clora", "plugins", "--load")
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for kind, name in MADE.items():
        assert f"my_{kind} loaded {name} 0.1.0" in lines
    assert "losses: my_loss" in lines
    assert "observers: my_observer" in lines
    assert "merge: my_merger" in lines
    assert "lora_layouts: my_lora_layout" in lines


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("loss", "A loss for"),
        ("exporter", "An exporter for"),
        ("lora_layout", "A LoRA layout for"),
        ("prompts", "A prompt strategy for"),
    ],
)
def test_the_texts_say_in_words_what_it_gives(kind: str, sentence: str, made) -> None:
    folder = made[0] / MADE[kind]
    for file in ("README.md", "pyproject.toml", f"src/{MADE[kind].replace('-', '_')}/__init__.py"):
        assert sentence in (folder / file).read_text()


def test_every_hook_that_registers_something_has_a_kind() -> None:
    assert {kind.hook for kind in KINDS.values()} == {*hookspecs.KINDS.values(), hookspecs.COMMANDS}


@pytest.fixture
def importable(made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In this process the plugins are installed, and gone afterwards."""
    monkeypatch.syspath_prepend(str(made[1]))
    yield
    for name in [name for name in sys.modules if name.startswith("clora_my_")]:
        del sys.modules[name]
    layouts.install(())


@pytest.mark.usefixtures("importable")
def test_a_recipe_uses_several_of_them_and_the_run_trains(made, tmp_path: Path) -> None:
    sets = (
        *shallow_emoji(),
        "effects=[duotone_ocean, thermal]",
        "student={rank: 2, alpha: 2, steps: 4}",
        "train={steps: 1, warmup_steps: 0, batch_size: 4}",
        "prepare={previews: 0, train_images: 2, general_images: 4}",
        "evaluate={images: 2, general_images: 1}",
        "teacher.steps=1",
        "warm_start=null",
        "router={use: my_router, share: 0.5}",
        "prompts=my_prompts",
        "simulations.target={use: my_simulation}",
        "losses.mine=my_loss",
        "metrics.mine=my_metric",
        "kernels=my_kernel",
        "optimizer=my_optimizer",
        "observers.mine=my_observer",
    )
    words = [part for text in sets for part in ("--set", text)]
    done = clora("run", str(ROOT / "recipes/collection.yaml"), "--runs", str(tmp_path), *words)
    assert done.returncode == 0, done.stderr
    assert "brightness_change" in done.stdout
    (run,) = (path for path in tmp_path.iterdir() if not path.name.startswith("."))
    assert (run / "observers/mine/course.csv").read_text().count("\n") == 1
    assert '"mine"' in (run / "steps.jsonl").read_text()
    assert "clora-my-loss 0.1.0" in (run / "run.json").read_text()


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(("rank", "code", "told"), [("32", 0, ""), ("100_000", 2, "rank"), ("16_384", 2, "which is")])
def test_a_recipe_merges_with_a_new_merger(rank: str, code: int, told: str, made, tmp_path: Path) -> None:
    readme = (made[0] / MADE["merger"] / "README.md").read_text()
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(readme.partition("```yaml\n")[2].partition("```")[0].replace("rank: 32", f"rank: {rank}"))
    done = clora("validate", str(recipe))
    assert done.returncode == code, done.stderr
    assert told in done.stderr


@pytest.mark.usefixtures("importable")
def test_a_file_in_a_new_layout_is_inspected(tmp_path: Path) -> None:
    cli.main(["plugins"])  # from here on this process knows the layout
    file = tmp_path / "effect.safetensors"
    write_lora(file, {"blocks.0.to_q": LoraDelta(torch.ones(2, 6), torch.ones(8, 2), 0.5)}, layout="my_lora_layout")
    done = clora("inspect", str(file))
    assert done.returncode == 0, done.stderr
    assert "my_lora_layout layout" in done.stdout


@pytest.mark.parametrize(
    "name", ["Huber", "huber_loss", "3d", "-x", "x--y", "../x", "", "json", "class", "clora", "a" * 61]
)
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new-plugin", "--out", str(tmp_path), "--", name]) == 2
    assert "name" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clora-mine").mkdir()
    (tmp_path / "clora-mine/notes.txt").write_text("mine")
    assert cli.main(["new-plugin", "clora-mine", "--out", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "clora-mine").iterdir()] == ["notes.txt"]


def test_an_unknown_kind_is_told_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["new-plugin", "clora-mine", "--kind", "losss"])
    assert end.value.code == 2
    assert "loss" in capsys.readouterr().err
