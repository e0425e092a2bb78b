"""Which tile of a matrix's rows belongs to which adapter: a small table, made on the host once per layout."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from attrs import frozen


@frozen
class Tiles:
    """Tile i covers rows start[i] up to stop[i] (at most block_m of them) of adapter which[i]; -1 stands for none.

    No tile crosses from one segment into the next, so a program has one adapter and needs no gather or padding.
    """

    start: torch.Tensor  # int32 [tiles]
    stop: torch.Tensor  # int32 [tiles]
    which: torch.Tensor  # int32 [tiles]
    block_m: int

    def __len__(self) -> int:
        return self.start.shape[0]

    @staticmethod
    def of(
        rows: Sequence[int],
        which: Sequence[int],
        block_m: int,
        device: torch.device | str = "cpu",
        *,
        bare: bool = True,
    ) -> Tiles:
        """The tiles of segments with so many rows of so many adapters; empty segments have none.

        `bare=False` leaves out the tiles of no adapter. The table is kept: the same layout asks the device for nothing.
        """
        return _tiles(tuple(rows), tuple(which), block_m, str(device), bare)


@lru_cache(maxsize=512)
def _tiles(rows: tuple[int, ...], which: tuple[int, ...], block_m: int, device: str, bare: bool) -> Tiles:
    if len(rows) != len(which):
        raise ValueError(f"expected one adapter for every segment, got {len(rows)} segments and {len(which)} adapters")
    if block_m < 1:
        raise ValueError(f"expected tiles of at least one row, got block_m {block_m}")
    table: list[tuple[int, int, int]] = []
    begin = 0
    for count, adapter in zip(rows, which, strict=True):
        end = begin + count
        if adapter >= 0 or bare:
            table += [(at, min(at + block_m, end), adapter) for at in range(begin, end, block_m)]
        begin = end
    columns = torch.tensor(table, dtype=torch.int32).reshape(-1, 3).T.contiguous().to(device)
    return Tiles(columns[0], columns[1], columns[2], block_m)
