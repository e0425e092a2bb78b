"""The words that a run reads and writes: names become adapters, files and columns, prompts go to text encoders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from clora.config.names import folder_name_problem
from clora.contracts.values import EffectCard, GeneralItem, Prompts
from clora.errors import quoted
from clora.files.untrusted_json import MAX_PROMPT, text_problem
from clora.plugin_system.guard import Owners, came

if TYPE_CHECKING:
    from clora.contracts.method import PromptStrategy

#: instructions that are looked at; a list of more is made by a rule, not written by hand
MOST_ITEMS = 1_000_000
#: mistakes that are told of one kind
MOST_TOLD = 10


def prompts_of(strategy: PromptStrategy, about: EffectCard | GeneralItem, owners: Owners) -> Prompts:
    """The words of an effect or of an instruction. Raises ComponentError where the strategy gives none."""
    what = quoted(about.name if isinstance(about, EffectCard) else about.instruction)
    with owners.calling("prompts"):
        words = strategy.effect(about) if isinstance(about, EffectCard) else strategy.general(about)
    if not isinstance(words, Prompts):
        raise owners.error("prompts", f"gave {came(words)} for {what}; expected Prompts")
    for side, text in (("student", words.student), ("teacher", words.teacher)):
        if not isinstance(text, str):
            raise owners.error("prompts", f"gave {came(text)} as the {side}'s words for {what}; expected a text")
    return words


def card_problems(cards: Sequence[EffectCard]) -> Iterable[str]:
    """Effects whose name or words nothing can be called or read, a sentence each."""
    found = (sentence for card in cards for sentence in _card_problems(card))
    yield from islice(found, MOST_TOLD)


def _card_problems(card: EffectCard) -> Iterable[str]:
    problem = folder_name_problem(card.name) if card.name else "is empty"
    if problem is not None:
        yield f"the effect's name {quoted(card.name)} {problem}"
    words = {"teacher_prompt": card.teacher_prompt, "caption": card.caption, "trigger": card.trigger or ""}
    for key, text in words.items():
        problem = text_problem(text, MAX_PROMPT)
        if problem is not None:
            yield f"{quoted(card.name)}: its {key} {quoted(text)} {problem}"


def instruction_problems(items: Sequence[GeneralItem]) -> Iterable[str]:
    """Instructions of the general stream that no model can read, a sentence each; a text is looked at once."""
    texts = dict.fromkeys(item.instruction for item in islice(items, MOST_ITEMS))
    found = (
        f"the instruction {quoted(text)} {problem}" for text in texts if (problem := text_problem(text, MAX_PROMPT))
    )
    yield from islice(found, MOST_TOLD)
