"""The predicted memory of a run: every phase's parts by hand, and advice that is worth what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, field, frozen

from clora.config.load import load_recipe
from clora.contracts.backbone import Footprint
from clora.errors import CloraError
from clora.lora_io.header import inspect_header
from clora.planning.cost import cost, count
from clora.planning.memory import Counted, capacity, phases, savings, teachers_bytes, trained_numbers
from clora.planning.plan import Plan, make_plan
from clora.plugin_system.discovery import discover
from clora.toolkit.memory.settings import NetworkMemory

RECIPES = Path(__file__).parents[3] / "recipes"
MIB = 2**20


@frozen
class Told:
    """A backbone of the emoji's shapes that tells what it would take; weights weigh a byte, half or a quarter."""

    real: Any
    memory: NetworkMemory = field(factory=lambda: NetworkMemory("bf16"))

    def shapes(self) -> dict[str, tuple[int, int]]:
        return self.real.shapes()

    def targets(self) -> tuple[str, ...]:
        return self.real.targets()

    def footprint(self, rank: int, size: tuple[int, int]) -> Footprint:
        assert size == (32, 32)
        whole = {"bf16": 400, "fp8": 200, "int8": 200, "nf4": 100}[self.memory.weights] * MIB
        away = whole // 8 * self.memory.offload_blocks
        row = (1 if self.memory.gradient_checkpointing else 10) * MIB
        return Footprint(whole - away, row, 3 * MIB, 2 * MIB, away, 50 * MIB, 20 * MIB, blocks=8)


@pytest.fixture(scope="module")
def plan() -> Plan:
    made = make_plan(load_recipe(RECIPES / "collection.yaml", (), ["evaluate.batch_size=4"], discover()))
    return evolve(made, recipe=evolve(made.recipe, backbone=Told(made.recipe.backbone)))


COUNTED = Counted(10.0, rows_held=6, rows_with_grad=4, rows_without=5)


def test_every_part_of_every_phase(plan: Plan) -> None:
    numbers = trained_numbers(plan)
    files = [sum(t.end - t.begin for t in inspect_header(card.lora).tensors.values()) for card in plan.cards]
    assert numbers == sum(32 * (i + o) for i, o in plan.recipe.backbone.shapes().values())
    found = {phase.name: dict(phase.parts) for phase in phases(plan, COUNTED)}
    base = {"base": 400 * MIB, "teachers": sum(files)}
    trained = {"adapters in training": numbers * 4 * (4 * 2 + (plan.recipe.student.ema is not None))}
    assert found == {
        "encoding": {"text encoders": 50 * MIB, "VAE": 20 * MIB},
        "sampling": {**base, "a forward of 4 rows": 8 * MIB, "VAE": 20 * MIB},
        "training": {**base, **trained, "activations of 6 rows": 60 * MIB, "working memory": 12 * MIB},
        "update": {**base, **trained, "the optimizer's own": 4 * numbers},
    }


def test_a_slot_is_as_large_as_the_largest_teacher(plan: Plan) -> None:
    files = [sum(t.end - t.begin for t in inspect_header(card.lora).tensors.values()) for card in plan.cards]
    for slots, expected in ((3, 3 * max(files)), (99, len(files) * max(files))):
        teacher = evolve(plan.recipe.teacher, slots=slots)
        assert teachers_bytes(evolve(plan, recipe=evolve(plan.recipe, teacher=teacher))) == expected


def test_advice_stops_as_soon_as_it_fits(plan: Plan) -> None:
    peak = max(phase.total for phase in phases(plan, COUNTED))
    assert savings(plan, COUNTED, peak) == []
    first = savings(plan, COUNTED, peak - 1)
    assert [saving.key for saving in first] == ["backbone.memory.gradient_checkpointing: true"]
    assert first[0].peak == peak - 6 * 9 * MIB
    more = savings(plan, COUNTED, peak - 200 * MIB)
    keys = [first[0].key, "train.offload_optimizer: true", "backbone.memory.weights: fp8"]
    assert [saving.key for saving in more] == keys
    assert more[1].peak == first[0].peak - 2 * 2 * 4 * trained_numbers(plan)  # the moments of student and critic
    assert more[2].peak == more[1].peak - 200 * MIB


def test_what_is_told_is_what_a_changed_recipe_takes(plan: Plan) -> None:
    everything = savings(plan, COUNTED, 0)
    backbone = evolve(plan.recipe.backbone, memory=NetworkMemory("nf4", True, 4))
    train = evolve(plan.recipe.train, offload_optimizer=True)
    changed = evolve(plan, recipe=evolve(plan.recipe, backbone=backbone, train=train))
    four = next(saving for saving in everything if saving.key == "backbone.memory.offload_blocks: 4")
    assert four.peak == max(phase.total for phase in phases(changed, COUNTED))


def test_advice_is_of_weights_that_the_quantizer_has(plan: Plan) -> None:
    memory = NetworkMemory("int8", quantizer="bitsandbytes")
    plan = evolve(plan, recipe=evolve(plan.recipe, backbone=evolve(plan.recipe.backbone, memory=memory)))
    told = [saving.key for saving in savings(plan, COUNTED, 0)]
    assert [key for key in told if "weights" in key] == ["backbone.memory.weights: nf4"]


@pytest.mark.slow
def test_the_words_name_peak_room_and_advice(plan: Plan) -> None:
    text = cost(plan, 64 * MIB)
    assert "predicted: " in text
    assert "  - backbone.memory.weights: nf4: 100 MiB less" in text
    assert "too much: smaller pictures, or a larger GPU" in text
    assert "it fits in 80.0 GiB" in cost(plan, 80 * 2**30)


def test_rows_at_once_are_those_of_the_loop(plan: Plan) -> None:
    counted = count(plan, cycles=6)
    batch = plan.recipe.train.batch_size
    assert batch <= counted.rows_with_grad <= counted.rows_held <= 3 * batch
    apart = evolve(plan, recipe=evolve(plan.recipe, train=evolve(plan.recipe.train, pack=False)))
    assert count(apart, cycles=6).rows_without <= batch < counted.rows_without


@pytest.mark.parametrize(("text", "size"), [("24GB", 24), ("80 GiB", 80), ("0.5g", 0.5)])
def test_an_amount_of_memory(text: str, size: float) -> None:
    assert capacity(text) == size * 2**30


@pytest.mark.parametrize("text", ["24", "GB", "-3GB", "0GB", "24MB", ""])
def test_no_amount_of_memory(text: str) -> None:
    with pytest.raises(CloraError, match="24GB"):
        capacity(text)
