"""What two processes do together: each part is a function, and all of them share the processes' imports.

torchrun --nproc_per_node 2 tests/two_ranks_parts.py FOLDER QWEN_FOLDER
"""

from __future__ import annotations

import copy
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import ranks_as_one
import torch
from clora_qwen.backbone import QwenImageEdit
from shallow_emoji import shallow_emoji
from torch.distributed.fsdp import FSDPModule

from clora import cli
from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter
from clora.api import Conditions, NetworkMemory, StepRng
from clora.config.load import load_recipe
from clora.contracts.step import Forward, LossTerm
from clora.errors import CloraError
from clora.inference.session import ModelSession
from clora.planning.plan import Plan, make_plan
from clora.plugin_system.discovery import discover
from clora.plugin_system.guard import Owners
from clora.training.distributed import Distributed
from clora.training.owned import OwnedParts
from clora.training.shard_sync import CollectiveShardSync, ShardSync
from clora.training.start import make_state

RECIPE = Path(__file__).parents[1] / "recipes/collection.yaml"
SETS = (
    *shallow_emoji(),
    "effects=[duotone_ocean, thermal]",
    "student.rank=4",
    "student.ema=null",
    "student.steps=4",
    "train.steps=4",
    "warm_start=null",
    "train.batch_size=1",
    "critic.updates=2",
    "teacher.steps=1",
    "prepare={previews: 0, train_images: 2, general_images: 4}",
    "evaluate={images: 1, general_images: 1}",
)
SHARED = "train.shard_base=true"


def plan_with(*more: str) -> Plan:
    return make_plan(load_recipe(RECIPE, (), [*SETS, *more], discover()))


RUNS = {"whole": (), "shared": (SHARED,), "watched": ("observers.sheet={use: previews, every: 1}",)}


def whole_shared_and_watched_runs(ranks: Distributed, folder: Path, model: Path) -> None:
    """`clora run` with a base on every rank, with one base, and with pictures after every update."""
    for name, more in RUNS.items():
        sets = [word for setting in (*SETS, *more) for word in ("--set", setting)]
        assert cli.main(["run", str(RECIPE), "--runs", str(folder / name), *sets]) == 0


def uneven_evaluations(ranks: Distributed, folder: Path, model: Path) -> None:
    """One rank has no evaluation with a gradient, and more of the others, in another order."""
    plan = plan_with(SHARED)
    shared, whole = ModelSession(plan, ranks), ModelSession(plan)
    kept = sum(p.to_local().numel() for p in shared.adapted.network.parameters())  # pyright: ignore
    assert 2 * kept == sum(p.numel() for p in whole.adapted.network.parameters())

    def evaluate(session: ModelSession, grads: Sequence[bool]) -> tuple[list[torch.Tensor], torch.Tensor]:
        state = make_state(plan, session, ranks)
        source = plan.recipe.dataset.general("train")[0].source
        conditions = session.conditioning.conditions(["a cat"], [source])
        x = StepRng(0, rank=ranks.rank).normal("x", conditions.source)
        found = []
        for grad in grads:
            asked = Forward("student", ("student",), x, torch.full((1,), 0.5), conditions, grad)
            found.append(session.evaluator([asked])[0])
        session.pace.finish()
        owed = session.pace.owed()
        total = sum((v.square().mean() for v in found if v.requires_grad), torch.zeros(()))
        total = total if owed is None else total + owed
        if total.requires_grad:
            total.backward()
        assert state.student.adapter.flat_grad is not None
        return [v.detach() for v in found], state.student.adapter.flat_grad

    grads = [True, False, True] if ranks.first else [False, False, False, False, False]
    (v, g), (w, h) = evaluate(shared, grads), evaluate(whole, grads)
    assert all(a.equal(b) for a, b in zip(v, w, strict=True)), "velocities"
    assert g.equal(h), "gradients"
    assert bool(g.any()) == ranks.first


def checkpointed_large_model(ranks: Distributed, folder: Path, model: Path) -> None:
    """A tiny Qwen-Image-Edit whose blocks come in shares and are checkpointed; one of int8 weights is refused."""
    cpu = torch.device("cpu")

    def backbone(**memory) -> QwenImageEdit:
        return QwenImageEdit(model=str(model), side=64, memory=NetworkMemory(**memory))

    made = backbone(weights="fp32", gradient_checkpointing=True)

    def gradient(sync: ShardSync, grads: Sequence[bool], idle: list[Callable[[bool], object]]) -> torch.Tensor:
        loaded = made.load(cpu)
        with sync.loading():
            network = loaded.network
        assert isinstance(network, FSDPModule) == sync.shared
        adapted = AdaptedNetwork(network, tuple(made.shapes()))
        sync.attend(network)
        rng = StepRng(0).named("student")
        student = adapted.add("student", Adapter.fresh(made.shapes(), 2, 2.0, rng))
        for _, b, _ in student.factors.values():
            b.data.normal_(generator=rng.torch("b"))
        images = torch.rand(1, 3, 48, 80, generator=torch.Generator().manual_seed(9)) * 2 - 1
        text = loaded.encode_prompts(["a cat"], images)
        conditions = Conditions(text.text, text.mask, loaded.encode_images(images))

        def velocity(grad: bool, x: torch.Tensor) -> torch.Tensor:
            with adapted.rows(["student"]), torch.set_grad_enabled(grad):
                return loaded.velocity(x, torch.full((1,), 0.5), conditions)

        idle.append(lambda grad: velocity(grad, torch.zeros(1, 16, 6, 10)))
        total = torch.zeros(())
        for n, grad in enumerate(grads):
            x = StepRng(0, step=n, rank=ranks.rank).normal("x", torch.empty(1, 16, 6, 10))
            made_of_it = velocity(grad, x)
            total = total + made_of_it.square().mean() if grad else total
        sync.finish()
        owed = sync.owed()
        (total if owed is None else total + owed).backward()
        assert student.flat_grad is not None
        return student.flat_grad

    idle: list[Callable[[bool], object]] = []
    sync = CollectiveShardSync(ranks, cpu, lambda grad: idle[-1](grad))
    grads = [True, False] if ranks.first else [False, True, False, True]
    shared, whole = gradient(sync, grads, idle), gradient(ShardSync(), grads, [])
    assert bool(whole.any())
    # gathered weights lie at other addresses, and some products round otherwise there
    assert (shared - whole).norm() < 1e-5 * whole.norm()
    refused = backbone(weights="int8").load(cpu)
    with sync.loading(), pytest.raises(CloraError, match=r"train\.shard_base"):
        _ = refused.network


def rows_of_both(ranks: Distributed, folder: Path, model: Path) -> None:
    """Cycles without a shared base, every rank on rows of its own."""
    ranks_as_one.cycles_of_ranks(ranks, folder / "rows", folder / "rows.safetensors")


def owned_modules(ranks: Distributed, folder: Path, model: Path) -> None:
    """A component's modules take the step of the ranks' mean gradient, though one rank has no rows of its loss."""
    recipe = plan_with("losses.gan={use: gan, simulation: backward}").recipe
    owned = OwnedParts.of(recipe, (2, 4, 4), torch.device("cpu"), ranks, Owners())
    judge = owned.modules("losses.gan")["discriminator"]
    x, sigma = StepRng(0).normal("x", torch.empty(2, 2, 4, 4)), torch.full((2,), 0.5)
    ours = copy.deepcopy(judge)
    optimizer = torch.optim.AdamW(ours.parameters(), 1e-3, (0.0, 0.99), weight_decay=0.0)
    (0.5 * ours(x, sigma).mean() / 2).backward()  # half of its batch's rows, on one of two ranks
    optimizer.step()
    terms = {} if ranks.first else {"losses.gan": (LossTerm(torch.zeros(()), own=judge(x, sigma).mean()), 0.5)}
    assert owned.update("losses", terms)["gan.modules"] > 0
    for mine, theirs in zip(ours.parameters(), judge.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
    there = ranks.averaged({"all": 1.0 + ranks.rank, f"rank {ranks.rank}": 3.0})
    assert there == {"all": 1.5, "rank 0": 3.0, "rank 1": 3.0}


PARTS = (whole_shared_and_watched_runs, uneven_evaluations, checkpointed_large_model, rows_of_both, owned_modules)


def main(folder: Path, model: Path) -> None:
    """Do every part, and write the traceback of one that fails to FOLDER/PART.RANK, or nothing where it passes."""
    ranks = Distributed.current()
    close, Distributed.close = Distributed.close, lambda ranks: None  # the next part needs the process group
    for part in PARTS:
        told = ""
        try:
            part(ranks, folder, model)
        except Exception:
            told = traceback.format_exc()
        (folder / f"{part.__name__}.{ranks.rank}").write_text(told)
    close(ranks)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
