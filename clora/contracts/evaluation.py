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

    effect: str  # its name
    names: tuple[str, ...]  # of the N source pictures
    source: torch.Tensor  # what is edited
    student: torch.Tensor  # the student's edits
    teacher: torch.Tensor | None  # the effect's own LoRA, sampled in the teacher's way
    truths: Mapping[str, torch.Tensor]  # every effect's truth for these sources; empty where unknown


@frozen
class GeneralPictures:
    """Test pictures of the general stream; every tensor is [N, 3, H, W] in [-1, 1]."""

    instructions: tuple[str, ...]  # of the N pictures
    source: torch.Tensor  # what is edited
    student: torch.Tensor  # the student's edits
    base: torch.Tensor  # the frozen base, sampled in the teacher's way
    truth: torch.Tensor | None  # the right answers; None where they are not known


@frozen
class Evaluation:
    """All pictures of one evaluated run."""

    effects: Sequence[EffectPictures]  # a part for each effect
    general: GeneralPictures | None  # None where the general stream is not evaluated


@frozen
class Matrix:
    """A labelled table of numbers, such as the bleed matrix: rows are what was asked, columns what came."""

    rows: tuple[str, ...]  # labels
    columns: tuple[str, ...]  # labels
    values: tuple[tuple[float, ...], ...]  # a tuple of numbers for each row


@frozen
class Measured:
    """What a metric found: columns of the comparison table, the same numbers per effect, and matrices."""

    values: Mapping[str, float]  # metric -> its number over all pictures
    lower_is_better: frozenset[str]  # the metrics of `values` that fall as the student gets better
    per_effect: Mapping[str, Mapping[str, float]] = field(factory=dict)  # effect -> metric -> number
    #: effect -> metric -> one number for each test picture, so that two runs can be compared picture by picture
    per_picture: Mapping[str, Mapping[str, Sequence[float]]] = field(factory=dict)
    matrices: Mapping[str, Matrix] = field(factory=dict)  # title -> table
