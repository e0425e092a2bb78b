"""The shift of the student's few-step schedule: the recipe's number, or what belongs to the number of tokens.

The same noise level hides more of few tokens than of many. With `student.shift: null` the backbone's own rule says
which shift its pictures take; everything that reads the shift (training draws, the few steps, tau, the exported
sampler) gets it from here. A plan's recipe holds the number, so that a run keeps the one it was begun with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clora.contracts.backbone import ShiftsByTokens, TokenShift
from clora.contracts.data import StatesSize
from clora.diffusion.flow import PAPER_SHIFT, SHIFT, Schedule
from clora.errors import CloraError, quoted, reason

if TYPE_CHECKING:
    from clora.config.schema import Recipe, Student

#: levels of a schedule that are told
MOST_TOLD = 10


def shift_of(student: Student, backbone: Any, dataset: Any) -> TokenShift:
    """The shift and what it follows from; of a backbone without a rule of its own the paper's, 3.

    The pictures' size is what the dataset's keys state: one number for a run, whatever shapes the pictures had before.
    Raises CloraError where the rule needs a size that is not stated, gives no number from 0.01 to 100, or fails.
    """
    if student.shift is not None:
        return TokenShift(student.shift, "the recipe's own")
    if not isinstance(backbone, ShiftsByTokens):
        return TokenShift(PAPER_SHIFT, "the paper's: the backbone has no rule of its own")
    try:
        size = dataset.stated_size() if isinstance(dataset, StatesSize) else None
        found = backbone.shift_for(size)
    except CloraError as error:
        raise CloraError(
            f"null takes the shift that the backbone's rule gives: {error}; or give a number here"
        ) from None
    except Exception as error:  # a plugin's own code, which may raise anything
        asked = "asking the dataset's stated_size and the backbone's shift_for"
        raise CloraError(f"{asked} raised {type(error).__name__}: {reason(error)}; or give a number here") from error
    if found is None:
        raise CloraError(_no_size(dataset))
    if not isinstance(found, TokenShift):
        raise CloraError(f"the backbone's shift_for must give a TokenShift or None, not {quoted(type(found).__name__)}")
    if not SHIFT.low <= found.shift <= SHIFT.high:  # NaN is not within them either
        raise CloraError(
            f"null takes the shift that the backbone's rule gives, {found.shift:g} ({found.reason}), which must be "
            f"{SHIFT}: give a number here"
        )
    return found


def _no_size(dataset: Any) -> str:
    rule = (
        "null takes the shift that belongs to the number of tokens, and this backbone's rule needs the pictures' size"
    )
    if isinstance(dataset, StatesSize):
        return f"{rule}, which the dataset does not state: give dataset.size, or a number here, such as 3"
    return f"{rule}, which this dataset has no way to state: give a number here, such as 3"


def student_shift(recipe: Recipe) -> float:
    """The shift of a recipe's few-step schedule. Raises CloraError as `shift_of`."""
    return shift_of(recipe.student, recipe.backbone, recipe.dataset).shift


def few_steps(recipe: Recipe) -> Schedule:
    """The student's noise levels. Raises CloraError as `shift_of`."""
    return Schedule.shifted(recipe.student.steps, student_shift(recipe))


def told(shift: TokenShift, steps: int) -> str:
    """A few-step schedule in one line: its shift, what that follows from, and its levels in thousandths."""
    levels = [f"{1000 * sigma:.4g}" for sigma in Schedule.shifted(steps, shift.shift).sigmas]
    shown = levels if len(levels) <= MOST_TOLD else [*levels[: MOST_TOLD - 2], "...", levels[-1]]
    return f"shift {shift.shift:.4g} ({shift.reason}), {steps} level{'s' * (steps != 1)}: {' '.join(shown)}"
