"""What a merger may give: factors of linears that the base has; everything else is a sentence that says what came."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from clora.errors import quoted
from clora.plugin_system.guard import came


def factors_problem(made: object, shapes: Mapping[str, tuple[int, int]]) -> str | None:
    """What is wrong with a merged LoRA for a base of these linears {name: (inputs, outputs)}; None where nothing is."""
    if not isinstance(made, Mapping) or not made:
        return f"merged to {came(made)}; expected a mapping of linear to (A, B, scale) with one linear or more"
    for linear, factors in made.items():
        if linear not in shapes:
            return f"gave factors of {quoted(linear)}, which is no linear of this base"
        problem = _problem(factors, *shapes[linear])
        if problem is not None:
            return f"gave {quoted(linear)} {problem}"
    return None


def _problem(factors: object, inputs: int, outputs: int) -> str | None:
    if not isinstance(factors, tuple) or len(factors) != 3:
        return f"{came(factors)}; expected (A, B, scale)"
    a, b, scale = factors
    for name, tensor in (("A", a), ("B", b)):
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != 2 or not tensor.is_floating_point():
            return f"as {name} {came(tensor)}; expected a matrix of floats"
        if not bool(tensor.isfinite().all()):
            return f"as {name} a matrix with NaN or infinity in it"
    if a.shape[1] != inputs or b.shape[0] != outputs or a.shape[0] != b.shape[1] or not len(a):
        return f"A {list(a.shape)} and B {list(b.shape)}; expected [r, {inputs}] and [{outputs}, r] with r of 1 or more"
    if not isinstance(scale, float):
        return f"the scale {came(scale)}; expected a float"
    return None
