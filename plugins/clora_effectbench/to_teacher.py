"""The metric `to_teacher`: how near the student comes to its teachers' pictures, where the truth is unknown.

README.md beside this file gives every formula.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from clora.api import CloraError, Matrix, Measured, Quantity, between
from clora_effectbench.checks import SOURCE, check_pictures
from clora_effectbench.distances import judge, shrunk, squared_distance
from clora_effectbench.words import NEAREST, described

if TYPE_CHECKING:
    import torch

    from clora.api import EffectPictures, Evaluation, GeneralPictures, Metric

_QUANTITIES = {
    "to_teacher": Quantity("lower", headline=True),
    "undone_rate": Quantity("lower", unit="%", headline=True),
    "general_drift": Quantity("lower", headline=True),
}
NO_TEACHER = "the student is compared with its teachers' pictures, which are not made; set `evaluate.teacher: true`"


@frozen
class ToTeacherMetric:
    """Distance to the teacher's pictures, what was left undone, bleed between teachers, drift of the general stream."""

    #: the most pixels of the shorter side at which pictures are compared
    size: int = field(default=256, validator=between(8, 8192))

    def check_evaluation(self, teacher: bool, others: Sequence[Metric]) -> Iterable[str]:
        """A sentence where the teachers' pictures will not be made."""
        if not teacher:
            yield NO_TEACHER

    def measure(self, evaluation: Evaluation) -> Measured:
        """Measure every effect; CloraError without teachers' pictures, ValueError for pictures that do not fit."""
        if not evaluation.effects:
            raise ValueError("metric to_teacher: the evaluation holds no effect")
        effects = [self._shrunk(pictures) for pictures in evaluation.effects]
        scores = {pictures.effect: _scores(pictures) for pictures in effects}
        values = {
            name: _mean([score for columns in scores.values() for score in columns[name]])
            for name in ("to_teacher", "undone_rate")
        }
        if evaluation.general is not None:
            values |= _drift(evaluation.general, self.size)
        shared = _on_the_same_sources(effects)
        done = f"{1 - values['undone_rate']:.0%} of the test pictures"
        per_effect = {
            effect: {name: _mean(column) for name, column in columns.items()} for effect, columns in scores.items()
        }
        return Measured(
            values=values,
            quantities=described(_QUANTITIES, values, per_effect),
            per_effect=per_effect,
            per_picture=scores,
            matrices={"nearest_teacher": _bleed(shared)} if len(shared) > 1 else {},
            summary=f"{done} come nearer to their teacher's picture than to their source",
        )

    def _shrunk(self, pictures: EffectPictures) -> EffectPictures:
        """The three pictures that are compared, checked and made small."""
        if pictures.teacher is None:
            raise CloraError(f"metric to_teacher: effect {pictures.effect!r}: {NO_TEACHER}")
        where = f"metric to_teacher: effect {pictures.effect!r}"
        check_pictures(where, "student output", pictures.student, pictures.source)
        check_pictures(where, "teacher output", pictures.teacher, pictures.source)
        return evolve(
            pictures,
            source=shrunk(pictures.source, self.size),
            student=shrunk(pictures.student, self.size),
            teacher=shrunk(pictures.teacher, self.size),
            truths={},
        )


def _teacher(pictures: EffectPictures) -> torch.Tensor:
    assert pictures.teacher is not None  # checked when the pictures were made small
    return pictures.teacher


def _scores(pictures: EffectPictures) -> dict[str, list[float]]:
    """Both columns of one effect, a number for each picture; CloraError where its teacher changes nothing at all."""
    teacher = _teacher(pictures)
    scale = float(squared_distance(pictures.source, teacher).mean())
    if scale == 0:
        raise CloraError(
            f"metric to_teacher: the teacher of {pictures.effect!r} leaves every test picture as it is, so there is "
            "nothing to come near to; look at its LoRA, its strength and its prompt, or leave the effect out"
        )
    distance = squared_distance(pictures.student, teacher)
    undone = squared_distance(pictures.student, pictures.source) < distance
    return {"to_teacher": (distance / scale).tolist(), "undone_rate": undone.double().tolist()}


def _mean(column: Sequence[float]) -> float:
    return sum(column) / len(column)


def _drift(general: GeneralPictures, size: int) -> dict[str, float]:
    """How far the student is from the base on general instructions, in the distance that the base goes itself."""
    where = "metric to_teacher: the general pictures"
    check_pictures(where, "student output", general.student, general.source)
    check_pictures(where, "base output", general.base, general.source)
    source, student, base = (shrunk(part, size) for part in (general.source, general.student, general.base))
    went = float(squared_distance(source, base).mean())
    return {"general_drift": float(squared_distance(student, base).mean()) / went} if went > 0 else {}


def _on_the_same_sources(effects: Sequence[EffectPictures]) -> list[EffectPictures]:
    """The largest group of effects that were evaluated on the same pictures, in their order."""
    groups: dict[tuple[str, ...], list[EffectPictures]] = {}
    for pictures in effects:
        groups.setdefault(pictures.names, []).append(pictures)
    return max(groups.values(), key=len)


def _bleed(effects: Sequence[EffectPictures]) -> Matrix:
    """Rows: the effect asked for; columns: the share of its outputs nearest to each teacher's picture of that source.

    Raises ValueError for an effect that is called like the column `source`.
    """
    teachers: Mapping[str, torch.Tensor] = {pictures.effect: _teacher(pictures) for pictures in effects}
    if SOURCE in teachers:
        raise ValueError(f"metric to_teacher: no effect may be called {SOURCE!r}, the bleed matrix uses that word")
    columns = (*teachers, SOURCE)
    rows = []
    for pictures in effects:
        nearest = judge(pictures.student, pictures.effect, {**teachers, SOURCE: pictures.source}).nearest
        rows.append(tuple(count / len(nearest) for count in nearest.bincount(minlength=len(columns)).tolist()))
    return Matrix(tuple(teachers), columns, tuple(rows), note=NEAREST, confusion=True)
