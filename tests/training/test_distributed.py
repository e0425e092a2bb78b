"""A process on its own: nothing is averaged, nothing waits."""

from __future__ import annotations

import pytest
import torch

from clora.training.distributed import Distributed


@pytest.mark.parametrize("world", [None, "1"])
def test_without_a_launcher_a_process_is_alone(monkeypatch, world):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if world:
        monkeypatch.setenv("WORLD_SIZE", world)
    assert Distributed.current() == Distributed(0, 1)
    assert not torch.distributed.is_initialized()


def test_alone_everything_stays_as_it_is():
    ranks, flat = Distributed(), torch.tensor([1.0, 2.0])
    ranks.average(flat)
    assert flat.tolist() == [1.0, 2.0]
    assert ranks.any(True) is True
    assert ranks.any(False) is False
    ranks.wait()
    ranks.close()


def test_the_first_rank_writes():
    assert Distributed(0, 2).first
    assert not Distributed(1, 2).first
