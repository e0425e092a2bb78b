"""A layout of a stranger's plugin: read, checked, judged and written like clora's own, and in nobody's way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from clora_emoji.backbone import EmojiBackbone
from safetensors.torch import load_file, save_file
from tiny_recipe import tiny_recipe

from clora.cli import main
from clora.config.load import load_recipe
from clora.errors import CloraError
from clora.lora_io.base_weights import BaseWeights
from clora.lora_io.check import check_lora, layouts_of
from clora.lora_io.header import LoraFileError, inspect_header
from clora.lora_io.reader import LoraDelta, read_lora
from clora.lora_io.teacher import judge
from clora.lora_io.writer import write_lora
from clora.planning.plan import run_digest
from clora.planning.teacher_files import layouts_code
from clora.plugin_system.discovery import discover
from clora.plugin_system.guard import ComponentError

Q, K = "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k"
SHAPES = {Q: (6, 8), K: (6, 8)}
PLUGIN = """
from attrs import frozen
from clora.api import Component, TensorName, hookimpl

PARTS = {"lora_left": "a", "lora_right": "b", "strength": "alpha"}


@frozen
class Layout:
    def understand(self, name):
        linear, _, part = name.removeprefix("net.").rpartition(".")
        return TensorName(linear, PARTS[part]) if name.startswith("net.") and part in PARTS else None

    def tensor_name(self, linear, part):
        return f"net.{linear}." + {"a": "lora_left", "b": "lora_right", "alpha": "strength"}[part]


@hookimpl
def clora_lora_layouts():
    return [Component("left_right", Layout)]
"""
NOTHING = PLUGIN[: PLUGIN.index("    def understand")]
REGISTERS = PLUGIN[PLUGIN.index("@hookimpl") :]


def plugin(body: str) -> str:
    """A layout with another body of its class."""
    return f"{NOTHING}{body}\n\n\n{REGISTERS}"


def factors(module: str) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(len(module))
    return torch.randn(2, 6, generator=draw), torch.randn(8, 2, generator=draw)


def left_right(*modules: str) -> dict[str, torch.Tensor]:
    tensors = {}
    for module in modules:
        a, b = factors(module)
        tensors |= {f"net.{module}.lora_left": a, f"net.{module}.lora_right": b}
        tensors[f"net.{module}.strength"] = torch.tensor(0.5)
    return tensors


def kohya(module: str) -> dict[str, torch.Tensor]:
    a, b = factors(module)
    name = f"lora_unet_{module.replace('.', '_')}"
    return {f"{name}.lora_down.weight": a, f"{name}.lora_up.weight": b}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "effect.safetensors"


@pytest.fixture
def layout(install) -> None:
    install("clora-lr", {"lr": PLUGIN})
    discover()


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("shapes", [SHAPES, None])
def test_a_file_in_a_registered_layout_is_read_with_its_strength(path: Path, shapes):
    save_file(left_right(Q, K), path)
    file = read_lora(path, shapes)
    assert (file.layout, file.unused) == ("left_right", ())
    for module in SHAPES:
        a, b = factors(module)
        torch.testing.assert_close(file.deltas[module].weight(), 0.5 / 2 * b @ a)
    assert check_lora(path, SHAPES, data=True) == []
    assert judge(path, SHAPES, BaseWeights("BF16", 10.0)).problems == ()


@pytest.mark.usefixtures("layout")
def test_it_stands_beside_a_layout_of_cloras_own(path: Path):
    save_file({**left_right(Q), **kohya(K)}, path)
    file = read_lora(path, SHAPES)
    assert file.layout == "kohya + left_right"
    assert {module: delta.scale for module, delta in file.deltas.items()} == {Q: 0.25, K: 1.0}


@pytest.mark.usefixtures("layout")
def test_mistakes_of_a_file_are_told_as_of_any(path: Path):
    save_file(left_right(Q), path)
    (problem,) = check_lora(path, {Q: (7, 8)})
    assert "do not fit a linear of 7 -> 8" in problem
    save_file({f"net.{Q}.lora_left": torch.ones(2, 6)}, path)
    assert "without the rest of its LoRA" in check_lora(path, SHAPES)[0]
    save_file(left_right("another.linear"), path)
    assert "no key names a linear" in check_lora(path, SHAPES)[0]


def test_inspect_shows_its_name_and_plugins_lists_it(install, path: Path, capsys: pytest.CaptureFixture[str]):
    save_file(left_right(Q), path)
    assert main(["inspect", str(path)]) == 2  # nobody knows its names yet
    capsys.readouterr()
    install("clora-lr", {"lr": PLUGIN})
    assert main(["inspect", str(path)]) == 0
    assert "left_right layout" in capsys.readouterr().out
    main(["plugins"])
    assert "lora_layouts: left_right" in capsys.readouterr().out


def test_what_clora_reads_by_itself_is_no_business_of_a_layout(install, path: Path):
    install("clora-greedy", {"greedy": plugin('    def understand(self, name):\n        raise RuntimeError("asked")')})
    discover()
    save_file(kohya(Q), path)
    assert read_lora(path, SHAPES).layout == "kohya"
    assert layouts_of(path, SHAPES) == ()


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize("name", ["net.{}", "net..{}", "net.transformer..{}", "transformer..{}"])
@pytest.mark.parametrize("shapes", [SHAPES, None])
def test_a_linear_without_a_name_is_none(path: Path, name: str, shapes):
    words = ("lora_A.weight", "lora_B.weight") if name.startswith("transformer") else ("lora_left", "lora_right")
    save_file({name.format(word): factor for word, factor in zip(words, factors(Q), strict=True)}, path)
    with pytest.raises(LoraFileError, match="no key names a linear that carries adapters"):
        read_lora(path, shapes)


BROKEN = {
    "raises": ('    def understand(self, name):\n        return name.index("?")', "ValueError: substring not found at"),
    "gives text": ("    def understand(self, name):\n        return 3", "gave int 3; expected a TensorName or None"),
    "says no part": ('    def understand(self, name):\n        return TensorName(name, "c")', "'part' must be in"),
    "lacks understand": ("    pass", "'Layout' is no LoraLayout: it has no understand"),
    "takes nothing": ("    def understand(self):\n        pass", "its understand takes ()"),
    "has keys": ("    key: int\n\n    def understand(self, name):\n        pass", "missing 1 required positional"),
    "exits": ("    def understand(self, name):\n        raise SystemExit(0)", "SystemExit"),
}


@pytest.mark.parametrize(("body", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_faulty_layout_is_told_by_its_name_and_plugin(install, path: Path, body: str, sentence: str, capsys):
    install("clora-bad", {"bad": plugin(body)})
    save_file(left_right(Q), path)
    assert main(["inspect", str(path)]) == 1
    err = capsys.readouterr().err
    assert "lora_layouts (left_right of clora-bad 1.0): " in err
    assert sentence in err
    assert "Traceback" not in err


def test_a_layout_that_cannot_be_imported_is_told_when_a_file_needs_it(install, path: Path):
    install("clora-gone", {"gone": PLUGIN.replace('"left_right", Layout', '"left_right", "clora_gone_gone:Layuot"')})
    discover()
    save_file(kohya(Q), path)
    assert read_lora(path, SHAPES).layout == "kohya"
    save_file(left_right(Q), path)
    with pytest.raises(ComponentError, match="cannot import 'clora_gone_gone:Layuot'"):
        read_lora(path, SHAPES)


def test_a_name_of_cloras_own_is_refused(install):
    install("clora-lr", {"lr": PLUGIN.replace('"left_right"', '"kohya"')})
    (broken,) = [each for each in discover().plugins if each.name == "lr"]
    assert (broken.state, broken.reason) == (
        "broken",
        "clora_lora_layouts: 'kohya' is clora's own layout; choose another",
    )


def test_two_layouts_that_disagree_on_a_name_are_told(install, path: Path):
    install("clora-lr", {"lr": PLUGIN})
    install("clora-rl", {"rl": PLUGIN.replace('"a", "lora_right": "b"', '"b", "lora_right": "a"')})
    discover()
    save_file(left_right(Q), path)
    with pytest.raises(LoraFileError, match="block one of the two plugins"):
        read_lora(path, SHAPES)


@pytest.mark.usefixtures("layout")
def test_it_is_written_and_read_back(path: Path):
    deltas = {module: LoraDelta(*factors(module), 0.25) for module in SHAPES}
    write_lora(path, deltas, layout="left_right")
    assert set(inspect_header(path).tensors) == set(left_right(Q, K))
    file = read_lora(path, SHAPES)
    assert file.layout == "left_right"
    for module, delta in deltas.items():
        assert file.deltas[module].scale == 1
        torch.testing.assert_close(file.deltas[module].weight(), delta.weight())
    with pytest.raises(CloraError, match="no LoRA layout is named 'left_rigth'; did you mean 'left_right'"):
        write_lora(path, deltas, layout="left_rigth")


WRITES = """    def understand(self, name):
        pass

    def tensor_name(self, linear, part):
        return """


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("    def understand(self, name):\n        pass", "can be read and not written"),
        (WRITES + '"same"', "calls two tensors 'same'"),
        (WRITES + "None", "gave None; expected a name"),
        (WRITES + r'"\ud800"', "expected a name of up to 500 letters"),
    ],
)
def test_a_layout_that_names_no_tensors_writes_no_file(install, path: Path, body: str, sentence: str):
    install("clora-bad", {"bad": plugin(body)})
    discover()
    with pytest.raises(CloraError, match=sentence):
        write_lora(path, {Q: LoraDelta(*factors(Q), 1.0)}, layout="left_right")
    assert not path.exists()


def test_the_code_of_a_layout_that_a_file_needs_is_told(install, path: Path):
    install("clora-lr", {"lr": PLUGIN})
    discover()
    save_file(left_right(Q), path)
    (used,) = layouts_of(path, SHAPES)
    assert used.code.startswith("clora-lr 1.0 ")
    assert len(used.code.split()[2]) == 16


def test_a_run_depends_on_the_source_of_a_layout_that_its_teachers_need(
    install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = tiny_recipe(tmp_path, {"use": "emoji"}, EmojiBackbone().shapes())
    install("clora-lr", {"lr": PLUGIN})
    monkeypatch.setenv("CLORA_BLOCK_PLUGINS", "lr")
    without = run_digest(load_recipe(recipe))
    monkeypatch.setenv("CLORA_BLOCK_PLUGINS", "")
    loaded = load_recipe(recipe)
    assert (run_digest(loaded), layouts_code(loaded.recipe)) == (without, {})  # no teacher needs it
    ink = tmp_path / "ink.safetensors"
    words = {"lora_A.weight": "lora_left", "lora_B.weight": "lora_right"}
    renamed = {}
    for name, tensor in load_file(ink).items():
        linear, _, factor = name.removeprefix("transformer.").partition(".lora_")
        renamed[f"net.{linear}.{words[f'lora_{factor}']}"] = tensor
    save_file(renamed, ink)
    (used,) = layouts_code(loaded.recipe).items()
    assert used[0] == "lora_layouts.clora-lr:left_right"
    assert used[1].startswith("clora-lr 1.0 ")
    assert run_digest(loaded) != without
