"""Searching the configurations, with a clock of the test's own; run by test_triton_kernels.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from clora_triton import configs, tuning
from clora_triton.choices import Choices
from clora_triton.configs import Config, default, fitting
from clora_triton.op import lora_linear
from kernel_cases import DEVICE

IN, OUT, RANK, ROWS = 24, 40, 3, 10


@pytest.fixture(autouse=True)
def untuned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs, "TUNED", {})
    monkeypatch.setattr(tuning, "TUNED", configs.TUNED)
    monkeypatch.setattr(configs, "_device", lambda device: (132, 227 * 1024))


def linear() -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    draw = lambda *shape: torch.randn(*shape, device=DEVICE)  # noqa: E731
    return draw(ROWS, IN), draw(OUT, IN), [draw(RANK, IN)], [draw(OUT, RANK)]


def clock(seconds: list[float | None]) -> Callable[[Callable[[], object]], float]:
    """A timer that runs each call and gives these times in turn; None stands for a device that refuses."""

    def timer(run: Callable[[], object]) -> float:
        run()
        value = seconds.pop(0)
        if value is None:
            raise RuntimeError("out of resource: shared memory")
        return value

    return timer


def test_the_quickest_that_runs_is_used_and_kept(tmp_path: Path) -> None:
    x, weight, a, b = linear()
    job = next(tuning.jobs(x, weight, a, b))
    candidates = fitting(job.work, x.device)
    assert len(candidates) > 2
    choices = Choices(tmp_path, "a machine")
    times = [None, 3.0, 1.0, *(2.0 for _ in candidates[3:])]
    found = tuning.tune(job, x.device, clock(times), choices)
    assert candidates[0] not in found
    assert default(job.work, x.device) == candidates[2]
    configs.TUNED.clear()
    before = default(job.work, x.device)
    assert tuning.load(x.device, Choices(tmp_path, "another machine")) == 0
    assert default(job.work, x.device) == before
    assert tuning.load(x.device, Choices(tmp_path, "a machine")) == 1
    assert default(job.work, x.device) == candidates[2]


def test_entries_that_no_configuration_has_are_passed_over(tmp_path: Path) -> None:
    choices = Choices(tmp_path, "a machine")
    choices.put("shrink 0x24 rank 3 rows 2^3 4/4 bytes", "m9999", {})
    choices.put("something else", tuning.name_of(configs.CONFIGS["shrink"][0]), {})
    assert tuning.load(torch.device(DEVICE), choices) == 0


def test_a_device_that_refuses_everything_goes_on_with_what_is_reasoned(tmp_path: Path) -> None:
    job = next(tuning.jobs(*linear()))
    device = torch.device(DEVICE)
    before = default(job.work, device)
    assert tuning.tune(job, device, clock([None] * 20), Choices(tmp_path, "a machine")) == {}
    assert default(job.work, device) == before


@pytest.mark.parametrize("kernel", ["parts", "fused"])
def test_what_is_tuned_is_what_a_layer_asks_for(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[str] = set()

    class Watching(dict[tuple[torch.device, str], Config]):
        def __bool__(self) -> bool:
            return True

        def get(self, key, otherwise=None):
            asked.add(key[1])
            return otherwise

    x, weight, a, b = linear()
    tuned = {job.work.key() for job in tuning.jobs(x, weight, a, b)}
    monkeypatch.setattr(configs, "TUNED", Watching())
    trained = [t.requires_grad_() for t in (x, *a, *b)]
    lora_linear(x, weight, None, [(ROWS, a[0], b[0], 2.0)], kernel=kernel).sum().backward()
    assert all(t.grad is not None for t in trained)
    assert {key.split()[0] for key in asked} == {
        "shrink",
        "backward",
        "outer",
        "fused" if kernel == "fused" else "expand",
    }
    assert asked <= tuned


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_the_command_says_that_there_is_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        tuning.main(["--in", "8", "--out", "8", "--rows", "8", "--rank", "1"])
    assert ended.value.code == 2
    assert "expected a CUDA GPU, found none" in capsys.readouterr().err
