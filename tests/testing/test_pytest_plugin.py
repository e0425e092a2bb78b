"""The fixtures that a stranger's tests get with clora, in test suites of their own."""

from __future__ import annotations

import pytest

from clora.testing.heavy_imports import heavy_imports


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty test suite in a project without a configuration of its own."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return pytester


@pytest.mark.slow
def test_pytest_finds_the_fixtures_and_imports_nothing_that_computes(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import sys

        def test_light(request):
            assert request.config.pluginmanager.hasplugin("clora")
            assert not {"torch", "diffusers", "peft", "transformers", "numpy"} & set(sys.modules)
        """
    )
    suite.runpytest_subprocess().assert_outcomes(passed=1)
    assert heavy_imports("clora.testing.pytest_plugin") == ""
    told = suite.runpytest_subprocess("--fixtures").stdout.str()
    assert "clora_step" in told
    assert "clora_world" in told


@pytest.mark.slow
def test_the_step_has_the_rows_that_were_asked_for(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest
        from clora.api import Row

        def test_step(clora_step):
            step = clora_step(["ink", None, Row("effect", "wool")], phase="critic", steps=2)
            assert step.route.rows == (Row("effect", "ink"), Row("general"), Row("effect", "wool"))
            assert step.phase == "critic"
            assert step.targets.shape == (3, 3, 4, 4)
            assert step.targets.equal(clora_step(["ink", None, "wool"]).targets)
            assert not step.targets.equal(clora_step(["ink", None]).targets)

        def test_no_row(clora_step):
            with pytest.raises(TypeError):
                clora_step(3)
        """
    )
    suite.runpytest_subprocess().assert_outcomes(passed=2)


@pytest.mark.slow(7)
def test_a_component_is_trained_for_two_updates(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import math
        import pytest
        from clora.api import CloraError

        MINE = {"mine": {"use": "velocity_matching", "streams": ["general"], "weight": 0.5}}

        def test_trains(clora_world, tmp_path):
            reports = clora_world.train(losses=MINE)
            assert [report.step for report in reports] == [1, 2]
            assert all(math.isfinite(value) for report in reports for value in report.losses.values())
            assert "mine" in {name for report in reports for name in report.losses}
            again = clora_world.train(losses=MINE)
            assert [report.losses for report in again] == [report.losses for report in reports]
            assert len(list(tmp_path.iterdir())) == 2

        def test_a_mistake_is_told_with_its_place(clora_world):
            with pytest.raises(CloraError, match="mine.yaml:.*velocity_matchin"):
                clora_world.train(losses={"mine": "velocity_matchin"})
        """
    )
    suite.runpytest_subprocess().assert_outcomes(passed=2)
