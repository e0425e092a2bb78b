"""What would go wrong with an observer in a run: checked on two updates of a run that is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clora.contracts.run import EffectEdits, Observation, PlanFacts, RequestsSamples, RunInfo, SampleRequest
from clora.contracts.values import Prompts, StepReport
from clora.errors import shown
from clora.planning.observers import request_of
from clora.plugin_system.guard import Owners
from clora.testing.fake_network import EFFECTS


def observer_problems(observer: Any) -> Iterator[str]:
    """Two updates with pictures as asked for: it writes below its own folder alone and changes nothing it is given."""
    request, wrong = _requested(observer)
    yield from wrong
    if request is None:
        return
    with TemporaryDirectory() as root:
        for step in (1, 2):
            seen = _observation(Path(root), step, request)
            tensors = [tensor for one in seen.samples for tensor in (one.source, one.student)]
            before = dict(seen.report.losses), [tensor.clone() for tensor in tensors]
            with Owners().calling("observers"):
                observer.observe(seen)
            if dict(seen.report.losses) != before[0]:
                yield "it changed the report, which other observers read"
            if any(not tensor.equal(old) for tensor, old in zip(tensors, before[1], strict=True)):
                yield "it changed the pictures that it was given"
        outside = [path for path in Path(root).rglob("*") if path.is_file() and seen.folder not in path.parents]
        if outside:
            yield f"it wrote {shown(outside[0].relative_to(root))}, which does not lie below `seen.folder`"


def _requested(observer: object) -> tuple[SampleRequest | None, list[str]]:
    """The pictures that an observer asks for, none where it has no such method, and what is wrong with the request."""
    if not isinstance(observer, RequestsSamples):
        return SampleRequest(()), []
    request, wrong = request_of(observer, EFFECTS)
    if request is not None and request_of(observer, EFFECTS)[0] != request:
        wrong = ["its sample_request gives other pictures each time"]
    return request, wrong


def _observation(root: Path, step: int, request: SampleRequest) -> Observation:
    """What an observer is given of a run in the folder `root`, with the pictures of a request."""
    import torch

    draw = torch.Generator().manual_seed(step)
    samples = []
    for effect in request.effects:
        source, student = (torch.rand(request.pictures, 3, 16, 16, generator=draw) * 2 - 1 for _ in range(2))
        names = tuple(f"{i}.png" for i in range(request.pictures))
        samples.append(EffectEdits(effect, names, source, student))
    folder = root / "observers/mine"
    folder.mkdir(parents=True, exist_ok=True)
    prompts = {effect: Prompts(f"all {effect}", f"make it {effect}") for effect in EFFECTS}
    report = StepReport(step, {"ta_fm": 0.5, "bs_dmd": 1.5}, 0.25, 3.0, 1e-4, {"grad_norm": 2.0})
    facts = PlanFacts(prompts, "name: mine\n")
    return Observation(RunInfo("mine", root, "0" * 32, 2), facts, report, folder, tuple(samples))
