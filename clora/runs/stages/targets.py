"""The teachers' own outputs for their training pictures (the y of TA-FM and TS-DMD), made once and kept.

They lie in a cache beside the runs: a folder for all that decides a teacher, in it the outputs by picture, a file for
every few of them. Runs that differ only in method share them, and a killed prepare goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from attrs import frozen

from clora.adapters.converted_teachers import teacher_digest
from clora.diffusion.rng import StepRng
from clora.errors import CloraError
from clora.inference.edit_sampler import EditSampler
from clora.runs.cache_shards import Shards
from clora.runs.run_dir import RunDir, digest_of
from clora.training.batches import Targets

if TYPE_CHECKING:
    from clora.contracts.values import EffectCard
    from clora.inference.session import ModelSession
    from clora.planning.plan import Plan
    from clora.runs.progress import Progress
    from clora.training.distributed import Distributed


@frozen
class Chunk:
    """Some pictures of one effect whose outputs are made together and written as one file."""

    card: EffectCard
    sources: tuple[str, ...]


@frozen
class Bank:
    """The outputs of all effects on disk."""

    plan: Plan
    session: ModelSession
    shards: Mapping[str, Shards]  # by effect

    @classmethod
    def at(cls, plan: Plan, session: ModelSession, cache: Path) -> Bank:
        """The bank below a cache folder."""
        folders = {card.name: cache / "targets" / f"{card.name}-{_digest(plan, card, cache)}" for card in plan.cards}
        return cls(plan, session, {effect: Shards(folder) for effect, folder in folders.items()})

    def key(self, source: str) -> str:
        """A picture's key: its noise is drawn by its name, so the name belongs to it as its content does."""
        return digest_of([source, self.session.conditioning.digest(source)])

    def digest(self) -> str:
        """The hash of all that decides the outputs: what decides each teacher's, and the pictures."""
        shards = self.shards.items()
        return digest_of({e: [s.folder.name, *map(self.key, self.plan.sources(e))] for e, s in shards})

    def check(self, ranks: Distributed) -> None:
        """Find damaged files, every rank its share, and see what is left."""
        for card in self.plan.cards:
            keys = [self.key(source) for source in self.plan.sources(card.name)]
            self.shards[card.name].check(keys, ranks.rank, ranks.world_size)
        self.session.meet(ranks)
        self.refresh()

    def refresh(self) -> None:
        """See what all ranks have written."""
        for shards in self.shards.values():
            shards.refresh()

    def missing(self) -> list[Chunk]:
        """What is still to be made, cut the same way whatever is there already."""
        rows = self.plan.recipe.prepare.batch_size
        chunks = []
        for card in self.plan.cards:
            sources = self.plan.sources(card.name)
            for start in range(0, len(sources), rows):
                part = sources[start : start + rows]
                chunks.append(Chunk(card, tuple(s for s in part if self.key(s) not in self.shards[card.name])))
        return [chunk for chunk in chunks if chunk.sources]

    def make(self, chunk: Chunk) -> None:
        """Sample the teacher, which is on the base, and keep its outputs. Raises CloraError for numbers not finite."""
        card = chunk.card
        # the seed is fixed: runs that differ in their own seed share the teachers' outputs
        rng = StepRng(0).named("targets").named(card.name)
        prompts, noise = [card.teacher_prompt] * len(chunk.sources), [rng.named(name) for name in chunk.sources]
        made = EditSampler(self.plan, self.session).teacher_latents(card.name, prompts, chunk.sources, noise)
        records = {}
        for source, latents in zip(chunk.sources, made, strict=True):
            if not torch.isfinite(latents).all():
                raise CloraError(f"the teacher of {card.name}, {card.lora}, makes no finite numbers of {source}")
            records[self.key(source)] = {"latents": latents}
        self.shards[card.name].write(records)

    def read(self, effect: str, source: str) -> torch.Tensor:
        """One output, [C, h, w]. Raises CloraError where it has gone since it was made."""
        record = self.shards[effect].read(self.key(source))
        if record is None:
            folder = self.shards[effect].folder
            raise CloraError(
                f"the teacher's output for {source} has gone from {folder}; the same command makes it again and goes on"
            )
        return record["latents"]


def make_targets(plan: Plan, session: ModelSession, folder: RunDir, ranks: Distributed, progress: Progress) -> Targets:
    """The outputs of all effects: what the cache lacks is sampled, every rank its share, effect by effect."""
    bank = Bank.at(plan, session, folder.cache)
    bank.check(ranks)
    missing = bank.missing()
    if missing:
        total = sum(len(plan.sources(card.name)) for card in plan.cards)
        count = sum(len(chunk.sources) for chunk in missing)
        if ranks.first:
            progress.say(f"prepare: {count} of {total} teacher outputs to make, {len(plan.cards)} effects")
        share = ranks.share(missing)
        if share:
            with session.teachers.session():
                _make(bank, share, progress if ranks.first else None)
        session.meet(ranks)
        bank.refresh()
        lacking = bank.missing()
        if lacking:
            raise CloraError(f"{lacking[0].card.name}: {len(lacking)} teacher outputs vanished from {folder.cache}")
    names = {card.name: plan.sources(card.name) for card in plan.cards}
    return Targets(names, bank.read, session.device, digest=bank.digest())


def _make(bank: Bank, chunks: Sequence[Chunk], progress: Progress | None) -> None:
    done, total = 0, sum(len(chunk.sources) for chunk in chunks)
    effects, teachers = list(dict.fromkeys(chunk.card.name for chunk in chunks)), bank.session.teachers
    for effect, group in groupby(chunks, key=lambda chunk: chunk.card.name):
        after = effects[effects.index(effect) + 1 :]
        teachers.ahead([effect, *after[:1]])  # the next one is read while this one works
        for chunk in group:
            if progress is not None:
                progress.counted("teacher outputs", done, total)
            bank.make(chunk)
            done += len(chunk.sources)
    if progress is not None:
        progress.counted("teacher outputs", done, total)


def _digest(plan: Plan, card: EffectCard, cache: Path) -> str:
    """All that decides a teacher's outputs but for the pictures."""
    return digest_of(
        {
            "backbone": plan.recipe.backbone.digest(),
            "lora": teacher_digest(card.lora, plan.recipe.backbone.shapes(), cache),
            "scale": card.scale if len(card.strengths()) == 1 else card.strengths(),
            "prompt": card.teacher_prompt,
            "teacher": plan.recipe.teacher.sampling(),
        }
    )
