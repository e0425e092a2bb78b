"""What `clora.testing.conformance` asks of a merger: a LoRA that fits, the same each time, from teachers left alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from clora.plugin_system.guard import Owners, sentences

if TYPE_CHECKING:
    from clora.contracts.merger import LoraFactors

SHAPES = {"blocks.0.to_q": (256, 256), "blocks.0.to_out": (256, 192)}


def merger_problems(merger: Any) -> Iterator[str]:
    """Everything wrong with what it makes of three teachers of rank 2 on linears of 256 numbers."""
    import torch

    from clora.adapters.answers import factors_problem

    found = sentences("shape_problems", lambda: merger.shape_problems(SHAPES))
    if found:
        yield from found
        return
    teachers, before = [_teacher(seed) for seed in (1, 2, 3)], [_teacher(seed) for seed in (1, 2, 3)]
    made = []
    for _ in range(2):
        with Owners().calling("serve.merge"):
            made.append(merger.merge(teachers, SHAPES, 0))
        torch.rand(3)  # a draw from the global generator must change nothing
        problem = factors_problem(made[-1], SHAPES)
        if problem is not None:
            yield f"it {problem}"
            return
    if not _same(made[0], made[1]):
        yield "the same teachers and seed gave two LoRAs: draw from a generator of the seed"
    if not all(_same(teacher, old) for teacher, old in zip(teachers, before, strict=True)):
        yield "it changed a teacher's factors"


def _same(one: LoraFactors, other: LoraFactors) -> bool:
    """True where both have the same numbers for the same linears."""
    import torch

    pairs = [(one[name], other[name]) for name in one if name in other]
    same = all(torch.equal(a, c) and torch.equal(b, d) for (a, b, _), (c, d, _) in pairs)
    return same and one.keys() == other.keys()


def _teacher(seed: int) -> LoraFactors:
    import torch

    draw = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(2, inputs, generator=draw), torch.randn(outputs, 2, generator=draw), 0.5)
        for name, (inputs, outputs) in SHAPES.items()
    }
