"""Seconds and memory of one training cycle on a Qwen-Image transformer with random weights, full size or scaled down.

    python benchmarks/full_size.py [--layers 60 --heads 24 --side 1024 --rank 128 --weights fp8 ...]

Four ways to run the same losses, each in a process of its own: forwards packed on one base, forwards one by one on one
base, one by one on three bases (student, critic and teacher each with its own, as the public code has them), and that
code's plain schedule, which rolls the student out to the last step in every update. What is drawn is the same in all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from attrs import evolve
from machine import write_rows
from random_qwen import BLOCKS, TEACHERS, TEXT, WORDS, Model, Scenes, Size, adapters

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.evaluator import Evaluator
from clora.api import Blueprint, Forward, NetworkMemory, StepContext, StepRng, network_footprint
from clora.config.load import load_recipe
from clora.planning.plan import make_plan
from clora.plugin_system.discovery import discover
from clora.toolkit.memory.measure import LiveBytes
from clora.training.answers import forwards_of
from clora.training.distributed import Distributed
from clora.training.optimizer import TrainableAdapter
from clora.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
VARIANTS = ("packed", "one_by_one", "three_bases", "plain_schedule")
WARM = 2  # cycles before the clock runs


def memory(args: argparse.Namespace) -> NetworkMemory:
    """The `memory:` keys that the command line asks for."""
    return NetworkMemory(args.weights, args.checkpointing, args.offload)


class ThreeBases:
    """Answers each role's forwards on the base that it has for itself, one by one."""

    def __init__(self, evaluators: dict[str, Evaluator]) -> None:
        self.evaluators = evaluators

    def __call__(self, forwards: Sequence[Forward]) -> list[torch.Tensor]:
        return [self.evaluators.get(f.role, self.evaluators["teacher"])([f])[0] for f in forwards]


class ToTheEnd:
    """A simulation that goes on to the schedule's last step, whatever step was drawn: the public code's loop."""

    def __init__(self, inner, steps: int) -> None:
        self.inner, self.steps = inner, steps

    def check_schedule(self, schedule) -> list[str]:
        return []

    def simulate(self, step: StepContext):
        asking, answer, asked = self.inner.simulate(step), None, []
        while True:
            try:
                asked.append(asking.send(answer))
            except StopIteration as done:
                for _ in range(self.steps - len(asked)):
                    yield tuple(evolve(forward, grad=False) for forward in forwards_of(asked[-1]) or ())
                return done.value
            answer = yield asked[-1]


def cycle_of(args: argparse.Namespace, device: torch.device) -> Trainer:
    """A ready cycle in one of the four ways."""
    sets = ["train.batch_size=1", f"student.rank={args.rank}", "student.steps=8", "critic.updates=5", "train.pack=true"]
    sets += [f"train.schedule={args.schedule if args.variant != 'plain_schedule' else 'independent'}"]
    plan = make_plan(load_recipe(ROOT / "recipes/collection.yaml", (), sets, discover()))
    size = Size(args.layers, args.heads)
    made = adapters(size, args.rank, device)

    def evaluator(names: Sequence[str], pack: bool) -> Evaluator:
        model = Model(size, memory(args), device)
        adapted = AdaptedNetwork(model.network, tuple(size.shapes()))
        for name in names:
            adapted.add(name, made[name])
        return Evaluator(model, adapted, pack=pack)  # pyright: ignore[reportArgumentType]

    if args.variant == "three_bases":
        alone = {role: evaluator((role,), False) for role in ("student", "critic")}
        answers = ThreeBases({**alone, "teacher": evaluator(TEACHERS, False)})
    else:
        answers = evaluator(tuple(made), args.variant == "packed")
    recipe = plan.recipe
    student = TrainableAdapter(made["student"], recipe.train.lr, recipe.train, Distributed())
    critic = TrainableAdapter(made["critic"], recipe.train.lr, recipe.train, Distributed())
    if args.variant == "plain_schedule":  # the critic never reads the student's own rollout
        backward = ToTheEnd(recipe.simulations["backward"], recipe.student.steps)
        critic_keys = None if recipe.critic is None else evolve(recipe.critic, reuse_rollout=False)
        recipe = evolve(recipe, simulations={**recipe.simulations, "backward": backward}, critic=critic_keys)
    return Trainer(recipe, Scenes(plan, args.side // 8, device), answers, student, critic)  # pyright: ignore


def measured(args: argparse.Namespace) -> dict[str, object]:
    """One variant in this process: seconds of a cycle and the most memory that it took."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with LiveBytes() as live:  # what the CPU has no counter for
        trainer = cycle_of(args, device)
        live.peak = live.now  # a network is built whole before it is made to fit
        for update in range(WARM):
            trainer.cycle(update, StepRng(0))
    seconds, forwards = [], []
    for update in range(WARM, WARM + args.cycles):
        started, counted = time.perf_counter(), rows_of(trainer)
        trainer.cycle(update, StepRng(0))
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        forwards.append(rows_of(trainer) - counted)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else live.peak
    return {
        "median_seconds": round(statistics.median(seconds), 3),
        "least_seconds": round(min(seconds), 3),
        "mean_forward_equivalents": round(statistics.mean(forwards), 1),
        "peak_mib": round(peak / 2**20),
        "peak_of": "CUDA's allocator" if device.type == "cuda" else "tensors alive",
    }


def rows_of(trainer: Trainer) -> float:
    """Row forwards made so far."""
    parts = trainer.evaluator.evaluators.values() if isinstance(trainer.evaluator, ThreeBases) else [trainer.evaluator]
    return sum(part.row_forwards for part in parts)


def predicted(args: argparse.Namespace) -> int:
    """What `clora validate` would say of the packed way: base, adapters, three rows held and at work."""
    size, tokens = Size(args.layers, args.heads), 2 * (args.side // 16) ** 2
    shapes = size.shapes()

    def forward(network: torch.nn.Module) -> torch.Tensor:
        sizes, side = {"device": "meta", "dtype": memory(args).dtype}, args.side // 16
        text, made = torch.empty(1, WORDS, TEXT, **sizes), torch.empty(1, tokens, 64, **sizes)
        shape = [[(1, side, side)] * 2]
        return network(made, text, timestep=torch.empty(1, **sizes), img_shapes=shape, return_dict=False)[0]

    told = network_footprint(Blueprint(size.build, forward, BLOCKS, memory(args), shapes, args.rank))
    numbers = args.rank * sum(inputs + outputs for inputs, outputs in shapes.values())
    adapters = 4 * numbers * (2 * 4 + len(TEACHERS))
    waiting = 0 if torch.cuda.is_available() else told.waiting  # the same memory there
    return told.weights + waiting + adapters + 3 * (told.row + told.backward)


def main() -> None:
    """Run every variant in a process of its own and write results/full_size.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layers", 60), ("heads", 24), ("side", 1024), ("rank", 128), ("cycles", 4), ("offload", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--weights", default="bf16", choices=("fp32", "bf16", "fp8", "int8", "nf4"))
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--schedule", default="independent", choices=("independent", "shared"))
    parser.add_argument("--variant", choices=VARIANTS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/full_size.csv")
    args = parser.parse_args()
    if args.variant:
        print(json.dumps(measured(args)))
        return
    keys = ("layers", "heads", "side", "rank", "weights", "checkpointing", "offload", "schedule", "cycles")
    rows: list[dict[str, object]] = []
    told = round(predicted(args) / 2**20)
    for variant in args.variants:
        command = [sys.executable, __file__, *sys.argv[1:], "--variant", variant]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{variant}: {done.stderr.strip().splitlines()[-1]}")
        numbers = json.loads(done.stdout.splitlines()[-1])
        rows.append({"variant": variant, **{key: getattr(args, key) for key in keys}, **numbers, "predicted_mib": ""})
        rows[-1]["predicted_mib"] = told if variant == "packed" else ""
        print(rows[-1], flush=True)
    write_rows(args.out, rows)


if __name__ == "__main__":
    main()
