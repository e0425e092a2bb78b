"""A cycle on random blocks of Qwen-Image, and how it is timed each way."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

RECIPE = Path(__file__).parents[2] / "recipes/collection.yaml"


def small(schedules: tuple[str, ...] = ("independent",)):
    """One block a 24th as wide."""
    from random_qwen import Size
    from step_models import qwen

    return qwen(RECIPE, schedules, Size(1, 1), 4, (2, 3), "cpu")


def test_a_block_at_full_width_has_the_published_models_targets() -> None:
    from random_qwen import Size

    block = "transformer_blocks.0."
    wide = {f"{block}attn.{name}": (3072, 3072) for name in ("to_q", "to_k", "to_v", "to_out.0", "to_add_out")}
    wide |= {f"{block}attn.add_{name}_proj": (3072, 3072) for name in "qkv"}
    for stream in ("img", "txt"):
        wide[f"{block}{stream}_mlp.net.0.proj"] = (3072, 12288)
        wide[f"{block}{stream}_mlp.net.2"] = (12288, 3072)
        wide[f"{block}{stream}_mod.1"] = (3072, 18432)
    assert Size(1).shapes() == wide


def test_tokens_lie_where_diffusers_pipeline_puts_them() -> None:
    from diffusers.pipelines.qwenimage.pipeline_qwenimage import QwenImagePipeline
    from random_qwen import packed

    latents = torch.arange(2 * 16 * 4 * 6).view(2, 16, 4, 6)
    assert torch.equal(packed(latents), QwenImagePipeline._pack_latents(latents, 2, 16, 4, 6))


@pytest.mark.slow
def test_every_way_makes_the_same_forwards_with_its_own_kernel_and_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    import step_models
    from step_cost import rows_of, take_turns

    calls: Counter[str] = Counter()

    class Counted:
        def __init__(self, name: str, kernel) -> None:
            self.name, self.kernel = name, kernel

        def __call__(self, *given):
            calls[self.name] += 1
            return self.kernel(*given)

        def group(self, x, linears):
            calls[self.name] += len(linears)
            grouped.add(self.name)
            return self.kernel.group(x, linears)

        def mlp(self, *given):
            calls[self.name] += 2
            return self.kernel.mlp(*given)

    grouped: set[str] = set()
    kernels = {name: Counted(name, kernel) for name, kernel in step_models.KERNELS.items()}
    monkeypatch.setattr(step_models, "KERNELS", kernels)
    timed = small(("independent", "shared"))
    once = {}
    for pack in (True, False):
        for kernel in ("off", "on"):
            calls.clear()
            timed.run(0, "shared", pack, kernel)
            once[pack, kernel] = calls[kernel]
            assert set(calls) == {kernel}
    assert once[True, "on"] == once[True, "off"] < once[False, "on"] == once[False, "off"]
    assert grouped == {"off", "on"}
    spent = take_turns(timed, 2)
    assert len(spent) == 8
    for schedule in ("independent", "shared"):
        made = {tuple(each.forwards for each in took) for way, took in spent.items() if way[0] == schedule}
        assert len(made) == 1
        assert all(min(each) > 0 for each in made)
    rows = rows_of(timed, "collection", spent)
    assert [(row["schedule"], row["pack"], row["kernels"]) for row in rows] == list(spent)
    assert {(row["model"], row["rank"], row["latents"]) for row in rows} == {("1 Qwen-Image block, 128 wide", 4, "4x4")}
    assert all(row["cycles"] == 2 for row in rows)


def test_a_cycle_trains_student_and_critic() -> None:
    timed = small()
    trainer = timed.cycles["independent"]
    before = [part.adapter.flat.clone() for part in (trainer.student, trainer.critics["critic"])]
    timed.run(0, "independent", True, "on")
    for flat, part in zip(before, (trainer.student, trainer.critics["critic"]), strict=True):
        assert not torch.equal(flat, part.adapter.flat)


def test_the_speedup_is_that_of_neighbours_in_processor_seconds() -> None:
    from attrs import evolve
    from step_cost import rows_of
    from step_models import Spent

    timed = evolve(small(), batch=2)
    off = [Spent(9.0, 2.0, 10.0), Spent(1.0, 4.0, 20.0), Spent(1.0, 6.0, 30.0)]
    on = [Spent(1.0, 1.0, 10.0), Spent(1.0, 1.0, 20.0), Spent(9.0, 5.0, 30.0)]
    spent = {("independent", pack, name): each for pack in (True, False) for name, each in (("off", off), ("on", on))}
    plain, quick, *_ = rows_of(timed, "collection", spent)
    assert (plain["median_speedup"], quick["median_speedup"]) == (1.0, 2.0)
    assert (plain["median_seconds"], plain["median_processor_seconds"]) == (1.0, 4.0)
    assert plain["forward_equivalents"] == 10.0  # a row of the two
    assert plain["milliseconds_per_row_forward"] == 50.0
    timed = evolve(timed, device=torch.device("cuda"))
    assert rows_of(timed, "collection", spent)[1]["median_speedup"] == 1.0
