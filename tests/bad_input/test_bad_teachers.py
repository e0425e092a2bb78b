"""Bad banks and teacher files: told by file, line and the nearest right word before any model is loaded."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from clora_emoji.backbone import EmojiBackbone
from safetensors.torch import load_file, save_file

from clora.cli import main
from clora.config.load import load_recipe
from clora.planning.plan import make_plan
from clora.plugin_system.discovery import discover

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

RECIPES = Path(__file__).parents[2] / "recipes"
LINEAR = "transformer.transformer_blocks.0.attn.to_q"
NEAREST = "; the nearest is transformer_blocks.0."


@pytest.mark.parametrize(
    ("bank", "sentence"),
    [
        (None, "bank/bank.yaml: there is no such manifest"),
        ("", "bank/bank.yaml: the manifest is empty"),
        ("[]", "bank/bank.yaml:1: a bank is a list of teachers, each a mapping that begins `- name:`"),
        (
            [("thermal", {"captoin": "x"})],
            "bank/bank.yaml:5: unknown key 'captoin'; did you mean 'caption'?",
        ),
        (
            [("thermal", {"trigger": "<hot>"}), ("sepia", {"trigger": "<hot>"})],
            "bank/bank.yaml:10: the trigger '<hot>' stands in line 5 already",
        ),
        (
            [("thermal", {"lora": "../secret.safetensors"})],
            "bank/bank.yaml:2: lora '../secret.safetensors' leads out of the manifest's folder; "
            "copy the file beside the manifest, or name its folder in the recipe: `lora_folder` of the bank",
        ),
    ],
)
def test_a_bank_with_a_mistake(told, folder, entry, bank, sentence):
    if isinstance(bank, list):
        bank = "".join(entry(effect, **keys) for effect, keys in bank)
    path = folder / "bank/bank.yaml"
    path.unlink() if bank is None else path.write_text(bank)
    assert told() == [f"r.yaml:2:1: teachers: {sentence}"]


def test_two_effects_whose_triggers_are_the_same_words(told, folder, entry):
    bank = entry("thermal", trigger="<hot>") + entry("sepia", trigger="'< hot >'")
    (folder / "bank/bank.yaml").write_text(bank)
    (sentence,) = told()
    assert sentence.endswith(": prompts: effects 'thermal' and 'sepia' have the same trigger '<hot>'")


def test_a_trigger_whose_tokens_begin_another_effects_word(told, folder, entry, monkeypatch):
    """The backbone's own tokenizer is asked where it has one; here one token is one letter."""
    bank = entry("thermal", trigger="zap") + entry("sepia", caption="tint it zapper brown")
    (folder / "bank/bank.yaml").write_text(bank)
    monkeypatch.setattr(EmojiBackbone, "tokens", lambda self, prompt: [ord(sign) for sign in prompt], raising=False)
    (sentence,) = told()
    assert sentence.endswith(
        ": prompts: effect 'thermal': the tokens of its trigger 'zap' stand in the student prompt of 'sepia' too"
    )


def test_effects_without_captions_are_told_in_one_sentence(told, folder):
    bank = folder / "bank/bank.yaml"
    bank.write_text("".join(line for line in bank.read_text().splitlines(True) if "caption" not in line))
    (sentence,) = told()
    assert "prompts: effects 'thermal', 'sepia' have no caption; write one in the bank's manifest" in sentence


def test_an_effect_that_the_bank_lacks(told):
    assert told("effects: [thermla]\n")[0] == (
        "r.yaml:2:10: effects: the bank has no effect 'thermla'; did you mean 'thermal'?"
    )


def test_an_effect_that_the_world_does_not_know(told, folder, entry):
    (folder / "bank/bank.yaml").write_text(entry("thermla", lora="thermal.safetensors"))
    (sentence,) = told()
    assert sentence.endswith(": dataset: the emoji world knows no effect 'thermla'; did you mean 'thermal'?")


def renamed(path: Path, share: int) -> None:
    """Every `share`-th linear under a name that the backbone does not have."""
    tensors = load_file(path)
    wrong = sorted({name.split(".lora_")[0] for name in tensors})[::share]
    save_file(
        {n.replace("blocks", "bloks") if n.split(".lora_")[0] in wrong else n: t for n, t in tensors.items()}, path
    )


def with_nan(path: Path) -> None:
    tensors = load_file(path)
    tensors[f"{LINEAR}.lora_A.weight"][0, 3] = float("nan")
    save_file(tensors, path)


def with_a_wrong_shape(path: Path) -> None:
    save_file(load_file(path) | {f"{LINEAR}.lora_A.weight": torch.zeros(1, 7)}, path)


def scaled(path: Path, a: float, b: float) -> None:
    """Every A and every B multiplied."""
    factors = {name: tensor * (a if "lora_A" in name else b) for name, tensor in load_file(path).items()}
    save_file(factors, path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: renamed(p, 1), ["no key names a linear that carries adapters", "bloks", NEAREST]),
        (lambda p: renamed(p, 2), ["84 of 168 keys name no linear that carries adapters", "bloks", NEAREST]),
        (with_nan, [f"NaN or infinity in '{LINEAR}.lora_A.weight'"]),
        (with_a_wrong_shape, ["transformer_blocks.0.attn.to_q: A [1, 7]", "do not fit a linear of 128 -> 128"]),
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), ["truncated"]),
        (lambda p: p.write_bytes(p.read_bytes()[:100]), ["truncated: the header claims"]),
        (lambda p: p.write_bytes(b""), ["not a safetensors file: it has only 0 bytes"]),
        (lambda p: p.write_bytes(pickle.dumps({"a": 1})), ["this is a pickle, which can run code"]),
        (lambda p: torch.save({"a": torch.zeros(3)}, p), ["this is a pickle, which can run code"]),
        (lambda p: scaled(p, 0, 0), ["all its factors are zero: it changes nothing"]),
        (lambda p: scaled(p, 1, 0), ["every B is zero, as in a LoRA that was never trained"]),
        (lambda p: scaled(p, 0, 1), ["every A is zero: it changes nothing"]),
        (lambda p: scaled(p, 1e32, 1e32), ["times the base's own weights; beyond 256 times nothing of the base"]),
    ],
)  # fmt: skip
def test_a_teacher_file_with_a_mistake(told, folder, spoil, words):
    spoil(folder / "bank/sepia.safetensors")
    (sentence,) = told()
    assert sentence.startswith("r.yaml:2:1: teachers: sepia: bank/sepia.safetensors: ")
    assert all(word in sentence for word in words), sentence


def test_a_teacher_larger_than_the_base_and_a_doubtful_strength_are_warned_of(folder, entry, capsys):
    """A linear of n numbers has |delta| 0.01^2 * 50^2 sqrt(n); the emoji base's weights have sqrt(n) times 0.18."""
    bank, recipe = folder / "bank/bank.yaml", folder / "r.yaml"
    recipe.write_text(f"extends: {RECIPES / 'collection.yaml'}\nteachers: {{manifest: bank/bank.yaml}}\n")
    scaled(folder / "bank/thermal.safetensors", 50, 50)
    tensors = {name.replace("transformer.", "", 1): t for name, t in load_file("bank/sepia.safetensors").items()}
    save_file(tensors, folder / "bank/sepia.safetensors", {"ss_network_alpha": "0.5", "ss_network_dim": "1"})
    digests = set()
    for strength, count in ((None, 2), ("file", 1), ("header", 1), ("0.5", 1)):
        bank.write_text(entry("thermal") + entry("sepia", **({} if strength is None else {"strength": strength})))
        assert main(["validate", "r.yaml"]) == 0
        out, err = capsys.readouterr()
        large, *doubts = err.splitlines()
        assert large.startswith("warning: r.yaml:2:1: teachers: thermal: ")
        assert "times the base's own weights (trained effects have 0.01 to 0.3" in large
        assert len(doubts) == count - 1
        assert all("teachers: sepia: " in line and "ss_network_alpha (0.5)" in line for line in doubts)
        assert f"; {count} warning" in out
        digests.add(make_plan(load_recipe(recipe, (), (), discover())).digest)
    assert len(digests) == 3  # what is read alike is the same run


def test_a_file_of_two_formats_is_told_in_a_few_lines(told, folder):
    path = folder / "bank/sepia.safetensors"
    tensors = load_file(path)
    again = {name.replace("transformer.", "diffusion_model.", 1): tensors[name].clone() for name in tensors}
    save_file(tensors | again, path)
    *some, last = told()
    assert len(some) == 4
    assert all("are both the same factor of" in sentence for sentence in some)
    assert last.endswith(f"{len(tensors) - 4} more; `clora inspect` with --modules tells them all")


def test_a_mistake_elsewhere_hides_no_teacher_file(told, folder):
    (folder / "bank/sepia.safetensors").write_bytes(b"")
    found = told("critic: {losses: null}\n")
    assert [sentence.split(": ")[1] for sentence in found] == ["critic", "teachers"]


def test_a_mistake_in_the_bank_hides_no_teacher_file(told, folder, entry):
    """Neither that of the wrong entry nor that of a right one; a file that is not there is the manifest's mistake."""
    bank = entry("thermal", captoin="x") + entry("sepia") + entry("lost", lora="lots.safetensors")
    (folder / "bank/bank.yaml").write_text(bank)
    with_nan(folder / "bank/thermal.safetensors")
    with_a_wrong_shape(folder / "bank/sepia.safetensors")
    misspelt, lost, nan, shape = told()
    assert misspelt == "r.yaml:2:1: teachers: bank/bank.yaml:5: unknown key 'captoin'; did you mean 'caption'?"
    assert lost.startswith("r.yaml:2:1: teachers: bank/bank.yaml:11: lora 'lots.safetensors': there is no such file")
    assert nan.startswith("r.yaml:2:1: teachers: thermal: bank/thermal.safetensors: NaN or infinity in ")
    assert shape.startswith("r.yaml:2:1: teachers: sepia: bank/sepia.safetensors: transformer_blocks.0.attn.to_q: A [1")


def test_mistakes_in_pictures_and_prompts_hide_no_teacher_file(told, folder):
    with_nan(folder / "bank/sepia.safetensors")
    (folder / "data/effects.jsonl").write_text("{")
    found = told("", pictures=True)
    assert any(": dataset: data/effects.jsonl:1" in sentence for sentence in found)
    assert any("teachers: sepia: bank/sepia.safetensors: NaN or infinity" in sentence for sentence in found)


def test_teachers_that_are_not_used_are_not_read_in_a_bank_with_a_mistake_either(told, folder, entry):
    (folder / "bank/bank.yaml").write_text(entry("thermal", captoin="x") + entry("sepia"))
    (folder / "bank/sepia.safetensors").write_bytes(b"")
    (sentence,) = told("effects: [thermal]\n")
    assert "unknown key 'captoin'" in sentence
