"""Two effects in one instruction, which no teacher was trained for (paper: zero-shot composition)."""

from __future__ import annotations

from collections.abc import Sequence


def chain(prompts: Sequence[str]) -> str:
    """One instruction that applies the student prompts one after the other; a single prompt stays as it is."""
    first, *rest = prompts
    if not rest:
        return first
    return f"apply {first} to the input image" + "".join(f", then apply {prompt}" for prompt in rest)
