"""AOP: who reads what, stable triggers, collisions, the caption request."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from clora_aop import clora_prompts
from clora_aop.captions import caption_request
from clora_aop.prompting import Aop, Shared
from clora_aop.triggers import made_trigger, words

from clora.api import EffectCard, GeneralItem, Prompts


def card(
    name: str, caption: str = "make it shine", prompt: str = "glow please", trigger: str | None = None
) -> EffectCard:
    return EffectCard(name, Path(f"{name}.safetensors"), prompt, caption, trigger=trigger)


def test_aop_registers_both_strategies():
    assert [(c.name, c.load()) for c in clora_prompts()] == [("aop", Aop), ("shared", Shared)]


def test_aop_student_reads_trigger_and_caption_teacher_its_prompt():
    given = card("glow", trigger="<glow_abc>")
    assert Aop().effect(given) == Prompts("<glow_abc> make it shine", "glow please")
    assert Aop(trigger=False).effect(given) == Prompts("make it shine", "glow please")
    assert Aop(caption=False).effect(given) == Prompts("<glow_abc> glow please", "glow please")
    assert Aop(trigger=False, caption=False).effect(given) == Shared().effect(given)
    assert Shared().effect(given) == Prompts("glow please", "glow please")


@pytest.mark.parametrize("strategy", [Aop(), Shared()])
def test_aop_general_rows_read_the_instruction_on_both_sides(strategy):
    assert strategy.general(GeneralItem("cat", "add a hat")) == Prompts("add a hat", "add a hat")


def test_aop_made_triggers_are_stable_distinct_and_well_formed():
    # fixed for ever: exported students answer to these
    assert made_trigger("glow", 0) == GOLDEN
    assert Aop().effect(card("glow")).student == f"{GOLDEN} make it shine"
    assert Aop(seed=1).trigger_of(card("glow")) != GOLDEN
    many = {made_trigger(f"effect {i}", 0) for i in range(3000)}
    assert len(many) == 3000
    assert all(re.fullmatch(r"<effect\d+_[0-9A-Za-z]{7}>", trigger) for trigger in many)
    assert re.fullmatch(r"<effect_[0-9A-Za-z]{7}>", made_trigger("水墨", 0))


GOLDEN = "<glow_ysT1YPR>"


def test_aop_words():
    assert words("<Glow_a1> it's") == ("<", "glow_a1", ">", "it", "'", "s")


@pytest.mark.parametrize(("caption", "clash"), [("GLOW softly now", True), ("glows softly", False), ("glow", False)])
def test_aop_a_trigger_of_several_words_clashes_as_a_whole(caption, clash):
    found = list(Aop().check_cards([card("a", trigger="glow softly"), card("b", caption, "x")], None))
    assert bool(found) == clash


def test_aop_no_collision_among_made_triggers():
    assert list(Aop().check_cards([card(f"e{i}") for i in range(50)], None)) == []


def test_aop_same_trigger_is_reported_once_and_whatever_its_case():
    found = list(Aop().check_cards([card("a", trigger="Zap"), card("b", trigger="zap")], None))
    assert found == ["effects 'a' and 'b' have the same trigger 'Zap'"]


@pytest.mark.parametrize(
    ("other", "reader"),
    [
        (card("b", caption="a soft zap tone there", trigger="<b>"), "student"),
        (card("b", prompt="in zap tone", trigger="<b>"), "teacher"),
        (card("b", trigger="<zap tone>"), "student"),
    ],
)
def test_aop_trigger_inside_another_effects_words_is_reported(other, reader):
    (found,) = Aop().check_cards([card("a", trigger="zap tone"), other], None)
    assert found == f"effect 'a': its trigger 'zap tone' stands in the {reader} prompt of 'b' too"


def test_aop_own_caption_may_hold_the_trigger_and_no_trigger_means_no_check():
    assert list(Aop().check_cards([card("a", caption="zap it", trigger="zap"), card("b")], None)) == []
    assert list(Aop(trigger=False).check_cards([card("a", trigger="zap"), card("b", trigger="zap")], None)) == []


def test_aop_caption_request_holds_prompt_pairs_and_the_five_demands():
    request = caption_request("  paint it in ink ", 2)
    assert "\npaint it in ink\n" in request
    assert "2 pairs" in request
    assert "one pair " in caption_request("x", 1)
    for word in ("person", "pet", "animal", "viewpoint", "every pair", "Start from", "alone", "in detail"):
        assert word in request


@pytest.mark.parametrize(("prompt", "pairs"), [("ink", 0), ("  ", 2)])
def test_aop_caption_request_refuses_nothing_to_go_by(prompt, pairs):
    with pytest.raises(ValueError, match="needs"):
        caption_request(prompt, pairs)
