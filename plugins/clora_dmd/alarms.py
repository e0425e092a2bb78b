"""The over-saturation alarm: when the monitors of a finished run say that its contrast was driven outwards.

Measured on the emoji world: the slope of over-contrasted students on the true effect pictures was 1.06 to 1.12
and that of their critics at high noise 0.80 to 0.84 (updates 40 to 80). In healthy runs of 150 to 240 updates, started
warm, the medians on the teacher over the last quarter were 0.98 to 1.01 and 0.92 to 0.98.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

#: the slope of the student on the teacher from which its contrast counts as too high
STUDENT_ABOVE = 1.05
#: the slope of the critic at high noise below which it counts as behind
CRITIC_BELOW = 0.88
#: the share of the run, at its end, that is judged, and the values that it needs
LAST, FEWEST = 0.25, 8
_HELP = "what helps: more critic updates (critic.updates), a warm start (warm_start), a lower student.shift"


def saturation(course: Mapping[str, Sequence[tuple[float, float]]]) -> Iterable[str]:
    """A sentence for a student whose contrast is too high at the end, and one for a critic that is behind.

    `course` has (progress in (0, 1], value) by the name of a log, as `monitors.logs` gives them.
    """
    student, critic = (_end(course.get(name, ())) for name in ("contrast_student", "contrast_critic.high"))
    if student is not None and student > STUDENT_ABOVE:
        yield (
            f"the student is over-saturated: in the last quarter of the run its contrast was {student:.2f} times the "
            f"teacher's; {_HELP}"
        )
    if critic is not None and critic < CRITIC_BELOW:
        yield (
            f"the critic is behind the student: in the last quarter of the run its contrast at high noise was "
            f"{critic:.2f} times the teacher's, which drives the student's contrast outwards; {_HELP}, or a critic of "
            "this simulation's own (critic.own)"
        )


def _end(values: Sequence[tuple[float, float]]) -> float | None:
    """The median over the end of the run: rows whose teacher is almost flat have slopes of any size."""
    last = [value for progress, value in values if progress > 1 - LAST]
    return median(last) if len(last) >= FEWEST else None
