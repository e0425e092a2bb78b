"""Makes the batch of any step from its draws alone: route, source pictures, prompts, conditions, targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from clora.contracts.loaded_backbone import Guides
from clora.contracts.step import StepContext
from clora.contracts.values import Batch, Phase, Prompts, RoleConditions, Row
from clora.diffusion.flow import guide
from clora.inference.lru_cache import LruCache
from clora.planning.shift import student_shift
from clora.planning.teacher_schedule import route_of
from clora.planning.texts import prompts_of

if TYPE_CHECKING:
    from clora.diffusion.flow import Schedule
    from clora.diffusion.rng import StepRng
    from clora.inference.session import ModelSession
    from clora.planning.plan import Plan


#: bytes of the teachers' outputs kept on the device
KEPT_BYTES = 1 << 28


class Targets:
    """The teachers' own outputs, by effect and source picture; read when needed, and kept up to so many bytes.

    `read` gives the latents [C, h, w] of (effect, source); `digest` is the hash of all that decides them.
    """

    def __init__(
        self,
        names: Mapping[str, tuple[str, ...]],
        read: Callable[[str, str], torch.Tensor],
        device: torch.device,
        kept_bytes: int = KEPT_BYTES,
        digest: str = "",
    ) -> None:
        self.names = names
        self.digest = digest
        self.device = device
        self._read = read
        self._kept = LruCache(kept_bytes)

    def latents(self, effect: str, source: str) -> torch.Tensor:
        """The teacher's output for one picture, [C, h, w] on the device."""
        record = self._kept.get((effect, source))
        if record is None:
            record = {"latents": self._read(effect, source).to(self.device)}
            self._kept.add((effect, source), record)
        return record["latents"]


class Batches:
    """The batches of a run; nothing is carried from one step to the next."""

    def __init__(self, plan: Plan, session: ModelSession, targets: Targets) -> None:
        self.plan = plan
        self.session = session
        self.targets = targets
        self.effects = plan.mix
        self.general = plan.general()
        self.shift = student_shift(plan.recipe)
        loaded = session.backbone
        self.decode = loaded.decode
        self.guide = loaded.guide if isinstance(loaded, Guides) else guide
        self.blank = torch.zeros_like(session.conditioning.latents([self.general[0].source])[0], dtype=torch.float32)

    def batch(self, rng: StepRng) -> Batch:
        """The batch of the step that `rng` stands for."""
        route = route_of(self.plan.recipe, rng, self.effects, self.plan.owners)
        choose = rng.python("batch")
        rows = [self._row(row, choose.random()) for row in route.rows]
        sources, prompts, targets = zip(*rows, strict=True)
        return Batch(route, sources, prompts, torch.stack(targets))

    def _row(self, row: Row, u: float) -> tuple[str, Prompts, torch.Tensor]:
        """Source, prompts and target of one row; u in [0, 1) picks among the row's pictures."""
        if row.effect is None:
            item = self.general[int(u * len(self.general))]
            return item.source, prompts_of(self.plan.recipe.prompts, item, self.plan.owners), self.blank
        names = self.targets.names[row.effect]
        source = names[int(u * len(names))]
        return source, self.plan.prompts[row.effect], self.targets.latents(row.effect, source)

    def context(self, rng: StepRng, phase: Phase, schedule: Schedule) -> StepContext:
        """The context of a step, over all rows of its batch."""
        batch = self.batch(rng)
        return StepContext(
            phase=phase,
            rng=rng,
            schedule=schedule,
            shift=self.shift,
            route=batch.route,
            rows=tuple(range(len(batch.sources))),
            conditions=self._conditions(batch.prompts, batch.sources),
            targets=batch.targets,
            decode=self.decode,
            guide=self.guide,
        )

    def _conditions(self, prompts: Sequence[Prompts], sources: Sequence[str]) -> RoleConditions:
        conditions = self.session.conditioning.conditions
        return RoleConditions(
            student=conditions([p.student for p in prompts], sources),
            teacher=conditions([p.teacher for p in prompts], sources),
            empty=conditions([""] * len(sources), sources),
        )
