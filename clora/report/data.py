"""What a report is made of: plain frozen values, so that the page can be written without a model, a plan or a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from attrs import field, frozen

from clora.contracts.evaluation import EffectPictures, GeneralPictures, Measured

if TYPE_CHECKING:
    import numpy
    import torch

    #: a tensor [N, 3, H, W] (float in [-1, 1], or uint8) or an array uint8 [N, H, W, 3]
    Pictures: TypeAlias = "torch.Tensor | numpy.ndarray"


@frozen
class EffectEntry:
    """What the report says of one effect."""

    name: str
    student_prompt: str
    teacher_prompt: str


@frozen
class Grid:
    """Pictures to be seen together: every role (source, truth, ...) shows the same subjects in the same order."""

    subjects: tuple[str, ...]
    roles: Mapping[str, Pictures]  # role -> as many pictures as there are subjects

    @classmethod
    def of_effect(cls, pictures: EffectPictures, count: int = 8) -> Grid:
        """The first `count` test pictures of an effect: source, truth and teacher where there are such, student."""
        roles: dict[str, Pictures] = {"source": pictures.source[:count]}
        if pictures.effect in pictures.truths:
            roles["truth"] = pictures.truths[pictures.effect][:count]
        if pictures.teacher is not None:
            roles["teacher"] = pictures.teacher[:count]
        return cls(pictures.names[:count], roles | {"student": pictures.student[:count]})

    @classmethod
    def of_general(cls, pictures: GeneralPictures, count: int = 12) -> Grid:
        """The first `count` general instructions as subjects: source, truth where it is known, base, student."""
        roles: dict[str, Pictures] = {"source": pictures.source[:count]}
        if pictures.truth is not None:
            roles["truth"] = pictures.truth[:count]
        return cls(
            pictures.instructions[:count], roles | {"base": pictures.base[:count], "student": pictures.student[:count]}
        )


@frozen
class Composition:
    """Effects chained, in one instruction (zero-shot) and one pass after the other."""

    effects: tuple[str, ...]
    instruction: str
    grid: Grid


@frozen
class Chart:
    """Curves that share their axes: series name -> (step, value) in the order of the steps."""

    title: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    log: bool = False  # values on a logarithmic axis; those that are not positive are left out
    unit: str = ""


@frozen
class Cost:
    """What the run took."""

    seconds: float
    updates: int  # of the student
    forward_equivalents: float  # a cycle and row, mean: a forward is 1, a forward with its backward 3
    peak_memory: int | None = None  # bytes
    stages: Mapping[str, float] = field(factory=dict)  # stage -> seconds


@frozen
class ReportData:
    """The whole report; an empty part is left out of the page."""

    title: str
    verdict: str = ""  # one sentence under the title
    facts: Mapping[str, str] = field(factory=dict)  # such as effects: 8, steps: 4, seed: 0
    recipe: str = ""  # the resolved recipe's text
    effects: tuple[EffectEntry, ...] = ()
    effect_grids: Mapping[str, Grid] = field(factory=dict)  # by effect name
    general: Grid | None = None
    compositions: tuple[Composition, ...] = ()
    charts: tuple[Chart, ...] = ()
    measured: Measured | None = None
    cost: Cost | None = None
    versions: Mapping[str, str] = field(factory=dict)
    warnings: tuple[str, ...] = ()
