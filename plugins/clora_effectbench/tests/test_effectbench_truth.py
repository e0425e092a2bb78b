"""The metric `truth` against plain loops in float64 and against cases whose numbers are known by hand."""

from __future__ import annotations

import math

import pytest
import torch
from clora_effectbench.truth import TruthMetric

from clora.api import CloraError, EffectPictures, Evaluation, GeneralPictures, Measured

NAMES = ("invert", "flip", "dim")


def truths_of(source: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"invert": -source, "flip": source.flip(-1), "dim": source * 0.5 - 0.4}


def sources(seed: int, count: int = 5) -> torch.Tensor:
    return torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def effect(
    name: str, source: torch.Tensor, student: torch.Tensor, teacher: torch.Tensor | None = None
) -> EffectPictures:
    names = tuple(f"subject-{i}" for i in range(len(source)))
    return EffectPictures(name, names, source, student, teacher, truths_of(source))


def measure(*effects: EffectPictures, general: GeneralPictures | None = None) -> Measured:
    return TruthMetric().measure(Evaluation(effects, general))


def d(a: torch.Tensor, b: torch.Tensor) -> float:
    total = 0.0
    for x, y in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True):
        total += (x - y) ** 2
    return total / a.numel()


def by_hand(pictures: EffectPictures, output: torch.Tensor) -> tuple[list[float], list[bool], list[str], list[float]]:
    """Distances, bad cases, what came and scores, written down a second time and differently."""
    distances, bads, came, scores = [], [], [], []
    truth = pictures.truths[pictures.effect]
    count = len(truth)
    middle = truth.double().sum(0) / count
    variance = sum(d(truth[i].double(), middle) for i in range(count)) / (count - 1)
    for i in range(count):
        own = d(output[i].double(), truth[i].double())
        best, best_name = own, pictures.effect
        for name in (*NAMES, "source"):
            candidate = pictures.source if name == "source" else pictures.truths[name]
            other = d(output[i].double(), candidate[i].double())
            if other < best:
                best, best_name = other, name
        distances.append(own)
        bads.append(best_name != pictures.effect)
        came.append(best_name)
        scores.append(0.0 if bads[-1] else 1 + 4 * max(0.0, 1 - own / variance))
    return distances, bads, came, scores


def noisy(source: torch.Tensor, name: str, seed: int, amount: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    others = torch.stack([*truths_of(source).values(), source])
    weight = torch.rand(len(others), len(source), 1, 1, 1, generator=generator) * amount
    return (truths_of(source)[name] + (weight * others).sum(0)) / (1 + weight.sum(0))


def test_agrees_with_plain_loops():
    pictures = [
        effect(name, s := sources(i, 4 + i), noisy(s, name, 7 + i, 6.0), noisy(s, name, 70 + i, 0.4))
        for i, name in enumerate(NAMES)
    ]
    found = measure(*pictures)
    for prefix, outputs in (("", [p.student for p in pictures]), ("teacher_", [p.teacher for p in pictures])):
        hand = [by_hand(p, o) for p, o in zip(pictures, outputs, strict=True) if o is not None]
        every = [[value for h in hand for value in h[k]] for k in (0, 1, 3)]
        for key, column in zip(("distance", "bad_case_rate", "subject_consistency"), every, strict=True):
            assert found.values[prefix + key] == pytest.approx(sum(column) / len(column), rel=1e-9)
    assert 0 < found.values["bad_case_rate"] < 1, "the case must show both kinds"
    bleed = found.matrices["bleed"]
    assert bleed.columns == (*NAMES, "source")
    for row, p in zip(bleed.values, pictures, strict=True):
        distances, bads, came, scores = by_hand(p, p.student)
        assert row == pytest.approx([came.count(name) / len(came) for name in bleed.columns])
        assert sum(row) == pytest.approx(1)
        mine = found.per_effect[p.effect]
        assert mine["bad_case_rate"] == pytest.approx(sum(bads) / len(bads))
        assert mine["distance"] == pytest.approx(sum(distances) / len(distances))
        assert mine["consistency"] == pytest.approx(sum(scores) / len(scores))
        assert set(mine) >= {"teacher_bad_case_rate", "teacher_distance"}


def test_the_truth_itself_is_perfect():
    found = measure(*(effect(n, s := sources(i), truths_of(s)[n]) for i, n in enumerate(NAMES)))
    assert found.values == {"bad_case_rate": 0, "distance": 0, "subject_consistency": 5}
    for i, row in enumerate(found.matrices["bleed"].values):
        assert row == tuple(float(j == i) for j in range(4))


def test_doing_nothing_bleeds_into_the_source():
    found = measure(*(effect(n, s := sources(i), s) for i, n in enumerate(NAMES)))
    assert found.values["bad_case_rate"] == 1
    assert found.values["subject_consistency"] == 0
    assert found.matrices["bleed"].values == ((0, 0, 0, 1),) * 3


def test_the_worst_picture_of_every_effect_is_shown():
    s = sources(0)
    t = truths_of(s)
    dim, flip = t["dim"].clone(), t["flip"].clone()
    dim[3] += 0.5
    flip[1] -= 0.5
    worst = measure(effect("dim", s, dim), effect("flip", s, flip)).grids["worst"]
    names = effect("dim", s, dim).names
    assert worst.subjects == (f"dim on {names[3]}", f"flip on {names[1]}")
    assert worst.rows["student"].equal(torch.stack([dim[3], flip[1]]))
    assert worst.rows["truth"].equal(torch.stack([t["dim"][3], t["flip"][1]]))
    assert worst.rows["source"].equal(s[[3, 1]])


def test_swapped_effects_lie_off_the_diagonal():
    s = sources(0)
    t = truths_of(s)
    found = measure(effect("invert", s, t["flip"]), effect("flip", s, t["invert"]), effect("dim", s, t["dim"]))
    assert found.matrices["bleed"].values == ((0, 1, 0, 0), (1, 0, 0, 0), (0, 0, 1, 0))
    assert found.values["bad_case_rate"] == pytest.approx(2 / 3)


def test_a_tie_with_the_asked_truth_is_no_bad_case():
    s = sources(0)
    symmetric = (s + s.flip(-1)) / 2
    found = measure(effect("flip", symmetric, symmetric))
    assert found.values["bad_case_rate"] == 0


def test_the_mean_truth_keeps_no_subject():
    s = sources(3, 40)
    truth = truths_of(s)["dim"]
    found = measure(effect("dim", s, truth.mean(0, keepdim=True).expand_as(truth)))
    good = 1 - found.values["bad_case_rate"]
    assert found.values["subject_consistency"] == pytest.approx(good, abs=0.35)


def test_general_distances_and_their_ratio():
    s = sources(1)
    general = GeneralPictures(("dim",) * 5, s, student=s + 0.2, base=s - 0.1, truth=s)
    found = measure(effect("dim", s, s), general=general)
    assert found.values["general_distance"] == pytest.approx(0.04, rel=1e-5)
    assert found.values["general_distance_base"] == pytest.approx(0.01, rel=1e-5)
    assert found.values["general_ratio"] == pytest.approx(4, rel=1e-5)
    better = {name: found.quantity(name).better for name in found.values}
    assert {name for name in better if better[name] == "higher"} == {"subject_consistency"}
    assert None not in better.values()
    base = found.quantity("general_distance_base").reference
    assert base is not None
    assert (base.who, base.of) == ("base", "general_distance")
    headlines = [name for name, quantity in found.quantities.items() if quantity.headline]
    assert headlines == ["bad_case_rate", "subject_consistency", "distance", "general_ratio"]
    assert found.quantity("bad_case_rate").unit == "%"
    assert found.summary == "0% of the test pictures show the effect that was asked for"
    perfect = measure(effect("dim", s, s), general=GeneralPictures(("dim",) * 5, s, s, s, s))
    assert "general_ratio" not in perfect.values


def test_teacher_columns_only_where_every_effect_has_a_teacher():
    s = sources(1)
    t = truths_of(s)
    found = measure(effect("dim", s, s, t["dim"]), effect("flip", s, s))
    assert "teacher_distance" not in found.values
    assert found.per_effect["dim"]["teacher_bad_case_rate"] == 0
    assert "teacher_distance" not in found.per_effect["flip"]


def test_one_picture_has_no_subject_consistency():
    s = sources(1, 1)
    found = measure(effect("dim", s, s))
    assert set(found.values) == {"bad_case_rate", "distance"}
    assert all(math.isfinite(v) for v in found.values.values())


def test_large_pictures_in_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch):
    s = sources(5, 7)
    pictures = effect("flip", s, noisy(s, "flip", 3, 6.0))
    whole = measure(pictures)
    monkeypatch.setattr("clora_effectbench.distances._CHUNK", 200)
    assert measure(pictures) == whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"truths": {}}, "'flip' has no truths"),
        ({"truths": {"flip": sources(0)}}, "lacks invert, dim"),
        ({"student": sources(0)[:2]}, "student output is [2, 3, 6, 6]"),
        ({"student": sources(0) * math.nan}, "student output holds numbers that are not finite"),
        ({"teacher": sources(0) / 0}, "teacher output holds numbers that are not finite"),
        ({"effect": "source"}, "no effect may be called 'source'"),
    ],
)
def test_what_is_missing_is_named(change: dict, words: str):
    import attrs

    s = sources(0)
    broken = attrs.evolve(effect("flip", s, s), **change)
    with pytest.raises((ValueError, CloraError)) as caught:  # the words are compared below
        measure(effect("invert", s, s), broken)
    assert words in str(caught.value)


def test_nothing_to_measure_is_said():
    with pytest.raises(ValueError, match="holds no effect"):
        measure()
    s = sources(0)
    with pytest.raises(ValueError, match="general pictures have no truth"):
        measure(effect("dim", s, s), general=GeneralPictures(("x",) * 5, s, s, s, None))


def test_the_plugin_registers_it_without_torch():
    import subprocess
    import sys

    code = "import sys, clora_effectbench as p; print([c.name for c in p.clora_metrics()], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['truth', 'to_teacher', 'similarity'] False"
