"""What an evaluation hands to the metrics: pictures, with the truth where the world knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    import torch


@frozen
class EffectPictures:
    """One effect's test pictures; every tensor is [N, 3, H, W] in [-1, 1]."""

    effect: str
    names: tuple[str, ...]
    source: torch.Tensor
    student: torch.Tensor
    teacher: torch.Tensor | None  # the effect's own LoRA, sampled in the teacher's way
    truths: Mapping[str, torch.Tensor]  # every effect's truth for these sources; empty where unknown


@frozen
class GeneralPictures:
    """Test pictures of the general stream; every tensor is [N, 3, H, W] in [-1, 1]."""

    instructions: tuple[str, ...]
    source: torch.Tensor
    student: torch.Tensor
    base: torch.Tensor  # the frozen base, sampled in the teacher's way
    truth: torch.Tensor | None


@frozen
class Evaluation:
    """All pictures of one evaluated run."""

    effects: Sequence[EffectPictures]
    general: GeneralPictures | None


@frozen
class Matrix:
    """A labelled table of numbers, such as the bleed matrix: rows are what was asked, columns what came."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


@frozen
class Measured:
    """What a metric found: columns of the comparison table, the same numbers per effect, and matrices."""

    values: Mapping[str, float]
    lower_is_better: frozenset[str]
    per_effect: Mapping[str, Mapping[str, float]] = field(factory=dict)
    #: effect -> metric -> one number for each test picture, so that two runs can be compared picture by picture
    per_picture: Mapping[str, Mapping[str, Sequence[float]]] = field(factory=dict)
    matrices: Mapping[str, Matrix] = field(factory=dict)
