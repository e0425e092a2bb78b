"""What an effect is, and how one is made from a plain function of the picture, or from one with chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import torch

from .chance import Chance

# A look maps pictures [B, 3, 32, 32] in [0, 1] to pictures of the same shape; effects wrap it to [-1, 1].
Look = Callable[[torch.Tensor], torch.Tensor]
LookWithChance = Callable[[torch.Tensor, Chance], torch.Tensor]
Apply = Callable[[torch.Tensor, Sequence[str]], torch.Tensor]
Draw = Callable[[torch.Tensor, Sequence[str], int], torch.Tensor]

#: so many draws make an effect's expectation: its own error is 1 / 64 of the spread of one draw, in mean squares
DRAWS = 64
#: the draw that a training pair shows, the first of those that an expectation is made of, and of those for metrics
PAIR, EXPECTED, FRESH = 0, 1_000, 2_000


@attrs.frozen
class Effect:
    """One effect: its vague teacher prompt, its true caption, its exact function and how many pairs teach it.

    ``apply(source, subjects)`` maps float [..., 3, 32, 32] in [-1, 1] to the same shape and range; ``subjects`` names
    the picture of every row, which only the artists' renditions and chance read. ``pairs`` is an upper bound. An effect
    with chance has ``draw(source, subjects, number)``, one picture of those that it may become; its ``apply`` is their
    mean.
    """

    name: str
    teacher_prompt: str
    caption: str
    apply: Apply
    pairs: int = 20
    draw: Draw | None = None

    def drawn(self, source: torch.Tensor, subjects: Sequence[str], number: int = PAIR) -> torch.Tensor:
        """One draw; of an effect without chance, what it always is."""
        return self.apply(source, subjects) if self.draw is None else self.draw(source, subjects, number)


def effect(name: str, teacher_prompt: str, caption: str, look: Look) -> Effect:
    """Return the effect of a look, which sees the picture alone."""

    def apply(source: torch.Tensor, subjects: Sequence[str] = ()) -> torch.Tensor:
        rows = source.reshape(-1, *source.shape[-3:])
        return (look((rows + 1) / 2).clamp(0, 1) * 2 - 1).reshape(source.shape)

    return Effect(name, teacher_prompt, caption, apply)


def effect_with_chance(name: str, teacher_prompt: str, caption: str, look: LookWithChance) -> Effect:
    """Return the effect of a look that sees the picture and draws from chance."""

    def draw(source: torch.Tensor, subjects: Sequence[str], number: int) -> torch.Tensor:
        rows = source.reshape(-1, *source.shape[-3:])
        chance = Chance.of(name, subjects or [""] * len(rows), number)
        return (look((rows + 1) / 2, chance).clamp(0, 1) * 2 - 1).reshape(source.shape)

    def apply(source: torch.Tensor, subjects: Sequence[str] = ()) -> torch.Tensor:
        total = torch.zeros_like(source)
        for number in range(EXPECTED, EXPECTED + DRAWS):
            total += draw(source, subjects, number)
        return total / DRAWS

    return Effect(name, teacher_prompt, caption, apply, draw=draw)
