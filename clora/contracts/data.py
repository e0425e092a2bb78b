"""Pictures, who describes them, and who measures what is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from attrs import frozen

if TYPE_CHECKING:
    import torch

    from clora.contracts.evaluation import Evaluation, Measured
    from clora.contracts.values import GeneralItem, Split


class Dataset(Protocol):
    """Pictures by name."""

    def sources(self, effect: str, split: Split) -> Sequence[str]:
        """The names of an effect's source pictures."""
        ...

    def general(self, split: Split) -> Sequence[GeneralItem]:
        """Unlabelled pictures with instructions, in a fixed order."""
        ...

    def images(self, names: Sequence[str]) -> torch.Tensor:
        """Those pictures, float32 [B, 3, H, W] in [-1, 1]."""
        ...


@runtime_checkable
class HasPairs(Protocol):
    """A dataset that has examples of what an effect makes of a picture."""

    def pairs(self, effect: str) -> Sequence[tuple[Path, Path]]:
        """(source, target) files of an effect's train pictures that have a target; ValueError for an unknown effect."""
        ...


@frozen
class PictureRow:
    """One line of a list, or one picture of a folder: its files, and what they are for."""

    place: str  # the list with the line, or the folder, as a message names it
    source: Path  # the picture before the effect
    target: Path | None = None  # the picture after it; None where there is none
    effect: str = ""  # none in the general stream
    instruction: str = ""  # what to do with the source, in the general stream
    split: Split | None = None  # none where neither training nor tests read it, such as a captioner's example


@runtime_checkable
class ListsPictures(Protocol):
    """A dataset or bank whose pictures are files: `clora validate --data` decodes every one of them."""

    def pictures(self) -> Iterable[PictureRow]:
        """All rows in the order of their lists, of all effects and the general stream; ValueError as `sources`."""
        ...


@runtime_checkable
class StatesSize(Protocol):
    """A dataset whose keys say the size of its pictures, so that it is known before a list or a picture is read."""

    def stated_size(self) -> tuple[int, int] | None:
        """(height, width) that every picture is brought to; None where they keep their own."""
        ...


@runtime_checkable
class Truth(Protocol):
    """A dataset that knows the right answer (an embedded world)."""

    def truth(self, effect: str, names: Sequence[str], images: torch.Tensor | None = None) -> torch.Tensor:
        """What the effect makes of those pictures, [B, 3, H, W] in [-1, 1]; `images` stand in for them (chains)."""
        ...

    def general_truth(self, items: Sequence[GeneralItem]) -> torch.Tensor:
        """What the instructions make of their pictures, [B, 3, H, W] in [-1, 1]."""
        ...


@runtime_checkable
class DrawsTruth(Protocol):
    """A dataset with effects of many right answers: `truth` is their mean, and these are some of them."""

    def draws(self, effect: str, names: Sequence[str], count: int) -> torch.Tensor | None:
        """So many pictures that the effect may make of each source, [count, B, 3, H, W]; None where there is but one.

        None of them is a training pair, and the same call gives the same draws.
        """
        ...


@runtime_checkable
class ChecksDataset(Protocol):
    """A backbone or a metric that can find, before anything is trained, that a dataset's pictures do not suit it."""

    def check_dataset(self, dataset: Dataset) -> Iterable[str]:
        """Every reason as one sentence that says what to do instead."""
        ...


class Captioner(Protocol):
    """Writes an effect's caption from its teacher's prompt and two of its pairs (paper: AOP)."""

    def name(self) -> str:
        """Which model answers, in a few words: a caption is asked for again where this has changed."""
        ...

    def ready(self) -> Iterable[str]:
        """What stands in the way of asking on this machine, such as a key that is not set, one sentence each.

        None of it belongs into `check`, for a run asks no captioner.
        """
        ...

    def caption(self, request: str, pairs: Sequence[tuple[Path, Path]]) -> str:
        """The answer to a request about (before, after) pictures; raises CloraError where there is none."""
        ...


@frozen
class TokensUsed:
    """What a captioner has been asked and has answered, in the tokens of its model."""

    asked: int  # tokens of the requests, pictures included
    answered: int  # tokens of the answers


@runtime_checkable
class CountsTokens(Protocol):
    """A captioner that knows what its answers have cost."""

    def tokens_used(self) -> TokensUsed:
        """The sums over all answers since it was made."""
        ...


class Metric(Protocol):
    """Turns an evaluation's pictures into numbers."""

    def measure(self, evaluation: Evaluation) -> Measured:
        """The evaluation's numbers, with the direction in which each is better."""
        ...


@runtime_checkable
class ChecksEvaluation(Protocol):
    """A metric that can find, before anything is trained, that the recipe will not give it the pictures it needs."""

    def check_evaluation(self, teacher: bool, others: Sequence[Metric]) -> Iterable[str]:
        """Every reason as one sentence that says what to do instead.

        `teacher`: whether each effect's own teacher's pictures are made; `others`: the recipe's other metrics.
        """
        ...
