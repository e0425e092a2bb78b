"""Blocks that wait in CPU memory: the same bits, in any order, with two blocks' bytes on the device."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from clora.toolkit.memory.fit import fit_network, spread
from clora.toolkit.memory.linear import FrozenLinear
from clora.toolkit.memory.offload import OffloadedBlocks
from clora.toolkit.memory.settings import NetworkMemory

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

ROWS = ("student", "teacher", None, "student")


def offloaded(network: nn.Module) -> OffloadedBlocks:
    """The offloaded blocks of a network that has some."""
    sources = {part.elsewhere for part in network.modules() if isinstance(part, FrozenLinear) and part.elsewhere}
    (blocks,) = {source.blocks for source in sources}  # type: ignore[attr-defined]
    return blocks


def test_they_are_spread_evenly() -> None:
    assert sorted(spread(2, 8)) == [2, 6]
    assert sorted(spread(5, 5)) == [0, 1, 2, 3, 4]
    assert spread(0, 5) == frozenset()
    for count, of in itertools.combinations_with_replacement(range(1, 12), 2):
        assert len(spread(count, of)) == count
        assert max(spread(count, of)) < of


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("weights", ["fp32", "fp8", "nf4"])
@pytest.mark.parametrize("blocks", [1, 2, 3, 5])
def test_outputs_and_gradients_are_the_same_bits(small, blocks: int, weights: str, checkpointing: bool) -> None:
    here = small(weights=weights)
    there = small(weights=weights, offload_blocks=blocks, gradient_checkpointing=checkpointing)
    for _ in range(2):  # a second time over buffers that hold the first's last blocks
        assert torch.equal(there.sample(*ROWS), here.sample(*ROWS))
        for mine, its in zip(there.gradient(*ROWS), here.gradient(*ROWS), strict=True):
            assert torch.equal(mine, its)


def test_two_graphs_may_be_open_at_once(small) -> None:
    gradients = []
    for one in (small(), small(offload_blocks=5, gradient_checkpointing=True)):
        one.student.zero_grad()
        with one.adapted.rows(["student"]):
            first, second = one.answer(1).square().mean(), one.answer(1).sum()
        one.sample("teacher", None)  # a forward in between, as a critic's or a teacher's
        (first + second.square()).backward()
        gradients.append(one.student.flat_grad.clone())
    assert torch.equal(*gradients)


def test_two_blocks_bytes_are_on_the_device_and_the_rest_is_not(small) -> None:
    width = 32  # 14 linears a block: 8 of width^2, 4 of 4 width^2, 2 of 6 width^2; a bf16 scale for every output row
    codes, scales = 36 * width**2, 2 * (8 + 4 + 4 + 1 + 1 + 6 + 6) * width
    network = small(weights="fp8", offload_blocks=4).network
    blocks = offloaded(network)
    assert len(blocks.host) == 4
    for tensor in (*blocks.host, *blocks.buffers):
        assert codes + scales <= len(tensor) <= codes + scales + 28 * 256  # 28 tensors, each at a multiple of 256
    here = [part for part in network.modules() if isinstance(part, FrozenLinear) and part.elsewhere is None]
    assert sum(tensor.numel() * tensor.element_size() for part in here for tensor in part.stored().values()) == (
        codes + scales  # the one block that stays
    )
    blocks_parts = [part for block in network.transformer_blocks for part in block.modules()]
    assert not any(isinstance(part, nn.Linear) for part in blocks_parts)
    left = sum(tensor.numel() for part in blocks_parts for tensor in part.parameters(recurse=False))
    assert left <= 5 * ((8 + 4 + 4 + 1 + 1 + 6 + 6) * width + 4 * 16)  # biases and the norms of queries and keys


def test_a_weight_can_be_read_while_another_block_computes(small) -> None:
    plain, network = small().network, small(offload_blocks=5).network
    blocks = offloaded(network)
    blocks.buffer(3, grad=False)
    before = list(blocks.holds)
    linear = network.get_submodule("transformer_blocks.0.img_mlp.net.2").base
    assert torch.equal(linear.weight, plain.get_submodule("transformer_blocks.0.img_mlp.net.2").base.weight)
    assert blocks.holds == before


def test_a_pass_copies_each_block_once(small) -> None:
    one = small(offload_blocks=5, gradient_checkpointing=True)
    blocks = offloaded(one.network)
    one.sample("student")
    settled = blocks.copies
    one.sample("student")
    assert blocks.copies - settled == 5  # the next pass's first block was on its way when this one ended
    one.gradient("student")
    settled = blocks.copies
    one.gradient("student")
    assert blocks.copies - settled == 3 + 3  # up and down: the two at either end are there already


def test_the_next_block_is_there_before_it_is_asked_for(small) -> None:
    one = small(offload_blocks=5)
    blocks = offloaded(one.network)
    one.sample("student")
    for index in range(5):
        assert index in blocks.holds
        blocks.buffer(index, grad=False)
    assert blocks.holds == [4, 0] or blocks.holds == [0, 4]


def test_more_blocks_than_there_are_is_told() -> None:
    assert list(NetworkMemory(offload_blocks=5).check(5)) == []
    assert "5 blocks, 6" in next(iter(NetworkMemory(offload_blocks=6).check(5)))
    with pytest.raises(ValueError, match="offload_blocks"):
        NetworkMemory(offload_blocks=-1)


def test_what_is_not_in_a_block_keeps_its_weights() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 8), nn.ModuleList([nn.Sequential(nn.Linear(8, 8))]))
    fit_network(network, ("1",), NetworkMemory("int8"), torch.device("cpu"))
    assert type(network[0]) is nn.Linear
    assert type(network.get_submodule("1.0.0")) is FrozenLinear
