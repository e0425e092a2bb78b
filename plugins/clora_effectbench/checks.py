"""What the metrics need of an evaluation, said plainly when it is not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clora.api import CloraError

if TYPE_CHECKING:
    import torch

    from clora.api import EffectPictures, Evaluation, GeneralPictures

SOURCE = "source"


def candidates_of(evaluation: Evaluation) -> tuple[str, ...]:
    """What an output may turn out to be: the evaluated effects in their order, then others whose truth is known.

    Raises ValueError where pictures or truths are missing or differ in shape between candidates, CloraError where they
    are not finite.
    """
    if not evaluation.effects:
        raise ValueError("metric truth: the evaluation holds no effect")
    names = [pictures.effect for pictures in evaluation.effects]
    names += [name for name in evaluation.effects[0].truths if name not in names]
    if SOURCE in names:
        raise ValueError(f"metric truth: no effect may be called {SOURCE!r}, the bleed matrix uses that word")
    for pictures in evaluation.effects:
        _check_effect(pictures, names)
    if evaluation.general is not None:
        _check_general(evaluation.general)
    return tuple(names)


def _check_effect(pictures: EffectPictures, names: Sequence[str]) -> None:
    where = f"metric truth: effect {pictures.effect!r}"
    if not pictures.truths:
        raise ValueError(f"{where} has no truths; this metric needs a dataset that knows the right answer")
    missing = [name for name in names if name not in pictures.truths]
    unlisted = [name for name in pictures.truths if name not in names]
    if missing or unlisted:
        differences = {"lacks": missing, "adds": unlisted}
        told = "; ".join(f"{word} {', '.join(found)}" for word, found in differences.items() if found)
        raise ValueError(f"{where} must know the same truths as the others: it {told}")
    check_pictures(where, "student output", pictures.student, pictures.source)
    if pictures.teacher is not None:
        check_pictures(where, "teacher output", pictures.teacher, pictures.source)
    for i, draw in enumerate(() if pictures.draws is None else pictures.draws):
        check_pictures(where, f"draw {i}", draw, pictures.source)
    if pictures.draws is not None and len(pictures.draws) < 2:
        raise ValueError(f"{where} has {len(pictures.draws)} draws; at least 2 are compared with one another")
    for name, truth in pictures.truths.items():
        check_pictures(where, f"truth of {name!r}", truth, pictures.source)


def _check_general(general: GeneralPictures) -> None:
    where = "metric truth: the general pictures"
    if general.truth is None:
        raise ValueError(f"{where} have no truth; this metric needs a dataset that knows the right answer")
    check_pictures(where, "student output", general.student, general.source)
    check_pictures(where, "base output", general.base, general.source)
    check_pictures(where, "truth", general.truth, general.source)


def check_pictures(where: str, what: str, pictures: torch.Tensor, source: torch.Tensor) -> None:
    """Raise ValueError for pictures [N, 3, H, W] of another shape than their sources, CloraError where not finite."""
    if pictures.ndim != 4 or len(pictures) == 0:
        raise ValueError(f"{where}: the {what} must be [N, 3, H, W] with N > 0, not {list(pictures.shape)}")
    if pictures.shape != source.shape:
        raise ValueError(f"{where}: the {what} is {list(pictures.shape)}, its sources are {list(source.shape)}")
    # Every comparison with NaN is false, which would count a broken picture as a success.
    if not pictures.isfinite().all():
        raise CloraError(
            f"{where}: the {what} holds numbers that are not finite; a student that does so diverged, which a lower "
            "`train.lr` may help, and a teacher that does so is scaled too far"
        )
