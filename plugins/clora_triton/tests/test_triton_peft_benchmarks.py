"""The kernel benchmark's arithmetic and verdicts, its providers' agreement, and how PEFT's test report is read."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks are scripts that import one another by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize(
    ("shape", "limits"),
    [
        ((3072, 3072), (1.083, 1.167, 1.125)),
        ((3072, 12288), (1.052, 1.104, 1.078)),
        ((12288, 3072), (1.052, 1.104, 1.078)),
    ],
)
def test_the_flop_limit_of_qwen_image_at_rank_128(shape: tuple[int, int], limits: tuple[float, float, float]) -> None:
    from kernel_cases import Case

    case = Case("x", *shape, rows=4096, rank=128, adapters=1, dtype=torch.bfloat16)
    assert [round(case.flop_limit(part), 3) for part in ("forward", "backward", "both")] == list(limits)


def test_three_adapters_take_contiguous_parts_of_the_batch() -> None:
    from kernel_cases import Case

    case = Case("x", 4, 4, rows=80, rank=2, adapters=3)
    assert case.parts == [3, 3, 2]
    assert case.names == sorted(case.names)
    assert len(case.names) == case.batch


@pytest.mark.parametrize("adapters", [1, 3])
def test_all_providers_compute_the_same(adapters: int) -> None:
    from kernel_cases import Case
    from kernel_providers import Weights, providers

    case = Case("x", 24, 40, rows=48, rank=3, adapters=adapters)
    torch.manual_seed(0)
    x, dy = torch.randn(8, 6, 24, requires_grad=True), torch.randn(8, 6, 40)
    found: dict[str, list[torch.Tensor]] = {}
    for each in providers(case, Weights.of(case, "cpu"), compiled=False):
        y = each.forward(x)
        found[each.name] = [y, *torch.autograd.grad(y, [x, *each.parameters], dy)]
    frozen, plain = found.pop("frozen"), found.pop("PEFT")
    assert not torch.allclose(frozen[0], plain[0], atol=0.01)
    assert set(found) == {"addmm_", "eager", "ours", "PEFT with ours"}
    for tensors in found.values():
        for value, expected in zip(tensors, plain, strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


def rows(ours: float, three: float, masters: float = 2.0) -> list[dict[str, str]]:
    times = {"frozen": 1.0, "PEFT": 1.5, "PEFT, fp32 adapters": masters, "addmm_": 1.25, "ours": ours}
    made: list[dict[str, str]] = []
    for adapters, taken in (("1", times), ("3", {**times, "ours": three})):
        for provider, value in taken.items():
            case = {"shape": "attention", "rows": "4096", "rank": "128", "adapters": adapters, "part": "both"}
            made.append({**case, "provider": provider, "median_ms": str(value), "p80_ms": str(value * 1.1)})
            made[-1] |= {"flop_limit": "1.125", "p20_ms": str(value * 0.9)}
    return made


def test_targets_are_met_or_missed_by_how_much(capsys: pytest.CaptureFixture[str]) -> None:
    from kernel_targets import report, targets

    assert report(list(targets(rows(1.15, 1.16)))) == 0
    assert "8 of 8 targets met" in capsys.readouterr().out
    assert report(list(targets(rows(1.298, 1.16)))) == 1
    told = capsys.readouterr().out
    assert (
        "attention, 4096 rows, rank 128, 1 adapter: over frozen: 1.298, wanted at most 1.180: missed by 10.0%" in told
    )
    assert report(list(targets(rows(1.15, 1.2)))) == 1
    assert "3 adapters: over one adapter: 1.043, wanted at most 1.020: missed by 2.3%" in capsys.readouterr().out
    assert report([]) == 1


def test_the_plot_is_a_drawing_with_every_provider() -> None:
    from kernel_plot import plot

    drawn = ElementTree.fromstring(plot(rows(1.15, 1.16)))
    told = [text.text or "" for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"PEFT", "PEFT, fp32 adapters", "addmm_", "ours"} <= set(told)
    assert told.count("1.15") == 1
    assert told.count("1.50") == 2


def test_a_test_that_lacks_its_model_did_not_fail(tmp_path: Path) -> None:
    from peft_suite import outcomes

    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite>"
        '<testcase classname="a" name="one"/>'
        '<testcase classname="a" name="two"><failure message="assert 1 == 2">text</failure></testcase>'
        '<testcase classname="a" name="three"><error message="LocalEntryNotFoundError">...</error></testcase>'
        '<testcase classname="a" name="four"><skipped message="no GPU"/></testcase>'
        "</testsuite></testsuites>"
    )
    assert outcomes(report) == {"a::one": "passed", "a::two": "failed", "a::three": "no model", "a::four": "skipped"}


@pytest.mark.parametrize("adapters", [1, 3])
@pytest.mark.parametrize("kind", ["group", "mlp"])
def test_all_providers_of_linears_that_belong_together_compute_the_same(kind, adapters: int) -> None:
    from kernel_cases import Case
    from kernel_shared import shared_providers

    case = Case("x", 24, 40, rows=48, rank=3, adapters=adapters, kind=kind)
    torch.manual_seed(0)
    x, dy = torch.randn(8, 6, 24, requires_grad=True), torch.randn(case.answer)
    found: dict[str, list[torch.Tensor]] = {}
    for each in shared_providers(case, "cpu"):
        ys = each.forward(x)
        ys, dys = ([ys], [dy]) if isinstance(ys, torch.Tensor) else (ys, list(dy))
        found[each.name] = [*ys, *torch.autograd.grad(ys, [x, *each.parameters], dys)]
    frozen, plain = found.pop("frozen"), found.pop("PEFT")
    assert not torch.allclose(frozen[0], plain[0], atol=0.01)
    assert set(found) == {"eager", "one by one", "ours", "PEFT with ours"}
    for tensors in found.values():
        for value, expected in zip(tensors, plain, strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)
