"""One entry of a file for several linears: where the original code has them side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import evolve

from clora.lora_io.kinds import Entry
from clora.lora_io.linears import LinearRows


def spread(name: str, entry: Entry, originals: Mapping[str, tuple[LinearRows, ...]]) -> Iterator[tuple[str, Entry]]:
    """(linear, entry) for each linear that one entry of a file changes. Raises ValueError where it cannot be divided.

    DoRA's norms and the factors of LoKr and LoHa belong to the undivided weight.
    """
    parts = originals.get(name)
    if parts is None:
        yield name, entry
        return
    first = parts[0]
    if len(parts) == 1 and len(first.ranges) == 1:
        yield first.linear, evolve(entry, said=name)
        return
    if not entry.plain:
        many = ", ".join(part.linear for part in parts)
        turned = f"be read, as its rows stand in another order in {many}"
        raise ValueError(f"only a plain LoRA of it can {turned if len(parts) == 1 else f'be divided into {many}'}")
    inputs = entry.shape[1]
    for part in parts:
        most = min(entry.rank, part.count, inputs)
        yield part.linear, evolve(entry, said=name, rows=part, shape=(part.count, inputs), most=most)
