"""What a reporter gets of a finished run, and what it gives: pages, tables, messages for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import field, frozen

from clora.contracts.evaluation import Measured, PictureGrid
from clora.contracts.run import RunInfo
from clora.contracts.values import StepReport


@frozen
class EffectReport:
    """One effect: its prompts and the first of its test pictures."""

    name: str  # of the bank
    student_prompt: str  # what the student reads for it
    teacher_prompt: str  # what its own LoRA reads
    #: rows `source`, then `truth` and `teacher` where there are such, then `student`; None where none were made
    pictures: PictureGrid | None = None


@frozen
class Composition:
    """Two effects on the same pictures: each alone, in one instruction (zero-shot), and one pass after the other."""

    effects: tuple[str, ...]  # their names, in the order in which they are applied
    instruction: str  # that asks for both at once
    pictures: PictureGrid  # rows `source`, `truth` where it is known, each effect, `both at once`, `in two passes`


@frozen
class Cost:
    """What the run took."""

    seconds: float  # of work, over all calls of the run
    updates: int  # of the student
    forward_equivalents: float  # a cycle and row, mean: a forward is 1, a forward with its backward 3
    peak_memory: int | None = None  # bytes
    stages: Mapping[str, float] = field(factory=dict)  # stage -> seconds


@frozen
class RunReport:
    """All that there is to tell of a finished run. Its pictures are uint8, [N, 3, H, W]."""

    run: RunInfo  # its name, folder and digest
    title: str  # for people
    verdict: str = ""  # one sentence that answers whether it worked
    facts: Mapping[str, str] = field(factory=dict)  # a few values of the recipe, such as seed: 0
    recipe: str = ""  # the resolved recipe, YAML
    effects: tuple[EffectReport, ...] = ()  # in the order of the plan
    #: general instructions as subjects: rows `source`, `truth` where it is known, `base`, `student`
    general: PictureGrid | None = None
    compositions: tuple[Composition, ...] = ()  # a few of neighbouring effects
    measured: Measured = field(factory=lambda: Measured({}))  # what all metrics have found
    steps: tuple[StepReport, ...] = ()  # the log of the updates
    warm_steps: tuple[StepReport, ...] = ()  # the same of the warm start
    cost: Cost | None = None  # None where nothing is known of it
    machine: Mapping[str, str] = field(factory=dict)  # system and processor
    versions: Mapping[str, str] = field(factory=dict)  # of clora, Python and the libraries that compute
    warnings: tuple[str, ...] = ()  # what the losses and the log of the updates show to be wrong


class Reporter(Protocol):
    """Tells people of a finished run, in files of its folder or in a place of its own."""

    def files(self) -> Sequence[str]:
        """The names of its files in the run's folder, such as "report.html"; none where it writes elsewhere.

        They are asked for before the run starts, and must be neither the run's own nor another reporter's.
        """
        ...

    def report(self, run: RunReport) -> Mapping[str, str | bytes]:
        """The contents of exactly those files; text is written as UTF-8, each file in one step."""
        ...
