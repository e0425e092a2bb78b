"""What the student and the teacher read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from attrs import field, frozen

from clora.api import MOST_SEED, EffectCard, GeneralItem, Prompts, between
from clora_aop.captions import caption_request
from clora_aop.triggers import Read, collisions, made_trigger


@frozen
class Aop:
    """Asymmetric Orthogonal Prompting (CollectionLoRA): student `[trigger][caption]`, teacher its own prompt.

    Without its caption the student reads the trigger before the teacher's prompt; with neither it reads what `shared`
    gives.
    """

    trigger: bool = True  # false: the student reads no trigger
    caption: bool = True  # false: the student reads the teacher's prompt in place of the caption
    seed: int = field(default=0, validator=between(0, MOST_SEED))  # another one makes other triggers

    def trigger_of(self, card: EffectCard) -> str:
        """The card's own trigger or, where it has none, one made from seed and name."""
        return card.trigger or made_trigger(card.name, self.seed)

    def effect(self, card: EffectCard) -> Prompts:
        """c_student = [trigger][caption], c_teacher = the teacher's training prompt   (CollectionLoRA, AOP)."""
        words = card.caption if self.caption else card.teacher_prompt
        student = f"{self.trigger_of(card)} {words}" if self.trigger else words
        return Prompts(student, card.teacher_prompt)

    def general(self, item: GeneralItem) -> Prompts:
        """Both sides read the instruction: the general stream has no effect to keep apart."""
        return Prompts(item.instruction, item.instruction)

    def caption_request(self, card: EffectCard, pairs: int) -> str | None:
        """What a captioner is to be asked for a card's caption, beside so many pairs; None where none is read."""
        return caption_request(card.teacher_prompt, pairs) if self.caption else None

    def check_cards(self, cards: Sequence[EffectCard], tokens: Callable[[str], Sequence[int]] | None) -> Iterable[str]:
        """One sentence on all effects without a caption, one for every pair of effects whose words are not apart."""
        if self.caption:
            yield from _uncaptioned(cards)
        if self.trigger:
            effects = [
                Read(card.name, self.trigger_of(card), self.effect(card).student, card.teacher_prompt) for card in cards
            ]
            yield from collisions(effects, tokens)


def _uncaptioned(cards: Sequence[EffectCard]) -> Iterator[str]:
    names = [repr(card.name) for card in cards if not card.caption]
    if names:
        effects = f"effect {names[0]} has" if len(names) == 1 else f"effects {', '.join(names)} have"
        yield (
            f"{effects} no caption; write one in the bank's manifest or its captions file, or have `clora caption` "
            "with this recipe ask a captioner"
        )


@frozen
class Shared:
    """Both sides read the teacher's prompt (paper: Table 3 without AOP)."""

    def effect(self, card: EffectCard) -> Prompts:
        """c_student = c_teacher = the teacher's training prompt."""
        return Prompts(card.teacher_prompt, card.teacher_prompt)

    def general(self, item: GeneralItem) -> Prompts:
        """Both sides read the instruction."""
        return Prompts(item.instruction, item.instruction)
