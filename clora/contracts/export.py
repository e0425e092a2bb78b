"""What is written beside an exported LoRA, and who writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from attrs import field, frozen

if TYPE_CHECKING:
    import torch

    from clora.contracts.backbone import Publication
    from clora.contracts.evaluation import Measured
    from clora.lora_io.reader import LoraDelta

#: what is in a file: text, bytes, or a function that writes it at the path it is given
FileContents: TypeAlias = "str | bytes | Callable[[Path], None]"


@frozen
class ExportedEffect:
    """One effect of the LoRA."""

    name: str  # as the run's recipe has it
    prompt: str  # calls the effect, typed as it stands
    caption: str  # what the effect looks like; "" where nobody has written it


@frozen
class ExportedSampler:
    """How pictures are made with the LoRA."""

    #: few_step: x0 is predicted and re-noised with fresh noise to the next level; teacher: Euler steps of the base
    kind: Literal["few_step", "teacher"]
    steps: int  # evaluations of the network for a picture, twice as many with guidance
    guidance_scale: float  # 1: no guidance
    shift: float | None  # of the noise levels; None: the levels of the model's own scheduler
    sigmas: tuple[float, ...]  # the levels themselves, falling; () where `shift` is None


@frozen
class ExportedLora:
    """A run's LoRA with all that is known of it before it is measured."""

    path: Path  # a safetensors file in diffusers' layout; it is there when contents are written, not before
    title: str  # of the run
    digest: str  # of all that decides the LoRA
    effects: tuple[ExportedEffect, ...]  # in the order of the run
    sampler: ExportedSampler  # the one that the run was evaluated with
    rank: int | None  # the trained one; None of a LoRA that was merged from others
    publication: Publication | None  # what the base says of itself
    header: Mapping[str, str]  # the metadata in the file's own header
    #: reads the file: {linear: its change of weight}
    weights: Callable[[], Mapping[str, LoraDelta]] = field(eq=False, repr=False)


@frozen(eq=False)
class EffectSamples:
    """An effect's test pictures, uint8 [N, 3, H, W]."""

    names: tuple[str, ...]  # of the N source pictures
    source: torch.Tensor  # what is edited
    result: torch.Tensor  # made with the LoRA


@frozen(eq=False)
class Evaluated:
    """What the evaluation of an exported LoRA has found and made."""

    measured: Measured  # of all metrics together
    samples: Mapping[str, EffectSamples]  # by the effect's name


class Exporter(Protocol):
    """Adds files beside an exported LoRA."""

    def export(self, lora: ExportedLora) -> Mapping[str, FileContents]:
        """The files by their paths below the export's folder, such as `images/ink.png`.

        It is asked before anything is trained, too, so that names are checked early: only a function among the
        contents may read the LoRA. The core writes the files, each in one step.
        """
        ...


@runtime_checkable
class Illustrates(Protocol):
    """An exporter that has more to add, or other contents for its files, once the LoRA is evaluated."""

    def illustrate(self, lora: ExportedLora, evaluated: Evaluated) -> Mapping[str, FileContents]:
        """The files, as `export` gives them."""
        ...
