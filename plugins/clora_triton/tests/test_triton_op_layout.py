"""The table of tiles against a plain walk over the rows."""

from __future__ import annotations

import pytest
import torch
from clora_triton.layout import Tiles
from hypothesis import given, settings, strategies as st


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 70), st.integers(-1, 3)), max_size=6), st.sampled_from([1, 16, 64]), st.booleans()
)
def test_every_row_lies_in_one_tile_of_its_adapter(plan, block, bare) -> None:
    rows, which = [count for count, _ in plan], [i for _, i in plan]
    tiles = Tiles.of(rows, which, block, bare=bare)
    owner = [i for count, i in plan for _ in range(count)]
    segment = [n for n, (count, _) in enumerate(plan) for _ in range(count)]
    seen: list[int] = []
    for start, stop, adapter in zip(tiles.start.tolist(), tiles.stop.tolist(), tiles.which.tolist(), strict=True):
        assert 0 < stop - start <= block
        assert owner[start:stop] == [adapter] * (stop - start)
        assert len(set(segment[start:stop])) == 1
        seen += range(start, stop)
    assert seen == [row for row, i in enumerate(owner) if bare or i >= 0]
    assert len(tiles) == len(tiles.start)
    assert tiles.start.dtype == tiles.stop.dtype == tiles.which.dtype == torch.int32


def test_one_layout_is_made_once() -> None:
    assert Tiles.of([3, 4], [0, -1], 2).start is Tiles.of((3, 4), (0, -1), 2).start


def test_it_refuses_lists_of_two_lengths_and_empty_tiles() -> None:
    with pytest.raises(ValueError, match="got 2 segments and 1 adapters"):
        Tiles.of([1, 2], [0], 16)
    with pytest.raises(ValueError, match="got block_m 0"):
        Tiles.of([1], [0], 0)
