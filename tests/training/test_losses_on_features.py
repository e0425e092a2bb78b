"""A discriminator on features in whole cycles of the emoji world: who learns, what it costs, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from two_effects import TwoEffects

from clora.errors import CloraError
from clora.planning.cost import count
from clora.runs.files.steps import read_steps

#: between a student's cycle and a whole one
ON_CRITIC = "losses.gan={use: gan, simulation: backward, sees: critic, width: 8, weight: 0.5}"
ON_TEACHER = "losses.gan={use: gan, simulation: backward, sees: teacher, depth: 1.0, width: 8, weight: 0.5}"
SMALL = TwoEffects(("warm_start=null",))


def test_it_costs_a_forward_there_and_one_there_and_back_for_every_effect_row() -> None:
    plain, judged = (count(SMALL.plan(*sets)).forward_equivalents for sets in ((), (ON_CRITIC,)))
    share = 0.5  # of the rows that are an effect's
    assert judged - plain == pytest.approx((3 + 1) * share, abs=0.35)


@pytest.mark.slow
@pytest.mark.parametrize("sets", [ON_CRITIC, ON_TEACHER])
def test_a_run_trains_with_it_and_resumes_to_the_last_bit(tmp_path: Path, sets: str) -> None:
    whole = SMALL.run(tmp_path / "whole", sets)
    reports = read_steps(whole.steps).reports
    assert all(report.logs["gan.modules.grad_norm"] > 0 for report in reports if "gan" in report.losses)
    assert any("gan" in report.losses for report in reports)
    again = SMALL.run(tmp_path / "again", sets)
    assert [report.losses for report in read_steps(again.steps).reports] == [report.losses for report in reports]


def test_the_critic_learns_nothing_from_the_students_update(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from clora.training.trainer import Trainer

    update, seen = Trainer.update, []

    def watched(self: Trainer, number: int, step: Any, terms: Any) -> dict[str, float]:
        logs = update(self, number, step, terms)
        if step.phase == "student" and "gan" in terms:
            grad = self.critics["critic"].adapter.flat_grad
            assert grad is not None
            seen.append(float(grad.abs().sum()))
        return logs

    monkeypatch.setattr(Trainer, "update", watched)
    SMALL.run(tmp_path, ON_CRITIC)
    assert seen
    assert not any(seen)


def test_a_backbone_without_features_is_told_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clora.training.owned.feature_width", lambda backbone: None)
    monkeypatch.setattr("clora.planning.cost.feature_width", lambda backbone: None)
    with pytest.raises(CloraError, match=r"losses\.gan .*sees: critic needs a backbone that shows its features"):
        count(SMALL.plan(ON_CRITIC))
    assert torch.is_grad_enabled()
