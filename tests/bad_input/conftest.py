"""A small world of files without a mistake, and `told`: what `clora validate` says once a test has spoilt something."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from clora_emoji.backbone import EmojiBackbone
from PIL import Image

from clora import cli
from clora.lora_io.reader import LoraDelta
from clora.lora_io.writer import write_lora

RECIPES = Path(__file__).parents[2] / "recipes"
EFFECTS = ("thermal", "sepia")

Told = Callable[..., list[str]]
Entry = Callable[..., str]


def _entry(effect: str, **keys: str) -> str:
    words = {
        "lora": f"{effect}.safetensors",
        "teacher_prompt": "restyle it",
        "caption": f"make it look {effect}",
    } | keys
    return "\n  ".join([f"- name: {effect}", *(f"{key}: {word}" for key, word in words.items())]) + "\n"


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny teacher of every effect."""
    made = tmp_path_factory.mktemp("teachers")
    for effect in EFFECTS:
        deltas = {
            name: LoraDelta(torch.full((1, inputs), 0.01), torch.full((outputs, 1), 0.01), 1.0)
            for name, (inputs, outputs) in EmojiBackbone().shapes().items()
        }
        write_lora(made / f"{effect}.safetensors", deltas)
    return made


@pytest.fixture
def folder(teachers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a bank of two tiny teachers, two pictures, and lists of them without a mistake."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(teachers, tmp_path / "bank")
    (tmp_path / "bank/bank.yaml").write_text("".join(_entry(effect) for effect in EFFECTS))
    (tmp_path / "data").mkdir()
    for number, name in enumerate(("data/a.png", "data/b.png", "secret.png")):
        Image.new("RGB", (32, 32), (200, 10, 60 + number)).save(tmp_path / name)
    splits = {"a.png": "train", "b.png": "test"}
    effects = [{"source": name, "effect": e, "split": split} for e in EFFECTS for name, split in splits.items()]
    general = [{"source": name, "instruction": "blur it", "split": split} for name, split in splits.items()]
    for name, rows in (("effects", effects), ("general", general)):
        (tmp_path / f"data/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def told(folder: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    """`told(recipe)`: the lines of `clora validate`, which must refuse the recipe without a traceback.

    `pictures=True` takes the lists of pictures in place of the emoji; `words` follow on the command line.
    """

    def lines(text: str = "", *words: str, pictures: bool = False, parent: str | None = None) -> list[str]:
        recipe = dedent(text)
        if "teachers:" not in recipe:
            recipe += "teachers: {manifest: bank/bank.yaml}\n"
        if pictures:
            recipe += "dataset: {use: jsonl, effects: data/effects.jsonl, general: data/general.jsonl}\nmetrics: null\n"
        Path("r.yaml").write_text(f"extends: {parent or RECIPES / 'collection.yaml'}\n{recipe}")
        code = cli.main(["validate", "r.yaml", *words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert (code, out) == (2, ""), out + err
        # long paths say nothing here: those of this test, those of the recipes
        return err.replace(f"{folder}/", "").replace(f"{RECIPES}/", "recipes/").splitlines()

    return lines


@pytest.fixture(name="entry")
def entry_fixture() -> Entry:
    """`entry(effect, key=word)`: one teacher of a bank as YAML, with words of its own for some keys."""
    return _entry
