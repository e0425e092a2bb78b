"""The metric `to_teacher` against plain loops in float64 and against cases whose numbers are known by hand."""

from __future__ import annotations

import math

import attrs
import pytest
import torch
from clora_effectbench.distances import shrunk
from clora_effectbench.to_teacher import ToTeacherMetric

from clora.api import CloraError, EffectPictures, Evaluation, GeneralPictures, Measured


def random(seed: int, count: int = 5, side: int = 6) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def effect(
    name: str, source: torch.Tensor, student: torch.Tensor, teacher: torch.Tensor | None, kind: str = "test"
) -> EffectPictures:
    return EffectPictures(name, tuple(f"{kind}-{i}" for i in range(len(source))), source, student, teacher, {})


def measure(*effects: EffectPictures, general: GeneralPictures | None = None, size: int = 256) -> Measured:
    return ToTeacherMetric(size).measure(Evaluation(effects, general))


def d(a: torch.Tensor, b: torch.Tensor) -> float:
    pairs = zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)
    return sum((x - y) ** 2 for x, y in pairs) / a.numel()


def three() -> list[EffectPictures]:
    """Three effects on the same sources whose students mix source, own teacher and another's, in unlike shares."""
    source = random(0)
    teachers = {"invert": -source, "flip": source.flip(-1), "dim": source * 0.5 - 0.4}
    made = []
    for k, (name, teacher) in enumerate(teachers.items()):
        share = torch.rand(3, 5, 1, 1, 1, generator=torch.Generator().manual_seed(9 + k))
        share = share / share.sum(0)
        other = teachers["dim" if name != "dim" else "flip"]
        made.append(effect(name, source, share[0] * source + share[1] * teacher + share[2] * other, teacher))
    return made


def test_agrees_with_plain_loops():
    effects = three()
    found = measure(*effects)
    everything: list[tuple[float, bool]] = []
    matrix = found.matrices["nearest_teacher"]
    assert matrix.columns == ("invert", "flip", "dim", "source")
    for row, e in zip(matrix.values, effects, strict=True):
        scale = sum(d(e.source[i], e.teacher[i]) for i in range(5)) / 5
        hand, came = [], []
        for i in range(5):
            candidates = {other.effect: d(e.student[i], other.teacher[i]) for other in effects}
            candidates["source"] = d(e.student[i], e.source[i])
            hand.append((candidates[e.effect] / scale, candidates["source"] < candidates[e.effect]))
            came.append(min(candidates, key=lambda name: candidates[name]))
        everything += hand
        assert found.per_picture[e.effect]["to_teacher"] == pytest.approx([h[0] for h in hand])
        assert found.per_picture[e.effect]["undone_rate"] == [float(h[1]) for h in hand]
        assert found.per_effect[e.effect]["to_teacher"] == pytest.approx(sum(h[0] for h in hand) / 5)
        assert found.per_effect[e.effect]["undone_rate"] == pytest.approx(sum(h[1] for h in hand) / 5)
        assert row == pytest.approx([came.count(name) / 5 for name in matrix.columns])
    assert found.values["to_teacher"] == pytest.approx(sum(h[0] for h in everything) / 15)
    assert found.values["undone_rate"] == pytest.approx(sum(h[1] for h in everything) / 15)
    assert 0 < found.values["undone_rate"] < 1, "the case must show both kinds"
    assert any(0 < share < 1 for row in matrix.values for share in row), "and mixed rows"
    assert list(found.quantities) == ["to_teacher", "undone_rate"] == list(found.per_picture["flip"])
    assert {quantity.better for quantity in found.quantities.values()} == {"lower"}
    assert found.summary.startswith(f"{1 - found.values['undone_rate']:.0%} of the test pictures come nearer")


def test_the_teacher_itself_is_0_and_nothing_done_is_1():
    source = random(1)
    same = measure(effect("invert", source, -source, -source))
    assert same.values == {"to_teacher": 0, "undone_rate": 0}
    nothing = measure(effect("invert", source, source, -source))
    assert nothing.values["to_teacher"] == pytest.approx(1)
    assert nothing.values["undone_rate"] == 1


def test_one_picture_that_the_teacher_hardly_changes_does_not_decide():
    source = random(1)
    teacher = -source
    teacher[0] = source[0] + 1e-4
    found = measure(effect("invert", source, -source, teacher))
    assert found.values["to_teacher"] < 2, "a ratio picture by picture would be a hundred million here"


def test_swapped_effects_lie_off_the_diagonal():
    source = random(2)
    found = measure(effect("a", source, source.flip(-1), -source), effect("b", source, -source, source.flip(-1)))
    assert found.matrices["nearest_teacher"].values == ((0, 1, 0), (1, 0, 0))


def test_effects_on_other_sources_are_left_out_of_the_matrix():
    here, there = random(2), random(3)
    apart = [effect("a", here, here, -here), effect("b", there, there, -there, kind="other")]
    assert measure(*apart).matrices == {}
    joined = measure(*apart, effect("c", there, there, there.flip(-1), kind="other"))
    assert joined.matrices["nearest_teacher"].rows == ("b", "c")
    assert set(joined.per_effect) == {"a", "b", "c"}


def test_general_drift_is_the_distance_to_the_base_in_what_the_base_did():
    source = random(4)
    one = effect("a", source, source, -source)
    general = GeneralPictures(("x",) * 5, source, student=source + 0.3, base=source + 0.2, truth=None)
    found = measure(one, general=general)
    assert found.values["general_drift"] == pytest.approx(0.25, rel=1e-4)
    assert found.quantity("general_drift").better == "lower"
    still = attrs.evolve(general, base=source)
    assert "general_drift" not in measure(one, general=still).values


def test_large_pictures_are_compared_as_means_of_areas():
    large = random(5, count=2, side=16)[..., :12]
    small = shrunk(large, 3)
    assert small.shape == (2, 3, 4, 3)
    for y in range(4):
        for x in range(3):
            cell = large[:, :, y * 4 : y * 4 + 4, x * 4 : x * 4 + 4].double()
            assert small[:, :, y, x].double() == pytest.approx(cell.mean((2, 3)), abs=1e-6)
    assert shrunk(large, 12) is large


def test_grain_and_a_shift_by_a_pixel_cost_less_where_areas_are_compared():
    coarse = torch.nn.functional.interpolate(random(6, side=8), (64, 64), mode="bicubic").clamp(-1, 1)
    grain = 0.2 * torch.randn(coarse.shape, generator=torch.Generator().manual_seed(7))
    student = (-coarse + grain).roll(1, -1)
    fine, areas = (measure(effect("a", coarse, student, -coarse), size=size).values["to_teacher"] for size in (64, 16))
    assert areas < fine / 3


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"teacher": None}, CloraError, "'b': the student is compared with its teachers' pictures"),
        ({"teacher": random(0)}, CloraError, "the teacher of 'b' leaves every test picture as it is"),
        ({"student": random(0)[:2]}, ValueError, "student output is [2, 3, 6, 6]"),
        ({"student": random(0) * math.nan}, CloraError, "student output holds numbers that are not finite"),
        ({"effect": "source"}, ValueError, "no effect may be called 'source'"),
    ],
)
def test_what_cannot_be_measured_is_named(change: dict, error: type[Exception], words: str):
    source = random(0)
    broken = attrs.evolve(effect("b", source, source, -source), **change)
    with pytest.raises(error) as caught:
        measure(effect("a", source, source, -source), broken)
    assert words in str(caught.value)


def test_the_plan_refuses_it_where_no_teacher_pictures_are_made():
    assert list(ToTeacherMetric().check_evaluation(True, ())) == []
    (sentence,) = ToTeacherMetric().check_evaluation(False, ())
    assert "evaluate.teacher: true" in sentence
