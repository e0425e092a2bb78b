"""Triggers as a real byte-level BPE tokenizer reads them, and the index of prompts against a plain search."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from clora_aop.prompting import Aop
from clora_aop.triggers import Read, collisions, trigger_tokens
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel, Whitespace
from tokenizers.trainers import BpeTrainer

from clora.api import EffectCard

CORPUS = ["zap zapped", "glowing", "glowing glow softly", "turn it into ink", "a person in wool"] * 20


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    made = Tokenizer(BPE())
    made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(vocab_size=330, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    return made


@pytest.fixture(scope="module")
def tokens(bpe):
    return lambda text: bpe.encode(text).ids


def card(name: str, trigger: str | None = None, caption: str = "make it so", prompt: str = "do it") -> EffectCard:
    return EffectCard(name, Path(f"{name}.safetensors"), prompt, caption, trigger=trigger)


def test_aop_tokens_find_a_trigger_that_begins_another_word(bpe, tokens):
    assert bpe.encode("zapqq").tokens[0] == "zap"  # the premise: a word of its own, and yet the same tokens
    cards = [card("a", "zap"), card("b", caption="then zapqq it")]
    assert list(Aop().check_cards(cards, None)) == []
    (found,) = Aop().check_cards(cards, tokens)
    assert found == "effect 'a': the tokens of its trigger 'zap' stand in the student prompt of 'b' too"
    (found,) = Aop().check_cards([card("a", "zap"), card("b", prompt="zapqq")], tokens)
    assert "teacher prompt of 'b'" in found


def test_aop_tokens_of_a_word_merged_whole_are_no_clash(bpe, tokens):
    assert bpe.encode("glowing").tokens == ["glowing"]
    assert list(Aop().check_cards([card("a", "glow"), card("b", prompt="glowing")], tokens)) == []


def test_aop_a_clash_of_words_is_not_told_again_as_one_of_tokens(tokens):
    (found,) = Aop().check_cards([card("a", "zap"), card("b", caption="a zap")], tokens)
    assert found == "effect 'a': its trigger 'zap' stands in the student prompt of 'b' too"


def test_aop_signs_that_the_model_does_not_know_are_one_trigger_to_it():
    known = Tokenizer(WordLevel({"[UNK]": 0, "make": 1, "it": 2, "so": 3, "do": 4}, unk_token="[UNK]"))
    known.pre_tokenizer = Whitespace()
    (found,) = Aop().check_cards([card("a", "水"), card("b", "墨")], lambda text: known.encode(text).ids)
    assert found == "effects 'a' and 'b': the model reads their triggers '水' and '墨' as the same tokens"


def test_aop_a_trigger_that_the_tokenizer_swallows_is_told():
    found = list(Aop().check_cards([card("a", "<x>"), card("b")], lambda text: [ord(c) for c in text if c.isalpha()]))
    assert "effect 'a': its trigger has no tokens" not in found
    found = list(Aop().check_cards([card("a", "<_>"), card("b")], lambda text: [ord(c) for c in text if c.isalpha()]))
    assert "effect 'a': its trigger has no tokens" in found


def test_aop_a_merge_over_the_triggers_end_counts_as_the_triggers():
    merged = {"zap!": 9}  # a tokenizer that reads `zap!` as one sign wherever it meets it

    def cut(text: str) -> tuple[int, ...]:
        pieces = text.replace(" ", "_").replace("zap!", "\0")
        return tuple(merged["zap!"] if piece == "\0" else ord(piece) for piece in pieces)

    z, a, p = map(ord, "zap")
    variants = trigger_tokens(Read("a", "zap", "zap! it", "do"), cut)
    assert variants == {(9,), (z, a, p), (ord("_"), z, a, p)}


def test_aop_made_triggers_do_not_clash_as_tokens(tokens):
    assert list(Aop().check_cards([card(f"effect_{i}") for i in range(40)], tokens)) == []


def plain(effects: list[Read], cut) -> set[frozenset[str]]:
    """The pairs of effects that clash, by comparing everything with everything."""
    pairs = set()
    for one in effects:
        for other in effects:
            texts = [cut(other.student), cut(other.teacher)]
            for needle in trigger_tokens(one, cut):
                held = any(t[i : i + len(needle)] == needle for t in texts for i in range(len(t) - len(needle) + 1))
                if one is not other and held:
                    pairs.add(frozenset({one.name, other.name}))
    return pairs


@pytest.mark.parametrize("seed", range(6))
def test_aop_the_index_finds_what_a_plain_search_finds(tokens, seed):
    draw = random.Random(seed)
    letters = "za p<"

    def text(n: int) -> str:
        return "".join(draw.choice(letters) for _ in range(n)).strip() or "z"

    effects = []
    for i in range(8):
        trigger = text(draw.randint(2, 5))
        effects.append(Read(f"e{i}_", trigger, f"{trigger} {text(9)}", text(9)))
    sentences = list(collisions(effects, tokens))
    found = {frozenset(e.name for e in effects if e.name in sentence) for sentence in sentences}
    assert plain(effects, lambda t: tuple(tokens(t))) <= found


def test_aop_180_effects_are_read_a_fixed_number_of_times_each(tokens):
    words = "a person or pet redrawn in bright wool with soft visible fibres and warm light on every surface " * 3
    cards = [card(f"effect_{i}", caption=f"{words} {i}", prompt=f"turn it into style {i}") for i in range(180)]
    read: list[str] = []

    def counted(text: str) -> list[int]:
        read.append(text)
        return tokens(text)

    assert list(Aop().check_cards(cards, counted)) == []
    assert len(read) == 6 * 180  # the prompts; for the trigger: prompt, rest, alone, after a space


def test_aop_missing_captions_are_told_once_by_name_unless_they_are_not_read():
    cards = [card("a", caption=""), card("b"), card("c", caption="")]
    (found,) = Aop().check_cards(cards, None)
    assert found.startswith("effects 'a', 'c' have no caption; write one in the bank's manifest")
    assert list(Aop(caption=False).check_cards(cards, None)) == []
    (found,) = Aop(trigger=False).check_cards(cards[:1], None)
    assert found.startswith("effect 'a' has no caption")


def test_aop_requests_a_caption_only_where_it_reads_one():
    assert "\ndo it\n" in (Aop().caption_request(card("a"), 2) or "")
    assert Aop(caption=False).caption_request(card("a"), 2) is None
