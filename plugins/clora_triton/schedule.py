"""Which program does what in a backward launch: a table made on the host once per layout."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from attrs import frozen


@frozen
class Schedule:
    """Job i is (start, stop, adapter, block of wide columns, partial result); partial result -1 marks a tile of ds.

    The partial results of one gradient are neighbours, in the order of their rows: spans[i] is (first, behind the last)
    of the i-th wanted adapter. They are added up in that order, so two runs give the same bits.
    """

    jobs: torch.Tensor  # int32 [jobs, 5]
    spans: torch.Tensor  # int32 [wanted, 2]
    partials: int

    @staticmethod
    def of(
        rows: Sequence[int],
        which: Sequence[int],
        wanted: Sequence[int],
        width: int,
        block_n: int,
        chunk: int,
        device: torch.device,
        block_m: int | None = None,
    ) -> Schedule:
        """The jobs of the wanted adapters' outer products, and with block_m those of ds too.

        Both kinds that read the same `chunk` rows of dy stand side by side: whoever comes second finds dy in the L2
        cache, so that it is read from memory once. (2048 rows of 3072 in bfloat16 are 12 MiB; an H200 caches 50.)
        """
        return _schedule(tuple(rows), tuple(which), tuple(wanted), width, block_n, chunk, str(device), block_m)


Span = tuple[int, int, int]


@lru_cache(maxsize=512)
def _schedule(
    rows: tuple[int, ...],
    which: tuple[int, ...],
    wanted: tuple[int, ...],
    width: int,
    block_n: int,
    chunk: int,
    device: str,
    block_m: int | None,
) -> Schedule:
    chunks = _cut(rows, which, chunk)
    numbers: dict[Span, int] = {}
    spans: list[tuple[int, int]] = []
    for adapter in wanted:
        first = len(numbers)
        for span in chunks:
            if span[2] == adapter:
                numbers[span] = len(numbers)
        spans.append((first, len(numbers)))
    jobs: list[tuple[int, int, int, int, int]] = []
    for start, stop, adapter in chunks:
        if block_m is not None:
            jobs += [(at, min(at + block_m, stop), adapter, 0, -1) for at in range(start, stop, block_m)]
        if (start, stop, adapter) in numbers:
            number = numbers[start, stop, adapter]
            jobs += [(start, stop, adapter, column, number) for column in range(-(-width // block_n))]
    return Schedule(
        torch.tensor(jobs, dtype=torch.int32).reshape(-1, 5).to(device),
        torch.tensor(spans, dtype=torch.int32).reshape(-1, 2).to(device),
        len(numbers),
    )


def _cut(rows: Sequence[int], which: Sequence[int], chunk: int) -> list[Span]:
    """(start, stop, adapter) of at most `chunk` rows each, none across two segments."""
    spans: list[Span] = []
    begin = 0
    for count, adapter in zip(rows, which, strict=True):
        spans += [(at, min(at + chunk, begin + count), adapter) for at in range(begin, begin + count, chunk)]
        begin += count
    return spans
