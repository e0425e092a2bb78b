"""Twelve rows in one process are twelve ranks of one row, and twelve accumulated: for every loss, router and world."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import frozen
from distribution import write_distribution
from ranks_as_one import Joined, Noted, Together
from shallow_emoji import shallow_emoji
from tiny_recipe import tiny_recipe

from clora.config.load import load_recipe
from clora.diffusion.rng import StepRng
from clora.inference.session import ModelSession
from clora.planning.plan import Plan, make_plan
from clora.plugin_system.discovery import discover
from clora.runs.run_dir import RunDir
from clora.runs.stages.prepare import prepare
from clora.toolkit.memory.settings import NetworkMemory
from clora.training.batches import Batches, Targets
from clora.training.critics import SHARED, own_critics
from clora.training.distributed import Distributed
from clora.training.optimizer import TrainableAdapter
from clora.training.start import make_state
from clora.training.trainer import Trainer

RECIPES = Path(__file__).parents[2] / "recipes"
ROWS = 12
SMALL = (
    "student={rank: 4, alpha: 4, steps: 3}",
    "train.batch_size=1",
    "teacher.steps=1",
    "prepare={previews: 0, train_images: 2, general_images: 4}",
)
EMOJI = (*shallow_emoji(), "effects=[duotone_ocean, thermal]", *SMALL)


def plan_of(recipe: Path, sets: Iterable[str]) -> Plan:
    return make_plan(load_recipe(recipe, (), list(sets), discover()))


@frozen
class Setting:
    """A world with random adapters on it, which plans of other losses, routers and words share."""

    session: ModelSession
    targets: Targets
    trained: Mapping[str, TrainableAdapter]  # by adapter

    @classmethod
    def of(cls, plan: Plan, folder: Path) -> Setting:
        run = RunDir(folder)
        session = ModelSession(plan, cache=run.cache)
        targets = prepare(plan, session, run)
        state = make_state(plan, session, Distributed())
        trained = {"student": state.student, **state.critics}
        generator = torch.Generator().manual_seed(0)
        for each in trained.values():  # B = 0 would leave A without gradient
            each.adapter.flat.normal_(0, 0.02, generator=generator)
        return cls(session, targets, trained)

    def gradients(self, plan: Plan, rng: Sequence[Any], joined: bool) -> tuple[list[dict[str, Noted]], list[str]]:
        """Of each cycle who was trained, with the gradients noted, and the adapters; they add up in the adapters."""
        one_row = Batches(plan, self.session, self.targets)
        batches: Any = Joined(one_row) if joined else one_row
        critic = plan.recipe.critic
        names = ["student", *(() if critic is None else (SHARED, *own_critics(critic)))]
        made = []
        for name in names:
            self.trained[name].adapter.zero_grad()
        for each in rng:
            noted = {name: Noted(self.trained[name], rate=0.0) for name in names}
            own = {name: noted[name] for name in names if name not in ("student", SHARED)}
            trainer = Trainer(
                plan.recipe, batches, self.session.evaluator, noted["student"], noted.get(SHARED), own=own
            )
            trainer.cycle(0, each)
            made.append(noted)
        return made, names

    def check(self, plan: Plan) -> set[str]:
        """Compare one batch of all ranks' rows with the ranks; returns the streams of its rows."""
        ranks = tuple(StepRng(0, rank=rank) for rank in range(ROWS))
        each, names = self.gradients(plan, ranks, joined=False)
        accumulated = {name: self.trained[name].adapter.flat_grad / ROWS for name in names}
        ((together,), _) = self.gradients(plan, [Together(ranks, (1,) * ROWS)], joined=True)
        for name in names:
            noted = together[name].noted
            assert len(noted) == (1 if name == "student" else plan.recipe.critic.updates)
            for update, gradient in enumerate(noted):
                mean = torch.stack([rank[name].noted[update] for rank in each]).mean(0)
                assert gradient.norm() > 0
                assert (gradient - mean).norm() <= 2e-4 * mean.norm(), (name, update)
            assert (torch.stack(noted).sum(0) - accumulated[name]).norm() <= 2e-4 * accumulated[name].norm(), name
        batches = Batches(plan, self.session, self.targets)
        return {batches.batch(rng).route.rows[0].stream for rng in ranks}


@pytest.fixture(scope="module")
def emoji(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting.of(
        plan_of(RECIPES / "collection.yaml", (*EMOJI, "critic.own=[target]")), tmp_path_factory.mktemp("emoji") / "run"
    )


def those_that_train() -> list[str]:
    """The recipes, those that train the same but for sizes once."""
    catalogue, found = discover(), {}
    for path in sorted(RECIPES.glob("*.yaml")):
        recipe = load_recipe(path, (), (), catalogue).recipe
        parts = recipe.losses, recipe.critic and recipe.critic.losses, recipe.simulations, recipe.router, recipe.prompts
        if recipe.losses:
            found.setdefault(repr(parts), path.stem)
    return list(found.values())


@pytest.mark.slow(2)
@pytest.mark.parametrize("recipe", those_that_train())
def test_twelve_rows_of_a_recipe_are_twelve_ranks_of_one_row(recipe: str, emoji: Setting) -> None:
    fewer = ("critic.updates=1",) if recipe == "as_the_paper" else ()
    plan = plan_of(RECIPES / f"{recipe}.yaml", (*EMOJI, *fewer))
    p_switch = plan.recipe.router.p_switch
    expected = {0.0: {"general"}, 1.0: {"effect"}}.get(p_switch, {"effect", "general"})
    assert emoji.check(plan) == expected  # an uneven share of each


#: beside what the recipes have: both schedules, more critic updates, every loss and router with its other settings
OTHERS = {
    "shared": ("train.schedule=shared", "critic.updates=2", "router.p_switch=0.2"),
    "fresh rollouts, unpacked": ("critic={updates: 2, reuse_rollout: false}", "train.pack=false"),
    "weights, one switch a batch": (
        "losses.ts_dmd={weight: 0.3, fade_in: 0.5}",
        "losses.ta_fm={weight: 2.0, fade_out: 1.0, sigma_sampling: above_dmd}",
        "critic.losses.on_target.weight=0.5",
        "router={use: pdsr, per: batch, hold_steps: 2}",
        "train.steps=1",
    ),
    "gradients, simulations": (
        "simulations={backward: {use: backward, stop: always_all}, target: {use: target, last_steps: 2}}",
        "losses.bs_dmd={guidance_scale: 3.0, tau_min: 300, bound: pre_shift, floor_of_spread: 0.1}",
        "losses.ts_dmd={normalise: false, fade_out: 1.0}",
    ),
    "velocity matching": ("losses.keep={use: velocity_matching, streams: [general, effect], weight: 4.0}",),
    "two critics": ("critic={updates: 2, own: [target]}",),
    "another plugin's": ("router={use: round_robin}", "losses.ta_fm={use: huber_anchor, delta: 0.1}"),
}


@pytest.fixture
def _round_robin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stranger's plugin, as if installed."""
    write_distribution(tmp_path, "clora-roundrobin", {"roundrobin": "clora_roundrobin"})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "third_party/src"))


@pytest.mark.slow(2)
@pytest.mark.usefixtures("_round_robin")
@pytest.mark.parametrize("sets", OTHERS.values(), ids=OTHERS)
def test_twelve_rows_are_twelve_ranks_of_one_row_whatever_the_settings(sets: tuple[str, ...], emoji: Setting) -> None:
    emoji.check(plan_of(RECIPES / "collection.yaml", (*EMOJI, *sets)))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen_image_edit", "flux_kontext"])
def test_twelve_rows_are_twelve_ranks_of_one_row_in_the_large_models_too(
    family: str, tiny_qwen: Callable[[str], Path], tiny_flux: Path, tmp_path: Path
) -> None:
    model = tiny_flux if family == "flux_kontext" else tiny_qwen("2511")
    keys = {"model": str(model), "side": 64, "memory": {"weights": "fp32"}}
    component = discover().find("backbone", family).cls(**(keys | {"memory": NetworkMemory(weights="fp32")}))
    recipe = tiny_recipe(tmp_path, {"use": family} | keys, component.shapes())
    plan = plan_of(recipe, (*SMALL, "student.rank=2"))
    assert Setting.of(plan, tmp_path / "run").check(plan) == {"effect", "general"}
