"""PDSR: frequencies, holding, purity, mistakes."""

from __future__ import annotations

from collections import Counter
from math import sqrt

import pytest
from clora_pdsr import clora_routers
from clora_pdsr.router import Pdsr

from clora.api import Route, StepRng

EFFECTS = ("ash", "glow", "ink", "wool")
DRAWS = StepRng(seed=7)


def routes(router: Pdsr, steps: int, rows: int = 4, rng: StepRng = DRAWS) -> list[Route]:
    return [router.route(rng.at(step), rows, EFFECTS) for step in range(steps)]


def test_pdsr_registers_itself():
    assert [(c.name, c.load()) for c in clora_routers()] == [("pdsr", Pdsr)]


@pytest.mark.parametrize("per", ["row", "batch"])
@pytest.mark.parametrize("p_switch", [0.2, 0.5, 0.9])
def test_pdsr_stream_frequency_is_p_switch_and_effects_are_uniform(per, p_switch):
    steps, rows = 2000, 4
    drawn = [row for route in routes(Pdsr(p_switch=p_switch, per=per), steps, rows) for row in route.rows]
    independent = steps * rows if per == "row" else steps
    effect = [row.effect for row in drawn if row.stream == "effect"]
    share = len(effect) / len(drawn)
    assert abs(share - p_switch) < 4 * sqrt(p_switch * (1 - p_switch) / independent)
    counts = Counter(effect)
    assert set(counts) == set(EFFECTS)
    for count in counts.values():
        assert abs(count / len(effect) - 0.25) < 4 * sqrt(0.25 * 0.75 / (independent * p_switch))


def test_pdsr_rows_are_drawn_apart_and_a_batch_together():
    assert any(len(set(route.rows)) > 1 for route in routes(Pdsr(per="row"), 20))
    assert all(len(set(route.rows)) == 1 for route in routes(Pdsr(per="batch"), 50))
    assert len({route.rows[0] for route in routes(Pdsr(per="batch"), 50)}) > 2


def test_pdsr_rows_do_not_influence_one_another_along_the_batch():
    router = Pdsr()
    few, many = router.route(DRAWS, 3, EFFECTS), router.route(DRAWS, 8, EFFECTS)
    assert not Counter(few.rows) - Counter(many.rows)


def test_pdsr_holds_a_draw_for_hold_steps():
    held = routes(Pdsr(hold_steps=20), 60)
    assert all(held[step] == held[step // 20 * 20] for step in range(60))
    assert held[0] != held[20] or held[20] != held[40]
    assert held[20] == Pdsr().route(DRAWS.at(20), 4, EFFECTS)


def test_pdsr_route_is_pure_and_differs_between_ranks_and_seeds():
    router = Pdsr()
    assert routes(router, 30) == list(reversed([router.route(DRAWS.at(s), 4, EFFECTS) for s in reversed(range(30))]))
    assert routes(router, 30) != routes(router, 30, rng=StepRng(seed=7, rank=1))
    assert routes(router, 30) != routes(router, 30, rng=StepRng(seed=8))


def test_pdsr_route_is_ordered_general_rows_first():
    for route in routes(Pdsr(), 30, rows=9):
        assert route == Route.ordered(route.rows)


def test_pdsr_p_switch_one_has_no_general_rows_and_zero_no_effects():
    assert all(row.stream == "effect" for route in routes(Pdsr(p_switch=1), 300) for row in route.rows)
    assert all(row.stream == "general" for row in Pdsr(p_switch=0).route(DRAWS, 8, ()).rows)


def test_pdsr_without_effects_says_so():
    with pytest.raises(ValueError, match="no effects"):
        Pdsr().route(DRAWS, 1, ())


@pytest.mark.parametrize("wrong", [{"p_switch": -0.1}, {"p_switch": 1.1}, {"hold_steps": 0}, {"per": "rank"}])
def test_pdsr_bounds(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Pdsr(**wrong)
