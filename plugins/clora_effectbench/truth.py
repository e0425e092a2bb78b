"""The metric `truth`: numbers about effects whose right answer is known, without a judge model.

README.md beside this file gives every formula.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from clora.api import Matrix, Measured, PictureGrid, Quantity, Reference, Truth
from clora_effectbench.checks import SOURCE, candidates_of
from clora_effectbench.consistency import consistency, subject_variance
from clora_effectbench.distances import Judged, judge, squared_distance
from clora_effectbench.texture import Draws, Texture
from clora_effectbench.words import NEAREST, described

if TYPE_CHECKING:
    import torch

    from clora.api import Dataset, EffectPictures, Evaluation, GeneralPictures

_OWN = {
    "bad_case_rate": Quantity("lower", unit="%", headline=True),
    "subject_consistency": Quantity("higher", headline=True),
    "distance": Quantity("lower", headline=True),
}
_TEXTURE = {
    "texture_spectrum": Quantity("lower", unit="Np"),
    "texture_patches": Quantity("lower", headline=True),
}
_QUANTITIES = {
    **_OWN,
    **_TEXTURE,
    "consistency": Quantity("higher"),
    "general_ratio": Quantity("lower", headline=True),
    "general_distance": Quantity("lower"),
    "general_distance_base": Quantity("lower", reference=Reference("base", "general_distance")),
    **{
        f"teacher_{n}": evolve(q, headline=False, reference=Reference("teacher", n))
        for n, q in (_OWN | _TEXTURE).items()
    },
    **{f"{n}_of_draws": evolve(q, headline=False, reference=Reference("draws", n)) for n, q in _TEXTURE.items()},
}


@frozen
class _Outcome:
    """One effect's outputs by one model: judged, and scored where there are subjects enough to score against."""

    judged: Judged
    scores: torch.Tensor | None
    texture: Texture | None  # of an effect with draws


@frozen
class TruthMetric:
    """Bad cases, bleed, distance and subject consistency against the known truth (the paper's BCR and VSA).

    Texture too, of effects with many right answers.
    """

    def check_dataset(self, dataset: Dataset) -> Iterable[str]:
        """A sentence where the dataset does not know the right answers."""
        if not isinstance(dataset, Truth):
            yield "the dataset does not know how the effects should look; leave this metric out with `metrics: null`"

    def measure(self, evaluation: Evaluation) -> Measured:
        """Measure students, and teachers where there are any; ValueError if the evaluation knows no truths."""
        candidates = candidates_of(evaluation)
        draws = [None if e.draws is None else Draws(e.draws) for e in evaluation.effects]
        effects = list(zip(evaluation.effects, draws, strict=True))
        students = [_outcome(e.student, e, candidates, drawn) for e, drawn in effects]
        teachers = [None if e.teacher is None else _outcome(e.teacher, e, candidates, drawn) for e, drawn in effects]
        values = _means(students, "")
        values |= _textures([each.among_themselves for each in draws if each is not None], "{}_of_draws")
        with_teacher = [outcome for outcome in teachers if outcome is not None]
        # A mean over some of the effects would stand in the table beside one over all of them.
        if len(with_teacher) == len(students):
            values |= _means(with_teacher, "teacher_")
        if evaluation.general is not None:
            values |= _general(evaluation.general)
        names = [e.effect for e in evaluation.effects]
        per_effect = {n: _per_effect(s, t) for n, s, t in zip(names, students, teachers, strict=True)}
        return Measured(
            values=values,
            quantities=described(_QUANTITIES, values, per_effect),
            per_effect=per_effect,
            per_picture={name: _per_picture(student) for name, student in zip(names, students, strict=True)},
            matrices={"bleed": _bleed(names, students, candidates)},
            grids=_worst(evaluation.effects, students),
            summary=f"{1 - values['bad_case_rate']:.0%} of the test pictures show the effect that was asked for",
        )


def _outcome(
    output: torch.Tensor, pictures: EffectPictures, candidates: Sequence[str], draws: Draws | None
) -> _Outcome:
    truths = {name: pictures.truths[name] for name in candidates}
    judged = judge(output, pictures.effect, {**truths, SOURCE: pictures.source})
    variance = subject_variance(truths[pictures.effect])
    scores = None if variance is None else consistency(judged, variance)
    return _Outcome(judged, scores, None if draws is None else draws.distances(output))


def _means(outcomes: Sequence[_Outcome], prefix: str) -> dict[str, float]:
    """Means over all pictures of all effects, as columns of the comparison table."""
    values = {
        f"{prefix}bad_case_rate": _mean([o.judged.bad for o in outcomes]),
        f"{prefix}distance": _mean([o.judged.distance for o in outcomes]),
    }
    scores = [o.scores for o in outcomes if o.scores is not None]
    if len(scores) == len(outcomes):
        values[f"{prefix}subject_consistency"] = _mean(scores)
    found = [outcome.texture for outcome in outcomes if outcome.texture is not None]
    return values | _textures(found, prefix + "{}")


def _textures(found: Sequence[Texture], name: str) -> dict[str, float]:
    """Means over the effects that have draws, called as `name` says; nothing where none has."""
    if not found:
        return {}
    return {
        name.format("texture_spectrum"): sum(each.spectrum for each in found) / len(found),
        name.format("texture_patches"): sum(each.patches for each in found) / len(found),
    }


def _mean(parts: Sequence[torch.Tensor]) -> float:
    return sum(float(part.double().sum()) for part in parts) / sum(len(part) for part in parts)


def _per_effect(student: _Outcome, teacher: _Outcome | None) -> dict[str, float]:
    found = {"bad_case_rate": _mean([student.judged.bad]), "distance": _mean([student.judged.distance])}
    if student.scores is not None:
        found["consistency"] = _mean([student.scores])
    if teacher is not None:
        found["teacher_bad_case_rate"] = _mean([teacher.judged.bad])
        found["teacher_distance"] = _mean([teacher.judged.distance])
    for prefix, outcome in (("", student), ("teacher_", teacher)):
        if outcome is not None and outcome.texture is not None:
            found[f"{prefix}texture_patches"] = outcome.texture.patches
    return found


def _per_picture(student: _Outcome) -> dict[str, list[float]]:
    """The columns of `_per_effect`, a number for each picture."""
    found = {"bad_case_rate": student.judged.bad.double().tolist(), "distance": student.judged.distance.tolist()}
    return found if student.scores is None else found | {"consistency": student.scores.tolist()}


def _bleed(names: Sequence[str], students: Sequence[_Outcome], candidates: Sequence[str]) -> Matrix:
    """Rows: the effect asked for; columns: the share of its outputs nearest to each candidate."""
    columns = (*candidates, SOURCE)
    counts = [outcome.judged.nearest.bincount(minlength=len(columns)).tolist() for outcome in students]
    shares = tuple(tuple(count / sum(row) for count in row) for row in counts)
    return Matrix(tuple(names), columns, shares, note=NEAREST, confusion=True)


def _worst(effects: Sequence[EffectPictures], students: Sequence[_Outcome]) -> dict[str, PictureGrid]:
    """Of every effect the test picture that is farthest from its truth; nothing where pictures differ in size."""
    import torch

    if len({pictures.source.shape[1:] for pictures in effects}) > 1:
        return {}
    at = [int(outcome.judged.distance.argmax()) for outcome in students]
    subjects = tuple(f"{pictures.effect} on {pictures.names[i]}" for pictures, i in zip(effects, at, strict=True))
    worst = list(zip(effects, at, strict=True))
    rows = {
        "source": torch.stack([pictures.source[i] for pictures, i in worst]),
        "truth": torch.stack([pictures.truths[pictures.effect][i] for pictures, i in worst]),
        "student": torch.stack([pictures.student[i] for pictures, i in worst]),
    }
    return {"worst": PictureGrid(subjects, rows, "Of every effect the picture that is farthest from its truth.")}


def _general(general: GeneralPictures) -> dict[str, float]:
    """Distances to the truth of general instructions, student and base; checked before that the truth is there."""
    assert general.truth is not None
    student = _mean([squared_distance(general.student, general.truth)])
    base = _mean([squared_distance(general.base, general.truth)])
    values = {"general_distance": student, "general_distance_base": base}
    if base > 0:  # a base without error leaves nothing to compare with
        values["general_ratio"] = student / base
    return values
