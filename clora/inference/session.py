"""A plan in memory: the frozen base with its adapters, and every condition encoded once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.adapter import Adapter, Factors
from clora.adapters.converted_teachers import read_teacher
from clora.adapters.eager import eager_lora_linear
from clora.adapters.evaluator import Evaluator
from clora.adapters.teacher_prefetch import Source
from clora.adapters.teacher_slots import TeacherSlots
from clora.contracts.loaded_backbone import LoadsInParts
from clora.errors import CloraError
from clora.inference.conditioning import Conditioning
from clora.runs.cache_shards import Shards
from clora.training.shard_sync import CollectiveShardSync, ShardSync

if TYPE_CHECKING:
    from pathlib import Path

    from clora.contracts.loaded_backbone import LoadedBackbone, Part
    from clora.lora_io.scales import StrengthFrom
    from clora.planning.plan import Plan
    from clora.training.distributed import Distributed


def device_of(wanted: str) -> torch.device:
    """The device that a recipe's `device:` means to this process: each rank takes the GPU of its own number.

    Raises CloraError where `cuda` is asked for and there is none.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise CloraError("device: cuda was asked for, but torch sees no CUDA GPU here; write `device: auto` or `cpu`")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


class ModelSession:
    """The backbone with the teachers of a plan on it, and its conditions; the transformer comes when first needed.

    Where the recipe wants one base for several `ranks`, every rank makes its world at the same point of the work.
    Where the backbone loads in parts and a `cache` folder is given, conditions are kept on disk below it.
    """

    def __init__(self, plan: Plan, ranks: Distributed | None = None, cache: Path | None = None) -> None:
        self.plan = plan
        self.cache = cache
        self.device = device_of(plan.recipe.device)
        self.backbone: LoadedBackbone = plan.recipe.backbone.load(self.device)
        self._parts = self.backbone if isinstance(self.backbone, LoadsInParts) else None
        self.shapes = plan.recipe.backbone.shapes()
        store = None
        if cache is not None and self._parts is not None:
            store = Shards(cache / "conditions" / self.digest)
        self.conditioning = Conditioning(self.backbone, plan.recipe.dataset, self.device, store, self._encoding)
        self._adapted: AdaptedNetwork | None = None
        self._evaluator: Evaluator | None = None
        self._teachers: TeacherSlots | None = None
        self._aside: dict[str, Adapter] = {}  # the adapters of a transformer that was dropped
        self.pace = ShardSync()
        if plan.recipe.train.shard_base and ranks is not None and ranks.world_size > 1:
            self.pace = CollectiveShardSync(ranks, self.device, self._idle)

    @cached_property
    def digest(self) -> str:
        """The backbone's hash, taken once: every switch of a teacher asks for it."""
        return self.plan.recipe.backbone.digest()

    @property
    def adapted(self) -> AdaptedNetwork:
        """The transformer with its adapters."""
        if self._adapted is None:
            kernel = self.plan.recipe.kernels or eager_lora_linear
            with self.pace.loading():
                network = self.backbone.network
            self._adapted = AdaptedNetwork(network, tuple(self.shapes), kernel)
            self.pace.attend(network)
            _ = self.teachers  # from now on it supplies them
            for name, adapter in self._aside.items():
                self._adapted.add(name, adapter)
            self._aside = {}
        return self._adapted

    def _idle(self, grad: bool) -> None:
        """Evaluate one row of no consequence, through the student where a gradient is wanted."""
        conditions = self.conditioning.conditions([""], [self.plan.general()[0].source])
        x_sigma = torch.zeros_like(conditions.source, dtype=torch.float32)
        with self.adapted.rows(["student" if grad else None]):
            self.backbone.velocity(x_sigma, torch.ones(1, device=self.device), conditions)

    @property
    def evaluator(self) -> Evaluator:
        """What answers the forwards of training."""
        if self._evaluator is None:
            self._evaluator = Evaluator(self.backbone, self.adapted, pack=self.plan.recipe.train.pack)
        return self._evaluator

    @property
    def teachers(self) -> TeacherSlots:
        """The bank's teachers, put on the base under their effects' names when rows first ask for them."""
        if self._teachers is None:
            sources = {card.name: Source(card.lora, card.scale, card.strength) for card in self.plan.cards}
            slots = self.plan.recipe.teacher.slots
            self._teachers = TeacherSlots(self.adapted, sources, partial(read_factors, self), self.device, slots)
        return self._teachers

    def meet(self, ranks: Distributed) -> None:
        """Return once every rank has come here; one that shares the base evaluates along with those that are late.

        A rank that works on its own, such as the first while it evaluates, meets nobody: the others still follow it.
        """
        if ranks.world_size > 1:
            self.pace.finish()
        ranks.wait()

    def only(self, *parts: Part) -> None:
        """Drop the other parts of a backbone that loads in parts; its adapters outlive the transformer.

        A base that ranks share stays: each holds a small part of it, and none can drop it alone.
        """
        if self._parts is None:
            return
        if self.pace.shared:
            parts = (*parts, "network")
        if "network" not in parts and self._adapted is not None:
            self.teachers.rest()
            supplied = self.teachers.sources
            self._aside = {name: a for name, a in self._adapted.adapters.items() if name not in supplied}
            self._adapted = self._evaluator = self._teachers = None
        self._parts.keep(*parts)

    @contextmanager
    def _encoding(self) -> Iterator[None]:
        """Room for the encoders, in which nothing else is loaded. Raises CloraError in the middle of training."""
        if self._parts is not None:
            if self._adapted is not None and any(adapter.trains for adapter in self._adapted.adapters.values()):
                raise CloraError(
                    "an encoded condition has gone from the cache while the run trained; "
                    "the same command encodes it again and goes on from the last checkpoint"
                )
            self.only("text", "pictures")
        yield
        self.only("pictures", "network")  # the text encoder is not left beside the transformer

    def separate_conditioning(self, kept_bytes: int) -> Conditioning:
        """Conditions encoded apart from this session's own, which then stay as they are; both read the same store."""
        dataset, store = self.plan.recipe.dataset, self.conditioning.store
        return Conditioning(self.backbone, dataset, self.device, store, self._encoding, kept_bytes)

    def forget_trained(self) -> None:
        """Take the student and the critic off the base, once they are exported."""
        if self._adapted is not None:
            for name in [name for name, adapter in self._adapted.adapters.items() if adapter.trains]:
                self._adapted.remove(name)
        self._evaluator = None


def read_factors(session: ModelSession, source: Source) -> Factors:
    """A LoRA file's factors on the CPU, in the file's own types. Raises LoraFileError where it does not fit.

    Warns what it costs to turn a file that is no plain LoRA into one.
    """
    modules = session.adapted.modules
    # no rank has a whole weight where the base is shared, and none may gather one alone
    weights = None if session.pace.shared else lambda module: modules[module].weight_matrix
    cache = None if session.cache is None else session.cache / "teachers"
    deltas = read_teacher(source.path, session.shapes, weights, cache, session.digest, source.strength)
    return {name: (delta.a, delta.b, delta.scale * source.scale) for name, delta in deltas.items()}


def read_adapter(session: ModelSession, path: Path, scale: float = 1.0, strength: StrengthFrom = None) -> Adapter:
    """A LoRA file as an adapter of the world's base. Raises LoraFileError where it does not fit."""
    return Adapter.of(read_factors(session, Source(path, scale, strength))).to(session.device)
