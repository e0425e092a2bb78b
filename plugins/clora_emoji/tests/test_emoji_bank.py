"""The committed teachers and base: whole, described as the effects are, and good at what they are for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from clora_emoji import atlas, network
from clora_emoji.backbone import EmojiBackbone
from clora_emoji.effects import EFFECTS
from clora_emoji.general import GENERAL
from clora_emoji.sampling import euler
from safetensors import safe_open

TEACHERS = Path(network.__file__).parent / "assets/teachers"
BANK = yaml.safe_load((TEACHERS / "bank.yaml").read_text())


def test_the_bank_describes_its_effects_in_their_own_words() -> None:
    for entry in BANK:
        effect = EFFECTS[entry["name"]]
        assert (entry["teacher_prompt"], entry["caption"]) == (effect.teacher_prompt, effect.caption)


def test_the_quick_start_set_shares_few_prompts() -> None:
    first = BANK[:8]
    assert len(first) == 8
    assert len({entry["teacher_prompt"] for entry in first}) <= 4, "shared prompts are what AOP has to resolve"
    assert len({entry["caption"] for entry in first}) == 8


@pytest.mark.parametrize("name", [entry["name"] for entry in BANK])
def test_a_teacher_covers_every_linear_in_diffusers_layout(name: str) -> None:
    shapes = EmojiBackbone().shapes()
    with safe_open(TEACHERS / f"{name}.safetensors", "pt") as file:
        keys = set(file.keys())
        assert keys == {f"transformer.{module}.lora_{side}.weight" for module in shapes for side in "AB"}
        rank = json.loads(file.metadata()["lora_adapter_metadata"])["transformer.r"]
        for module, (inputs, outputs) in shapes.items():
            assert file.get_slice(f"transformer.{module}.lora_A.weight").get_shape() == [rank, inputs]
            assert file.get_slice(f"transformer.{module}.lora_B.weight").get_shape() == [outputs, rank]


def test_teachers_were_measured_and_work() -> None:
    measured = json.loads((TEACHERS / "measured.json").read_text())
    for entry in BANK:
        found = measured[entry["name"]]
        assert found["bad_case_rate"] <= 0.1, entry["name"]
        assert found["mse_to_truth"] < 0.25 * found["source_mse_to_truth"], entry["name"]


BOUNDS = {"tint_red": 0.01, "darken": 0.01, "shift_right": 0.02, "flip": 0.05}


@pytest.mark.parametrize(("edit", "bound"), BOUNDS.items())
def test_the_base_follows_an_instruction_on_pictures_it_has_not_seen(edit: str, bound: float) -> None:
    names = atlas.select("test", atlas.TEST_CATEGORIES)[::8]
    source = atlas.picture("noto", names)
    made = euler(network.load(), source, [GENERAL[edit].phrasings[0]] * len(names), seed=0, steps=8)
    truth = GENERAL[edit].apply(source)
    error = (made - truth).square().mean().item()
    assert error < bound
    assert error < 0.1 * (source - truth).square().mean().item()
