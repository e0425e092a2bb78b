"""The metric `similarity`: cosines between pictures as an image encoder sees them (the paper's CLIP and DINO rows)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from clora.api import Measured, ModelPlace, Quantity, Reference, between
from clora_effectbench.checks import check_pictures
from clora_effectbench.encoder import ImageEncoder, encoder_problems
from clora_effectbench.words import described

if TYPE_CHECKING:
    import torch

    from clora.api import EffectPictures, Evaluation, Metric


@frozen
class SimilarityMetric:
    """Cosine of the student's picture to its teacher's (style) and to its source (subject), as an encoder sees them."""

    model: ModelPlace  # the image encoder: a folder or a Hub id, read from safetensors alone
    revision: str | None = None  # of the Hub: a branch, tag or commit; null: its main branch
    label: str = ""  # begins the names of the columns, so that several encoders can stand in one recipe
    batch_size: int = field(default=16, validator=between(1, 4096))  # pictures at a time
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where there is one

    @property
    def column(self) -> str:
        """The label; without one, the model's name in small letters: openai/clip-vit-base is clip_vit_base."""
        return self.label or re.sub(r"\W+", "_", self.model.rstrip("/").rsplit("/", 1)[-1].lower())

    def check(self) -> Iterable[str]:
        """A model that is not there, is no image encoder or has no safetensors, a label that cannot name a column."""
        if re.fullmatch(r"[a-z][a-z0-9_]*", self.column) is None:
            yield f"label: {self.column!r} must begin with a letter and have small letters, digits and _ alone"
        if self.device == "cuda":
            import torch

            if not torch.cuda.is_available():
                yield "device: cuda, but there is no GPU that torch can use"
        yield from encoder_problems(self.model, self.revision)

    def check_evaluation(self, teacher: bool, others: Sequence[Metric]) -> Iterable[str]:
        """A sentence where another encoder would write into the same columns."""
        if any(isinstance(other, SimilarityMetric) and other.column == self.column for other in others):
            yield f"two metrics call their columns {self.column!r}; give one of them a `label:` of its own"

    def measure(self, evaluation: Evaluation) -> Measured:
        """Measure every effect; CloraError where the model cannot be loaded or used."""
        if not evaluation.effects:
            raise ValueError("metric similarity: the evaluation holds no effect")
        for pictures in evaluation.effects:
            _check(pictures)
        encoder = ImageEncoder.load(self.model, self.revision, self.device, self.batch_size)
        sources: dict[tuple[str, ...], torch.Tensor] = {}  # effects that share their sources see them encoded once
        columns = {}
        for pictures in evaluation.effects:
            if pictures.names not in sources:
                sources[pictures.names] = encoder(pictures.source)
            columns[pictures.effect] = self._columns(pictures, encoder, sources[pictures.names])
        everywhere = [name for name in next(iter(columns.values())) if all(name in found for found in columns.values())]
        values = {name: _mean([score for found in columns.values() for score in found[name]]) for name in everywhere}
        per_effect = {effect: {name: _mean(c) for name, c in found.items()} for effect, found in columns.items()}
        return Measured(
            values=values,
            quantities=described(self._quantities(), values, per_effect),
            per_effect=per_effect,
            per_picture={
                effect: {name: column for name, column in found.items() if not name.startswith("teacher_")}
                for effect, found in columns.items()
            },
        )

    def _quantities(self) -> dict[str, Quantity]:
        to_source = f"{self.column}_to_source_cos"
        return {
            f"{self.column}_to_teacher_cos": Quantity("higher"),
            to_source: Quantity("higher"),
            f"teacher_{to_source}": Quantity("higher", reference=Reference("teacher", to_source)),
        }

    def _columns(self, pictures: EffectPictures, encoder: ImageEncoder, source: torch.Tensor) -> dict[str, list[float]]:
        """The cosines of one effect, a number for each picture."""
        student = encoder(pictures.student)
        to_source = f"{self.column}_to_source_cos"
        if pictures.teacher is None:
            return {to_source: _cosine(student, source)}
        teacher = encoder(pictures.teacher)
        return {
            f"{self.column}_to_teacher_cos": _cosine(student, teacher),
            to_source: _cosine(student, source),
            f"teacher_{to_source}": _cosine(teacher, source),
        }


def _check(pictures: EffectPictures) -> None:
    where = f"metric similarity: effect {pictures.effect!r}"
    check_pictures(where, "student output", pictures.student, pictures.source)
    if pictures.teacher is not None:
        check_pictures(where, "teacher output", pictures.teacher, pictures.source)


def _cosine(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    from torch.nn.functional import cosine_similarity

    return cosine_similarity(a.double(), b.double(), dim=1).tolist()


def _mean(column: Sequence[float]) -> float:
    return sum(column) / len(column)
