"""What an effect is, and how one is made from a plain function of the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import torch

# A look maps pictures [B, 3, 32, 32] in [0, 1] to pictures of the same shape; effects wrap it to [-1, 1].
Look = Callable[[torch.Tensor], torch.Tensor]
Apply = Callable[[torch.Tensor, Sequence[str]], torch.Tensor]


@attrs.frozen
class Effect:
    """One effect: its vague teacher prompt, its true caption, its exact function and how many pairs teach it.

    ``apply(source, subjects)`` maps float [..., 3, 32, 32] in [-1, 1] to the same shape and range; ``subjects`` names
    the picture of every row, which only the artists' renditions read. ``pairs`` is an upper bound.
    """

    name: str
    teacher_prompt: str
    caption: str
    apply: Apply
    pairs: int = 20


def effect(name: str, teacher_prompt: str, caption: str, look: Look) -> Effect:
    """Return the effect of a look, which sees the picture alone."""

    def apply(source: torch.Tensor, subjects: Sequence[str] = ()) -> torch.Tensor:
        rows = source.reshape(-1, *source.shape[-3:])
        return (look((rows + 1) / 2).clamp(0, 1) * 2 - 1).reshape(source.shape)

    return Effect(name, teacher_prompt, caption, apply)
