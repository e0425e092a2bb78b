"""`PACKAGE:path`: recipes and files of installed packages, and nothing outside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from clora.cli import main
from clora.config import load_recipe
from clora.config.package_files import placed_file, recipe_file, shipped_recipes
from clora.errors import CloraError

ROOT = Path(__file__).parents[2]


def test_the_shipped_recipes_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped_recipes() == ROOT / "recipes"
    loaded = load_recipe("clora:quickstart.yaml")
    assert loaded.recipe.name == "quickstart"
    assert loaded.digest == load_recipe(ROOT / "recipes/quickstart.yaml").digest
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: clora:collection.yaml\nworld: clora:worlds/emoji.yaml\nprompts: {use: shared}\n")
    assert load_recipe(mine).recipe.train == load_recipe(ROOT / "recipes/ablation_no_aop.yaml").recipe.train


def test_a_file_of_a_plugins_package(tmp_path: Path) -> None:
    bank = placed_file("clora_emoji:assets/teachers/bank.yaml", tmp_path)
    assert bank == ROOT / "plugins/clora_emoji/assets/teachers/bank.yaml"
    assert placed_file("a/b.yaml", tmp_path) == tmp_path / "a/b.yaml"
    assert placed_file("./clora_emoji:b.yaml", tmp_path) == tmp_path / "clora_emoji:b.yaml"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("clora:quickstrat.yaml", "have no file 'clora:quickstrat.yaml'; did you mean 'clora:quickstart.yaml'?"),
        ("clora:worlds/emojj.yaml", "did you mean 'clora:worlds/emoji.yaml'?"),
        ("clora:worlds", "have no file 'clora:worlds'; known: clora:ablation_no_aop.yaml, "),
        ("clora:", "have no file 'clora:'; known: clora:ablation_no_aop.yaml, "),
        ("clora:zzz", "; known: clora:ablation_no_aop.yaml, "),
        ("clora:../pyproject.toml", "leads out of the recipes of clora"),
        ("clora:worlds/../../README.md", "leads out of the recipes of clora"),
        ("clora:/etc/passwd", "leads out of the recipes of clora"),
        ("clora_emoji:../clora_qwen/README.md", "leads out of the files of clora_emoji"),
        (
            "clora_emojii:assets/x.yaml",
            "no package 'clora_emojii' with files is installed; did you mean 'clora_emoji'?",
        ),
        ("errno:x.yaml", "no package 'errno' with files is installed"),  # a module without a folder
        ("__main__:x.yaml", "no package '__main__' with files is installed"),
    ],
)
def test_a_name_that_leads_nowhere(name: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CloraError, match=r".") as caught:
        recipe_file(name, tmp_path)
    assert why in str(caught.value)
    (tmp_path / "mine.yaml").write_text(f"extends: {name!r}\n".replace("'", '"'))
    assert main(["show", str(tmp_path / "mine.yaml")]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"{tmp_path}/mine.yaml:1:10: extends: ")
    assert why in told
    for words in (["show", name], ["show", "clora:quickstart.yaml", "--with", name]):
        assert main(words) == 2
        assert capsys.readouterr().err.startswith(f"{name}: ")
    assert main(["validate", "clora:quickstart.yaml", "--world", name]) == 2
    assert why in capsys.readouterr().err


def test_a_link_does_not_lead_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('a path imports nothing')")
    (package / "in.yaml").write_text("{}")
    (tmp_path / "secret.yaml").write_text("{}")
    (package / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert recipe_file("some_package:in.yaml", Path()) == package / "in.yaml"
    with pytest.raises(CloraError, match=r"^'some_package:link.yaml' leads out of the files of some_package$"):
        recipe_file("some_package:link.yaml", Path())


def test_a_value_that_is_a_path_into_a_package(load, wrong) -> None:
    folder = load("backbone: {folder: 'clora_emoji:assets'}").recipe.backbone.folder
    assert folder == ROOT / "plugins/clora_emoji/assets"
    (line,) = wrong("backbone: {folder: 'clora_emojii:assets'}")
    assert line == (
        "2:20: backbone.folder: no package 'clora_emojii' with files is installed; did you mean 'clora_emoji'?"
    )
    (line,) = wrong("serve: {plus: 'clora:accelaration.yaml'}")
    assert line.endswith("have no file 'clora:accelaration.yaml'; did you mean 'clora:acceleration.yaml'?")
