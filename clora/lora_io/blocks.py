"""Linears told in few words: `transformer_blocks.7.attn.to_q` is the linear attn.to_q of block 7."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

#: the linears of a double-stream block that LoRAs are trained on (Qwen-Image, and the same in miniature)
LINEARS = (
    "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0",
    "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
    "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2", "img_mod.1", "txt_mod.1",
)  # fmt: skip
_FLAT = {linear.replace(".", "_"): linear for linear in LINEARS}
_FLAT_NAME = re.compile(r"transformer_blocks_(\d+)_(\w+)")
_IN_BLOCK = re.compile(r"(?P<stem>\D+?)\.(?P<number>\d+)\.(?P<tail>.+)")


def unflattened(name: str) -> str:
    """The dotted name that a flat one means, where it is one of LINEARS; else the flat name itself."""
    match = _FLAT_NAME.fullmatch(name)
    if match is None or match[2] not in _FLAT:
        return name
    return f"transformer_blocks.{match[1]}.{_FLAT[match[2]]}"


def by_block(modules: Iterable[str]) -> tuple[dict[str, dict[str, list[int]]], list[str]]:
    """{stem: {linear: block numbers}}, such as {"transformer_blocks": {"attn.to_q": [0, 1]}}, and the other names."""
    stems: dict[str, dict[str, list[int]]] = {}
    others: list[str] = []
    for module in modules:
        match = _IN_BLOCK.fullmatch(module)
        if match is None:
            others.append(module)
        else:
            stems.setdefault(match["stem"], {}).setdefault(match["tail"], []).append(int(match["number"]))
    return stems, others


def compact(modules: Iterable[str], all_of: Mapping[str, object] | None = None) -> list[str]:
    """Names in as few lines as say all of it, such as "transformer_blocks 0-59: attn.to_q, attn.to_k".

    `all_of` is keyed by the names that there are: what covers every linear of its blocks is said so.
    """
    stems, others = by_block(modules)
    there, _ = by_block(all_of or ())
    lines: list[str] = []
    for stem, tails in stems.items():
        alike: dict[tuple[int, ...], list[str]] = {}
        for tail, numbers in tails.items():
            alike.setdefault(tuple(sorted(numbers)), []).append(tail)
        for same in alike.values():
            same.sort(key=lambda tail: (LINEARS.index(tail) if tail in LINEARS else len(LINEARS), tail))
        known = set(there.get(stem, LINEARS))
        for numbers, same in alike.items():
            every = len(same) > 1 and set(same) == known
            lines.append(f"{stem} {spans(numbers)}: " + (f"all {len(same)} linears" if every else ", ".join(same)))
    return [*lines, *([", ".join(others)] if others else [])]


def spans(numbers: Iterable[int]) -> str:
    """Sorted numbers as 0-3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
