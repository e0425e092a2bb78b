"""The over-saturation alarm: silent in healthy runs, plain words in bad ones."""

from __future__ import annotations

import pytest
from clora_dmd.dmd import Dmd

from clora.api import Alarms


def course(updates: int = 40, **ends: float) -> dict[str, list[tuple[float, float]]]:
    """Values that are 2.0 in the first three quarters and `ends` in the last, with an outlier among them."""
    made = {}
    for name, end in ends.items():
        values = [2.0 if 4 * i < 3 * updates else end for i in range(updates)]
        values[-1] = 300.0 if end > 1 else -300.0
        made[name.replace("__", ".")] = [((i + 1) / updates, value) for i, value in enumerate(values)]
    return made


@pytest.mark.parametrize("student", [0.98, 0.99, 1.0, 1.015])
@pytest.mark.parametrize("critic", [0.92, 0.95, 0.98, 1.05])
def test_a_healthy_run_has_no_alarm(student, critic):
    assert list(Dmd("target").alarms(course(contrast_student=student, contrast_critic__high=critic))) == []


@pytest.mark.parametrize("student", [1.06, 1.12])
def test_an_over_saturated_student_is_told_with_what_helps(student):
    (told,) = Dmd("target").alarms(course(contrast_student=student, contrast_critic__high=0.95))
    assert told.startswith(f"the student is over-saturated: in the last quarter of the run its contrast was {student}")
    assert all(word in told for word in ("critic.updates", "warm_start", "student.shift"))


@pytest.mark.parametrize("critic", [0.8, 0.84])
def test_a_critic_that_is_behind_at_high_noise_is_told(critic):
    (told,) = Dmd("target").alarms(course(contrast_student=1.0, contrast_critic__high=critic))
    assert told.startswith("the critic is behind the student")
    assert f"{critic:.2f} times" in told
    assert "critic.own" in told


def test_a_few_values_and_no_values_alarm_nobody():
    assert list(Dmd("target").alarms(course(20, contrast_student=1.2, contrast_critic__high=0.5))) == []
    assert list(Dmd("target").alarms({})) == []
    assert isinstance(Dmd("target"), Alarms)
