"""Two processes that share one base train what two processes with a base each train, to the last bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

from safetensors.torch import load_file

from clora.config.load import load_recipe
from clora.diffusion.rng import StepRng
from clora.inference.session import ModelSession
from clora.planning.plan import Plan, make_plan
from clora.planning.teacher_schedule import first_step, route_of
from clora.plugin_system.discovery import discover
from clora.runs.pipeline import run_folder
from clora.runs.run_dir import RunDir
from clora.training.distributed import Distributed
from clora.training.shard_sync import ShardSync

RECIPE = Path(__file__).parents[2] / "recipes/collection.yaml"
SETS = (
    "effects=[duotone_ocean, thermal]",
    "student.rank=4",
    "student.ema=null",
    "student.steps=4",
    "train.steps=4",
    "warm_start=null",
    "train.batch_size=1",
    "critic.updates=2",
    "teacher.steps=1",
    "evaluate.images=2",
    "evaluate.general_images=2",
)
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def plan_with(*more: str) -> Plan:
    return make_plan(load_recipe(RECIPE, (), [*SETS, *more], discover()))


def started(words: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *TORCHRUN, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def run_with(runs: Path, *more: str) -> subprocess.Popen[str]:
    sets = [word for setting in (*SETS, *more) for word in ("--set", setting)]
    return started(["-m", "clora", "run", str(RECIPE), "--runs", str(runs), *sets])


def ended(process: subprocess.Popen[str]) -> str:
    try:
        output, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, output
    return output


def losses(folder: RunDir) -> list[dict[str, float]]:
    return [json.loads(line)["losses"] for line in folder.steps.read_text().splitlines()]


def streams(plan: Plan, rank: int) -> list[str]:
    """Whom the one row of every cycle follows."""
    rng = StepRng(plan.recipe.seed, rank=rank)
    steps = [first_step(plan.recipe, n) for n in range(plan.recipe.train.steps)]
    effects = [card.name for card in plan.cards]
    return [route_of(plan.recipe, rng.at(step), effects).rows[0].stream for step in steps]


def test_a_shared_base_trains_what_a_base_on_every_rank_trains(tmp_path: Path) -> None:
    plan = plan_with()
    pairs = set(zip(streams(plan, 0), streams(plan, 1), strict=True))
    assert len(pairs - {("general", "general"), ("effect", "effect")}) >= 1  # one rank alone has rows of a stream
    assert plan_with("train.shard_base=true").digest == plan.digest
    whole, shared = run_with(tmp_path / "whole"), run_with(tmp_path / "shared", "train.shard_base=true")
    ended(whole)
    ended(shared)
    one, other = run_folder(plan, tmp_path / "whole"), run_folder(plan, tmp_path / "shared")
    assert len(losses(one)) == 4
    assert losses(one) == losses(other)
    first, second = load_file(one.lora), load_file(other.lora)
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
    assert one.read_results().values == other.read_results().values  # the first rank alone evaluates


def test_every_rank_keeps_its_share_and_may_evaluate_as_often_as_it_likes(tmp_path: Path) -> None:
    script = tmp_path / "uneven.py"
    script.write_text(
        dedent(
            f"""
            import sys
            import torch
            from attrs import evolve
            from clora.planning.plan import make_plan
            from clora.plugin_system.discovery import discover
            from clora.config.load import load_recipe
            from clora.diffusion.rng import StepRng
            from clora.training.loop import make_state
            from clora.training.distributed import Ranks
            from clora.contracts.values import Forward
            from clora.inference.session import World

            sets = {[*SETS, "train.shard_base=true"]!r}
            plan = make_plan(load_recipe({str(RECIPE)!r}, (), sets, discover()))
            ranks = Ranks.current()
            shared, whole = World(plan, ranks), World(plan)
            kept = sum(p.to_local().numel() for p in shared.adapted.network.parameters())
            share = kept / sum(p.numel() for p in whole.adapted.network.parameters())
            sys.stdout.write(f"kept {{share}}\\n")  # in one piece: the ranks share one pipe

            def evaluate(world, grads):
                state = make_state(plan, world, ranks)
                source = plan.recipe.dataset.general("train")[0].source
                conditions = world.conditioning.conditions(["a cat"], [source])
                x = StepRng(0, rank=ranks.rank).normal("x", conditions.source)
                found = []
                for grad in grads:
                    asked = Forward("student", ("student",), x, torch.full((1,), 0.5), conditions, grad)
                    found.append(world.evaluator([asked])[0])
                world.pace.finish()
                owed = world.pace.owed()
                total = sum((v.square().mean() for v in found if v.requires_grad), torch.zeros(()))
                total = total if owed is None else total + owed
                if total.requires_grad:
                    total.backward()
                return [v.detach() for v in found], state.student.adapter.flat_grad

            # one rank has no evaluation with a gradient, and more of the others, in another order
            grads = [True, False, True] if ranks.first else [False, False, False, False, False]
            (v, g), (w, h) = evaluate(shared, grads), evaluate(whole, grads)
            assert all(a.equal(b) for a, b in zip(v, w, strict=True)), "velocities"
            assert g.equal(h), "gradients"
            assert bool(g.any()) == ranks.first
            ranks.close()
            """
        )
    )
    output = ended(started([str(script)]))
    assert output.count("kept 0.5\n") == 2, output


def test_a_large_models_backbone_comes_in_shares_and_is_checkpointed(
    tmp_path: Path, tiny_qwen: Callable[[str], Path]
) -> None:
    script = tmp_path / "qwen.py"
    script.write_text(
        dedent(
            f"""
            import torch
            from clora_qwen.backbone import QwenImageEdit
            from torch.distributed.fsdp import FSDPModule
            from clora.adapters.adapted import AdaptedNetwork
            from clora.adapters.adapter import Adapter
            from clora.api import Conditions, StepRng, NetworkMemory
            from clora.errors import CloraError
            from clora.training.distributed import Ranks
            from clora.training.shard_sync import Pace, CollectiveShardSync

            def backbone(**memory):
                model = {str(tiny_qwen("2511"))!r}
                return QwenImageEdit(model=model, side=64, memory=NetworkMemory(**memory))

            ranks, cpu = Ranks.current(), torch.device("cpu")
            made = backbone(weights="fp32", gradient_checkpointing=True)

            def gradient(pace, grads, idle):
                loaded = made.load(cpu)
                with pace.loading():
                    network = loaded.network
                assert isinstance(network, FSDPModule) == pace.shared
                adapted = AdaptedNetwork(network, tuple(made.shapes()))
                pace.attend(network)
                rng = StepRng(0).named("student")
                student = adapted.add("student", Adapter.fresh(made.shapes(), 2, 2.0, rng))
                for _, b, _ in student.factors.values():
                    b.data.normal_(generator=rng.torch("b"))
                images = torch.rand(1, 3, 48, 80, generator=torch.Generator().manual_seed(9)) * 2 - 1
                words = loaded.encode_prompts(["a cat"], images)
                conditions = Conditions(words.text, words.mask, loaded.encode_images(images))

                def velocity(grad, x):
                    with adapted.rows(["student"]), torch.set_grad_enabled(grad):
                        return loaded.velocity(x, torch.full((1,), 0.5), conditions)

                idle.append(lambda grad: velocity(grad, torch.zeros(1, 16, 6, 10)))
                total = torch.zeros(())
                for n, grad in enumerate(grads):
                    x = StepRng(0, step=n, rank=ranks.rank).normal("x", torch.empty(1, 16, 6, 10))
                    made_of_it = velocity(grad, x)
                    total = total + made_of_it.square().mean() if grad else total
                pace.finish()
                owed = pace.owed()
                (total if owed is None else total + owed).backward()
                return student.flat_grad

            idle = []
            pace = CollectiveShardSync(ranks, cpu, lambda grad: idle[-1](grad))
            grads = [True, False] if ranks.first else [False, True, False, True]
            shared, whole = gradient(pace, grads, idle), gradient(Pace(), grads, [])
            assert bool(whole.any())
            # gathered weights lie at other addresses, and some products round otherwise there
            assert (shared - whole).norm() < 1e-5 * whole.norm()
            refused = backbone(weights="int8").load(cpu)
            try:
                with pace.loading():
                    refused.network
            except CloraError as error:
                assert "train.shard_base" in str(error)
            else:
                raise AssertionError("int8 weights were shared")
            ranks.close()
            """
        )
    )
    ended(started([str(script)]))


def test_a_rank_that_works_on_its_own_does_not_send_the_others_away() -> None:
    """The first rank evaluates while the others follow; what it calls must not tell them that all is done."""

    class Following(ShardSync):
        finished = 0

        def finish(self) -> None:
            self.finished += 1

    session = ModelSession(plan_with())
    session.pace = pace = Following()
    session.meet(Distributed())
    assert pace.finished == 0
