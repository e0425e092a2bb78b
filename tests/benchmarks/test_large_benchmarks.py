"""The benchmarks of the full-size model run, on one that is as small as its classes allow."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["packed", "three_bases", "plain_schedule"])
def test_ways_to_run_the_full_size_cycle(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import full_size

    monkeypatch.setattr(full_size, "WARM", 0)
    args = Namespace(layers=1, heads=1, side=32, rank=2, weights="fp32", checkpointing=False, offload=0, cycles=1)
    args.schedule, args.variant = "independent", variant
    found = full_size.measured(args)
    assert float(str(found["mean_forward_equivalents"])) > 0


@pytest.mark.slow
def test_the_full_size_cycle_is_predicted_from_shapes_alone() -> None:
    import full_size

    args = Namespace(layers=60, heads=24, side=1024, rank=128, weights="bf16", checkpointing=True, offload=0)
    base, adapters = 20.4e9 * 2, 60 * 153_600 * 128  # bytes; numbers in one: 60 blocks, (in + out) of the 14 linears
    told = full_size.predicted(args)
    assert told > base + 4 * adapters * (2 * 4 + 2)
    assert told < 1.5 * (base + 4 * adapters * (2 * 4 + 2))


@pytest.mark.slow
def test_the_blocks_are_timed_compiled_and_not(monkeypatch: pytest.MonkeyPatch) -> None:
    import compiled_blocks

    monkeypatch.setattr(compiled_blocks, "WARM", 0)
    args = Namespace(layers=1, heads=1, side=32, rank=2, weights="fp32", checkpointing=False, offload=0, cycles=1)
    args.schedule, args.variant = "shared", "packed"
    with torch.compiler.set_stance("force_eager"):  # compiling takes minutes
        off, on = compiled_blocks.measured(args)
    assert (off["compile"], on["compile"]) == ("off", "on")
    assert min(float(str(row["median_seconds"])) for row in (off, on)) > 0
    assert off.keys() == on.keys()


def test_switches_of_teachers_are_timed_each_way(tmp_path: Path) -> None:
    import teacher_switch

    args = Namespace(layers=1, rank=1, step_seconds=0.002, switches=2, device="cpu")
    rows = teacher_switch.measure(args, tmp_path)
    assert [row["way"] for row in rows[:4]] == ["no switch", "loaded ahead", "loaded at the switch", "tensor by tensor"]
    assert {row["files"] for row in rows} == {"in the page cache", "cold"}
    assert all(float(str(row["median_stall_seconds"])) > 0 for row in rows if row["way"] == "tensor by tensor")


@pytest.mark.slow
def test_memory_is_predicted_of_a_model_that_has_the_published_sizes_and_no_numbers(tmp_path: Path) -> None:
    import memory_prediction

    world = memory_prediction.users_folder(tmp_path, teachers=1)
    told = memory_prediction.predicted(world, 80, (), ())
    assert told["base_gib"] == pytest.approx(40.86e9 / 2**30, abs=0.2)
    assert told["phase"] == "training"
