"""A teacher whose file is in a plugin's layout: from the bank through training, merging and export to a file in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from in_process import clora
from safetensors.torch import load_file, save_file
from small_run import only_run

from clora.lora_io.header import inspect_header
from clora.lora_io.reader import read_lora
from clora.lora_io.writer import write_lora
from clora.plugin_system.discovery import discover

ROOT = Path(__file__).parents[2]
OCEAN = ROOT / "plugins/clora_emoji/assets/teachers/duotone_ocean.safetensors"
PLUGIN = """
from attrs import frozen
from clora.api import Component, TensorName, hookimpl, write_lora

PARTS = {"left": "a", "right": "b", "strength": "alpha"}
WORDS = {part: word for word, part in PARTS.items()}


@frozen
class LeftRight:
    def understand(self, name):
        before, _, word = name.rpartition(".")
        linear = before.removeprefix("net.")
        return TensorName(linear, PARTS[word]) if word in PARTS and linear not in ("", before) else None

    def tensor_name(self, linear, part):
        return f"net.{linear}.{WORDS[part]}"


@frozen
class InLeftRight:
    def export(self, lora):
        return {"left_right.safetensors": lambda path: write_lora(path, lora.weights(), layout="left_right")}


@hookimpl
def clora_lora_layouts():
    return [Component("left_right", LeftRight)]


@hookimpl
def clora_exporters():
    return [Component("in_left_right", InLeftRight)]
"""
SMALL = (
    *("effects=[duotone_ocean]", "teacher.steps=1", "warm_start=null", "metrics=null"),
    *("student={rank: 2, alpha: 2, steps: 3}", "train={steps: 2, batch_size: 2, checkpoint_every: 1}"),
    *("prepare={previews: 0, train_images: 2, general_images: 2}", "evaluate={images: 1, general_images: 1}"),
)
PLACE = "lora_layouts.clora-lr:left_right"
LAYOUTS = ("left_right", "diffusers")


@pytest.fixture
def plugin(install, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin beside clora's own."""
    install("clora-lr", {"lr": PLUGIN})
    monkeypatch.setenv("CLORA_BLOCK_PLUGINS", "")
    discover()


def words_of(recipe: str, folder: Path, layout: str, *sets: str) -> list[str]:
    """A recipe and its settings, with a bank of one teacher, whose file is written anew in a layout."""
    bank = folder / layout
    bank.mkdir(exist_ok=True)
    write_lora(bank / "ocean.safetensors", read_lora(OCEAN).deltas, layout=layout)
    if layout == "left_right":
        move_strength_to_alpha(bank / "ocean.safetensors")
    card = {"name": "duotone_ocean", "lora": "ocean.safetensors", "teacher_prompt": "restyle this picture"}
    (bank / "bank.yaml").write_text(json.dumps([{**card, "caption": "two tone print"}]))
    settings = (*SMALL, f"teachers.manifest={bank / 'bank.yaml'}", *sets)
    return [str(ROOT / "recipes" / recipe), *(word for text in settings for word in ("--set", text))]


def move_strength_to_alpha(path: Path) -> None:
    """The same LoRA with B twice as large and half the alpha: without its strength it is another teacher."""
    factor = {"left": 1.0, "right": 2.0, "strength": 0.5}
    save_file({name: factor[name.rpartition(".")[2]] * tensor for name, tensor in load_file(path).items()}, path)


def carried_out(recipe: str, folder: Path, layout: str, *sets: str) -> Path:
    """The finished run of such a recipe."""
    runs = folder / f"runs_{layout}"
    done = clora("run", *words_of(recipe, folder, layout, *sets), "--runs", str(runs))
    assert done.returncode == 0, done.stderr
    return only_run(runs)


def same(runs: Sequence[Path], *names: str) -> bool:
    """Whether the runs' files hold the same tensors to the last bit."""
    for name in names:
        one, other = (load_file(run / name) for run in runs)
        if one.keys() != other.keys() or not all(one[key].equal(other[key]) for key in one):
            return False
    return True


def layouts_in(run: Path) -> list[str]:
    """The layouts whose source the run depends on."""
    return [place for place in json.loads((run / "run.json").read_text())["components"] if place == PLACE]


@pytest.mark.slow
@pytest.mark.usefixtures("plugin")
def test_a_run_of_such_a_teacher_is_that_of_the_same_teacher_in_diffusers_layout(tmp_path: Path) -> None:
    exports = "exporters={bundle: null, mine: {use: in_left_right}}"
    runs = [carried_out("collection.yaml", tmp_path, layout, exports) for layout in LAYOUTS]
    assert same(runs, "export/lora.safetensors", "evaluate/pictures.safetensors", "export/left_right.safetensors")
    assert [layouts_in(run) for run in runs] == [[PLACE], []]
    assert clora("export", str(runs[0]), "--out", str(tmp_path / "out")).returncode == 0
    exported = tmp_path / "out/left_right.safetensors"
    ours, theirs = read_lora(runs[0] / "export/lora.safetensors").deltas, read_lora(exported).deltas
    assert all(name.startswith("net.") for name in inspect_header(exported).tensors)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].weight().equal(theirs[name].weight()) for name in ours)
    told = clora("inspect", str(exported), "--backbone", "emoji")
    assert told.returncode == 0, told.stderr
    assert "left_right layout" in told.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("plugin")
def test_such_a_teacher_is_merged_as_in_diffusers_layout(tmp_path: Path) -> None:
    runs = [carried_out("merge_svd.yaml", tmp_path, layout, "serve.merge.rank=2") for layout in LAYOUTS]
    assert same(runs, "export/lora.safetensors", "evaluate/pictures.safetensors")
    assert [layouts_in(run) for run in runs] == [[PLACE], []]


@pytest.mark.usefixtures("plugin")
def test_a_recipe_of_such_a_teacher_is_valid_and_holds_its_file_against_the_backbone(tmp_path: Path) -> None:
    words = words_of("collection.yaml", tmp_path, "left_right")
    done = clora("validate", "--data", *words)
    assert done.returncode == 0, done.stderr
    told = clora("inspect", str(tmp_path / "left_right/ocean.safetensors"), "--recipe", *words)
    assert told.returncode == 0, told.stderr
    assert "left_right layout" in told.stdout


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("command", ["validate", "run"])
def test_without_the_plugin_the_teachers_file_is_told(command: str, tmp_path: Path, monkeypatch) -> None:
    words = words_of("collection.yaml", tmp_path, "left_right")
    monkeypatch.setenv("CLORA_BLOCK_PLUGINS", "lr")
    done = clora(command, *words, *(["--runs", str(tmp_path / "runs")] if command == "run" else []))
    assert done.returncode == 2
    assert "ocean.safetensors: no key names a linear that carries adapters: 'net." in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
