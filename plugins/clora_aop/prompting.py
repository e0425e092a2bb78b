"""What the student and the teacher read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import field, frozen

from clora.api import EffectCard, GeneralItem, Prompts
from clora_aop.triggers import collisions, made_trigger


@frozen
class Aop:
    """Asymmetric Orthogonal Prompting (CollectionLoRA): student `[trigger][caption]`, teacher its own prompt.

    `trigger: false` and `caption: false` take one half away: without its caption the student reads the trigger before
    the teacher's prompt, and with neither it reads what `shared` gives. `seed` changes the made triggers.
    """

    trigger: bool = True
    caption: bool = True
    seed: int = field(default=0)

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

    def check_cards(self, cards: Sequence[EffectCard]) -> Iterable[str]:
        """One sentence for every pair of effects whose words are not apart; nothing without triggers."""
        if not self.trigger:
            return []
        return collisions(
            [(card.name, self.trigger_of(card), self.effect(card).student, card.teacher_prompt) for card in cards]
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
