"""A small plan to prepare, and the emoji model as a large one that loads in parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from attrs import evolve, field, frozen
from clora_emoji.backbone import EmojiBackbone
from clora_emoji.loaded import LoadedEmoji
from shallow_emoji import shallow_emoji

from clora.config.load import load_recipe
from clora.contracts.values import Conditions, TextEmbeddings
from clora.inference.session import ModelSession
from clora.planning.plan import Plan, make_plan
from clora.plugin_system.discovery import discover
from clora.runs.run_dir import RunDir
from clora.runs.stages.prepare import prepare
from clora.training.batches import Targets
from clora.training.distributed import Distributed

RECIPE = Path(__file__).parents[1] / "recipes/collection.yaml"
EFFECTS = ("duotone_ocean", "thermal")
SETS = (
    *shallow_emoji(),
    f"effects=[{', '.join(EFFECTS)}]",
    "student.rank=2",
    "student.steps=3",
    "train.steps=1",
    "warm_start=null",
    "train.batch_size=2",
    "critic.updates=1",
    "teacher.steps=2",
    "prepare.batch_size=3",
    "prepare.previews=2",
    "prepare.train_images=5",
    "prepare.general_images=4",
    "evaluate.images=1",
    "evaluate.general_images=1",
)


def plan_of(*sets: str) -> Plan:
    return make_plan(load_recipe(RECIPE, (), [*SETS, *sets], discover()))


@frozen
class InParts(EmojiBackbone):
    """The emoji model as a large one: its parts come when needed, and `together` notes which were there at once."""

    together: list[tuple[str, frozenset[str]]] = field(factory=list)

    def load(self, device: torch.device) -> LoadedInParts:
        return LoadedInParts(self, device)


class LoadedInParts:
    def __init__(self, owner: InParts, device: torch.device) -> None:
        self.owner = owner
        self.device = device
        self.there: set[str] = set()
        self.whole: LoadedEmoji | None = None

    def _emoji(self, what: str, part: str) -> LoadedEmoji:
        self.there.add(part)
        self.owner.together.append((what, frozenset(self.there)))
        if self.whole is None:
            self.whole = EmojiBackbone.load(self.owner, self.device)
        return self.whole

    def keep(self, *parts: str) -> None:
        self.there &= set(parts)
        if "network" not in self.there:
            self.whole = None  # another object when it is next needed, without any adapter

    @property
    def network(self) -> torch.nn.Module:
        return self._emoji("network", "network").network

    def fit(self, picture: torch.Tensor) -> torch.Tensor:
        return picture

    def encode_prompts(self, prompts: Sequence[str], images: torch.Tensor) -> TextEmbeddings:
        return self._emoji("encode", "text").encode_prompts(prompts, images)

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        return self._emoji("encode", "pictures").encode_images(images)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self._emoji("decode", "pictures").decode(latents)

    def velocity(self, x_sigma: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        assert self.whole is not None
        assert "network" in self.there
        return self._emoji("velocity", "network").velocity(x_sigma, sigma, conditions)


def in_parts(plan: Plan) -> tuple[Plan, InParts]:
    assert isinstance(plan.recipe.backbone, EmojiBackbone)
    backbone = InParts(plan.recipe.backbone.weights)
    return evolve(plan, recipe=evolve(plan.recipe, backbone=backbone)), backbone


def prepared(plan: Plan, runs: Path, ranks: Distributed | None = None) -> tuple[ModelSession, Targets]:
    folder = RunDir(runs / "run")
    session = ModelSession(plan, cache=folder.cache)
    return session, prepare(plan, session, folder, ranks)
