"""Where a network is read to: onto its device as it is, into CPU memory where something is done to it first."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from clora.api import NetworkMemory, load_fitted
from clora.toolkit.memory.sharing import loaded_by

META = torch.device("meta")


def read_to(how: NetworkMemory) -> str:
    asked: list[str] = []

    def load(device: torch.device) -> nn.Module:
        asked.append(device.type)
        return nn.ModuleDict({"blocks": nn.ModuleList(nn.Linear(64, 64, device=META) for _ in range(2))})

    load_fitted(load, ["blocks"], how, META)
    (device,) = asked
    return device


@pytest.mark.parametrize(
    ("how", "device"),
    [
        (NetworkMemory("fp32"), "meta"),
        (NetworkMemory("bf16"), "meta"),
        (NetworkMemory("bf16", offload_blocks=1), "cpu"),
    ],
)
def test_what_stays_as_it_is_goes_straight_to_its_device(how: NetworkMemory, device: str) -> None:
    assert read_to(how) == device


def test_a_base_that_is_shared_is_never_whole_on_a_device() -> None:
    shared: list[int] = []

    def share(network: nn.Module, blocks: Sequence[nn.Module]) -> None:
        shared.append(len(blocks))

    with loaded_by(share):
        assert read_to(NetworkMemory("bf16")) == "cpu"
    assert shared == [2]
