"""The typed values that pass from room to room: what the rows of a batch are, and what a finished cycle tells.

Route -> Batch -> Prompts -> Conditions -> what a step asks and answers (`step`) -> StepReport. All frozen; every
tensor's first axis is the rows of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen

if TYPE_CHECKING:
    import torch

Stream = Literal["effect", "general"]
Split = Literal["train", "test"]
Role = Literal["student", "critic", "teacher", "teacher_unconditional"]
Phase = Literal["student", "critic"]


@frozen
class EffectCard:
    """What a bank says of one teacher: its LoRA file, its strength and its words."""

    name: str  # the effect's, unique in its bank
    lora: Path  # the LoRA file
    teacher_prompt: str  # what the teacher was trained to read
    caption: str  # "" where nobody has written one yet; `clora caption` does
    scale: float = 1.0  # a factor on the LoRA's own strength
    trigger: str | None = None  # None: the prompt strategy makes one
    pairs: tuple[tuple[Path, Path], ...] = ()  # (before, after) pictures of the effect, for whoever captions it
    #: which of the file's strengths is taken where they disagree: that of its tensors (`file`; None: the same, with a
    #: warning), that of its header (`header`), or this number for every linear; `scale` multiplies it
    strength: Literal["file", "header"] | float | None = None

    def strengths(self) -> list[Any]:
        """All that decides how strong the teacher is, for a hash; equal strengths give equal lists."""
        return [self.scale] if self.strength in (None, "file") else [self.scale, self.strength]


@frozen
class Row:
    """The stream of one row and, in the effect stream, the effect whose teacher it follows."""

    stream: Stream  # `effect` or `general`
    effect: str | None = None  # its name; None in the general stream


@frozen
class Route:
    """The stream and effect of every row of a batch: general rows first, then effect by effect.

    So the rows of one adapter lie side by side.
    """

    rows: tuple[Row, ...]  # one for each row of the batch

    @classmethod
    def ordered(cls, rows: Sequence[Row]) -> Route:
        """The rows sorted by stream and effect."""
        return cls(tuple(sorted(rows, key=lambda r: (r.stream != "general", r.effect or ""))))

    def of(self, streams: Sequence[Stream]) -> tuple[int, ...]:
        """The indices of the rows whose stream is one of `streams`."""
        return tuple(i for i, row in enumerate(self.rows) if row.stream in streams)

    def take(self, rows: Sequence[int]) -> Route:
        """The route of some rows only."""
        return Route(tuple(self.rows[i] for i in rows))


@frozen
class GeneralItem:
    """One unlabelled picture with an instruction, for the general stream."""

    source: str  # name of the picture
    instruction: str  # what to do with it


@frozen
class Prompts:
    """The prompts of one row, which differ under AOP."""

    student: str  # what student and critic read
    teacher: str  # what the teacher reads


@frozen
class Batch:
    """The rows' source pictures by name and, in the effect stream, the teacher's own outputs for them."""

    route: Route  # which stream and effect each row is of
    sources: tuple[str, ...]  # names of the source pictures, one a row
    prompts: tuple[Prompts, ...]  # one a row
    targets: torch.Tensor  # latents [B, C, H, W]; zero in general rows, where no target exists


@frozen
class TextEmbeddings:
    """Encoded prompts: a vector for every token and, where the model's text encoders give one, for the whole prompt."""

    text: torch.Tensor  # [B, L, D]
    mask: torch.Tensor  # [B, L] bool
    pooled: torch.Tensor | None = None  # [B, P]


@frozen
class Conditions:
    """What the network is conditioned on: encoded words and the encoded source picture, row by row."""

    text: torch.Tensor  # [B, L, D]
    mask: torch.Tensor  # [B, L] bool
    source: torch.Tensor  # latents [B, C, H, W]
    pooled: torch.Tensor | None = None  # [B, P]

    def take(self, rows: Sequence[int] | torch.Tensor) -> Conditions:
        """The conditions of some rows, in the order given."""
        index = rows if not isinstance(rows, Sequence) else list(rows)
        pooled = None if self.pooled is None else self.pooled[index]
        return Conditions(self.text[index], self.mask[index], self.source[index], pooled)

    @staticmethod
    def cat(parts: Sequence[Conditions]) -> Conditions:
        """Several batches as one; shorter texts are padded with masked zeros."""
        import torch
        from torch.nn.functional import pad

        length = max(part.text.shape[1] for part in parts)
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Conditions(
            torch.cat([pad(p.text, (0, 0, 0, length - p.text.shape[1])) for p in parts]),
            torch.cat([pad(p.mask, (0, length - p.mask.shape[1])) for p in parts]),
            torch.cat([p.source for p in parts]),
            torch.cat(pooled) if pooled else None,
        )


@frozen
class RoleConditions:
    """The three conditions of one batch: the student's (and critic's) words, the teacher's, and no words."""

    student: Conditions  # the student's and the critic's
    teacher: Conditions  # the teacher's
    empty: Conditions  # of the teacher's unconditional prediction

    def take(self, rows: Sequence[int]) -> RoleConditions:
        """The conditions of some rows only."""
        return RoleConditions(self.student.take(rows), self.teacher.take(rows), self.empty.take(rows))

    def of(self, role: Role) -> Conditions:
        """What a role is conditioned on."""
        if role == "teacher":
            return self.teacher
        return self.empty if role == "teacher_unconditional" else self.student


@frozen
class StepReport:
    """What one cycle (a student update and its critic updates) did and cost."""

    step: int  # student updates done, this one included
    losses: Mapping[str, float]  # name -> value: `ts_dmd`, and `critic.on_target` of the critic
    seconds: float  # that the cycle took
    forward_equivalents: float  # per row of the batch: a forward is 1, a forward with its backward 3
    learning_rate: float  # the student's in this update
    logs: Mapping[str, float] = field(factory=dict)  # what the losses log (`ts_dmd.NAME`), and norms of gradients
