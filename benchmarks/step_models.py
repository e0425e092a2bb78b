"""The training cycles that step_cost.py times: a recipe's on the emoji model, and one on blocks of Qwen-Image."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from clora_triton.kernels import Auto
from random_qwen import Model, Scenes, Size, adapters
from torch.nn.functional import gelu

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.eager import eager_lora_linear
from clora.adapters.evaluator import Evaluator
from clora.adapters.feed_forward import LoraFeedForward
from clora.adapters.lora_linear import LoraLinear
from clora.api import NetworkMemory, StepRng
from clora.config.load import load_recipe
from clora.inference.session import ModelSession
from clora.planning.plan import Plan, make_plan
from clora.plugin_system.discovery import discover
from clora.runs.job import run_folder
from clora.runs.progress import Progress
from clora.runs.stages.prepare import prepare
from clora.training.batches import Batches
from clora.training.distributed import Distributed
from clora.training.optimizer import TrainableAdapter
from clora.training.start import make_state
from clora.training.trainer import Trainer

ROOT = Path(__file__).parents[1]


class Plain:
    """The core's own computation, which asks nothing of groups or pairs: linear by linear."""

    def __call__(self, *given: Any) -> torch.Tensor:
        """y of one linear."""
        return eager_lora_linear(*given)

    def group(self, x: torch.Tensor, linears: Sequence[tuple[Any, ...]]) -> list[torch.Tensor]:
        """y of every linear."""
        return [self(x, *each) for each in linears]

    def mlp(self, x: torch.Tensor, up: tuple[Any, ...], down: tuple[Any, ...], activation: str) -> torch.Tensor:
        """Linear, GELU and linear, as the network itself would have them."""
        return self(gelu(self(x, *up), approximate="tanh" if activation == "gelu_tanh" else "none"), *down)


#: what a recipe without `kernels:` computes with, and `kernels: {use: auto}`
KERNELS: dict[str, Any] = {"off": Plain(), "on": Auto()}


def switch(adapted: AdaptedNetwork, kernel: Any) -> None:
    """Have all of a network's linears, its groups and its pairs computed by one kernel."""
    adapted.routing.kernel = kernel
    for part in adapted.network.modules():
        if isinstance(part, LoraFeedForward):
            part.kernel = kernel
        elif isinstance(part, LoraLinear) and part.shared is not None:
            part.shared.kernel = kernel


@frozen
class Spent:
    """What one cycle took: the clock's seconds, the processor's, and the row forwards that were made."""

    seconds: float
    processor: float
    forwards: float


@frozen
class Timed:
    """Cycles on one model, one for every schedule; how forwards are run is set anew for each."""

    model: str
    rank: int
    batch: int
    latents: str  # height x width of what the model makes, in latents
    cycles: Mapping[str, Trainer]
    device: torch.device

    def run(self, update: int, schedule: str, pack: bool, kernel: str) -> Spent:
        """Cycle number `update`, which draws the same whichever way it is run."""
        trainer = self.cycles[schedule]
        evaluator = trainer.evaluator
        evaluator.pack = pack
        switch(evaluator.adapted, KERNELS[kernel])
        counted = evaluator.row_forwards
        self._settle()
        started = time.perf_counter(), time.process_time()
        trainer.cycle(update, StepRng(0))
        self._settle()
        seconds, processor = time.perf_counter() - started[0], time.process_time() - started[1]
        return Spent(seconds, processor, evaluator.row_forwards - counted)

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def emoji(recipe: Path, schedules: Sequence[str], device: str) -> Timed:
    """The recipe's cycle on its own model; targets that a run has prepared are used again."""
    plan = make_plan(load_recipe(recipe, (), [f"device={device}", "kernels={use: auto}"], discover()))
    session = ModelSession(plan)
    targets = prepare(plan, session, run_folder(plan, ROOT / "runs"), progress=Progress())
    state = make_state(plan, session, Distributed())
    batches = Batches(plan, session, targets)
    first = Trainer(plan.recipe, batches, session.evaluator, state.student, state.critic)
    height, width = batches.context(StepRng(0), "student", first.schedule).targets.shape[-2:]
    about = (plan.recipe.student.rank, plan.recipe.train.batch_size, f"{height}x{width}")
    return Timed("emoji", *about, _by_schedule(first, schedules), session.device)


def qwen(recipe: Path, schedules: Sequence[str], size: Size, rank: int, picture: tuple[int, int], device: str) -> Timed:
    """The recipe's cycle on random blocks of Qwen-Image; `picture`: tokens of its side, and of the prompt.

    The recipe's own model and data are not loaded. Batches of one row, as in the paper; float32 on a CPU, bfloat16 on a
    GPU.
    """
    at = torch.device(device)
    plan: Plan = make_plan(load_recipe(recipe, (), ["train.batch_size=1", f"student.rank={rank}"], discover()))
    model = Model(size, NetworkMemory("fp32" if device == "cpu" else "bf16"), at)
    adapted = AdaptedNetwork(model.network, tuple(size.shapes()), KERNELS["on"])
    made = adapters(size, rank, at)
    for name, adapter in made.items():
        adapted.add(name, adapter)
    train, tokens = plan.recipe.train, picture[0]
    student, critic = (TrainableAdapter(made[name], train.lr, train, Distributed()) for name in ("student", "critic"))
    answers = Evaluator(model, adapted)  # pyright: ignore[reportArgumentType] - training asks for no more of a backbone
    contexts = Scenes(plan, 2 * tokens, at, picture[1])
    trainer = Trainer(plan.recipe, contexts, answers, student, critic)  # pyright: ignore[reportArgumentType] - the same
    name = f"{size.layers} Qwen-Image block{'s' * (size.layers != 1)}, {128 * size.heads} wide"
    return Timed(name, rank, 1, f"{2 * tokens}x{2 * tokens}", _by_schedule(trainer, schedules), at)


def _by_schedule(trainer: Trainer, schedules: Sequence[str]) -> dict[str, Trainer]:
    """The same cycle under each schedule of rollouts: one model, one student, one critic."""
    recipe, parts = trainer.recipe, (trainer.batches, trainer.evaluator, trainer.student, trainer.critics["critic"])
    return {name: Trainer(evolve(recipe, train=evolve(recipe.train, schedule=name)), *parts) for name in schedules}
