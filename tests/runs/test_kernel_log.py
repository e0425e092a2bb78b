"""A run's log says what its LoRA linears are computed with."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clora.runs import pipeline
from clora.runs.progress import Progress


class Speaking:
    def explain(self, device: torch.device) -> str:
        return f"fingers, as there is nothing else on {device.type}"


@pytest.mark.parametrize("kernel", [Speaking(), None, len])
def test_the_kernel_is_told_once_when_the_model_is_loaded(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session = SimpleNamespace(device=torch.device("cpu"))
    monkeypatch.setattr(pipeline, "ModelSession", lambda *_: session)
    recipe = SimpleNamespace(kernels=kernel, name="r", train=SimpleNamespace(steps=1))
    job: Any = SimpleNamespace(
        plan=SimpleNamespace(recipe=recipe, digest="d"), folder=SimpleNamespace(path=None, cache=None)
    )
    log = io.StringIO()
    run = pipeline.Pipeline(job, SimpleNamespace(), SimpleNamespace(), Progress(stream=log))  # pyright: ignore[reportArgumentType]
    assert run.session is run.session is session
    told = log.getvalue().splitlines()
    assert len(told) == isinstance(kernel, Speaking)
    assert all(line.endswith("kernels: fingers, as there is nothing else on cpu") for line in told)
