"""What an evaluation hands to the metrics: pictures, with the truth where the world knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

if TYPE_CHECKING:
    import torch

#: which way a number is better
Direction = Literal["lower", "higher"]


@frozen
class EffectPictures:
    """One effect's test pictures; every tensor is [N, 3, H, W] in [-1, 1]."""

    effect: str  # its name
    names: tuple[str, ...]  # of the N source pictures
    source: torch.Tensor  # what is edited
    student: torch.Tensor  # the student's edits
    teacher: torch.Tensor | None  # the effect's own LoRA, sampled in the teacher's way
    truths: Mapping[str, torch.Tensor]  # every effect's truth for these sources; empty where unknown
    #: [K, N, 3, H, W], pictures that this effect may make of these sources; None where there is but one, or none known
    draws: torch.Tensor | None = None


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
    """A labelled table of numbers, such as a confusion matrix: rows are what was asked, columns what came."""

    rows: tuple[str, ...]  # labels
    columns: tuple[str, ...]  # labels
    values: tuple[tuple[float, ...], ...]  # a tuple of numbers for each row
    note: str = ""  # one sentence that says what the numbers are
    unit: str = ""  # as a Quantity's
    #: every row holds shares that add up to 1, and the column of the row's own name is the right one
    confusion: bool = False


@frozen
class PictureGrid:
    """Pictures to be seen together: every row shows the same subjects in the same order."""

    subjects: tuple[str, ...]  # the columns' names, such as those of pictures
    #: a row's name -> [N, 3, H, W], float in [-1, 1] or uint8; left out of `==`, which tensors answer one by one
    rows: Mapping[str, torch.Tensor] = field(eq=False)
    note: str = ""  # one sentence that says what is seen


@frozen
class Reference:
    """Says of a number that it is what another is measured against, such as the teachers' distance."""

    who: str  # whose number it is, such as "teacher"
    of: str  # the name of the run's own number


@frozen
class Quantity:
    """How one of a metric's numbers is to be read; tables and reports guess nothing from its name."""

    better: Direction | None = None  # None: neither
    unit: str = ""  # such as "dB"; "%" is a share from 0 to 1, which is shown in per cent
    headline: bool = False  # shown large on a report's first screen
    reference: Reference | None = None  # whose number it is, where another is measured against it


@frozen
class Measured:
    """What a metric found: columns of the comparison table, the same numbers per effect, and matrices."""

    values: Mapping[str, float]  # metric -> its number over all pictures
    #: what is said of the numbers named in `values` and `per_effect`, headlines in the order in which they are shown
    quantities: Mapping[str, Quantity] = field(factory=dict)
    per_effect: Mapping[str, Mapping[str, float]] = field(factory=dict)  # effect -> metric -> number
    #: effect -> metric -> one number for each test picture, so that two runs can be compared picture by picture
    per_picture: Mapping[str, Mapping[str, Sequence[float]]] = field(factory=dict)
    matrices: Mapping[str, Matrix] = field(factory=dict)  # title -> table
    grids: Mapping[str, PictureGrid] = field(factory=dict)  # title -> pictures worth a look, such as the worst ones
    #: one clause that answers whether the run worked, such as "93% of the pictures show what was asked for"
    summary: str = ""

    def quantity(self, name: str) -> Quantity:
        """What is said of a number; a plain one of no direction where nothing is."""
        return self.quantities.get(name, Quantity())
