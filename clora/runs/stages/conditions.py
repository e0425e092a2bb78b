"""Encode: every condition that a run will ask for, encoded before the transformer is loaded, for a backbone in parts.

A backbone that is in memory whole encodes when it is asked, and keeps it in memory: nothing is done here then.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from clora.errors import CloraError
from clora.inference.conditioning import Condition
from clora.inference.lru_cache import size
from clora.planning.texts import prompts_of

if TYPE_CHECKING:
    from clora.inference.conditioning import Conditioning
    from clora.inference.session import ModelSession
    from clora.planning.plan import Plan
    from clora.runs.cache_shards import Record
    from clora.runs.progress import Progress
    from clora.training.distributed import Distributed

#: bytes of encoded conditions after which they are written as one file
FILE_BYTES = 64 << 20

T = TypeVar("T", str, Condition)


def conditions_of_training(plan: Plan) -> Iterator[Condition]:
    """What teachers are sampled with and batches are made of: prompts of both sides, and no words, for every source."""
    for card in plan.cards:
        words = plan.prompts[card.name]
        for source in plan.sources(card.name):
            yield from ((prompt, source) for prompt in (words.student, words.teacher, card.teacher_prompt, ""))
    for item in plan.general():
        words = prompts_of(plan.recipe.prompts, item, plan.owners)
        yield from ((prompt, item.source) for prompt in (words.student, words.teacher, ""))


def encode(session: ModelSession, wanted: Iterable[Condition], ranks: Distributed, progress: Progress) -> None:
    """Encode what the cache lacks, every rank its share; then all of it is there and no encoder is in memory.

    Raises CloraError where the disk has no room for it.
    """
    conditioning = session.conditioning
    store = conditioning.store
    if store is None:
        return
    asked = list(dict.fromkeys(wanted))
    store.check(conditioning.keys(asked), ranks.rank, ranks.world_size)
    session.meet(ranks)  # now the damaged files are gone
    store.refresh()
    pictures, conditions = conditioning.missing(asked)
    if not pictures and not conditions:
        return
    if ranks.first:
        progress.say(f"prepare: to encode, {len(pictures)} pictures and {len(conditions)} of {len(asked)} conditions")
    session.only("text", "pictures")
    rows, told = session.plan.recipe.prepare.batch_size, progress if ranks.first else None
    _encode(conditioning, ranks.share(pictures), conditioning.encode_sources, rows, told, "encode pictures")
    _encode(conditioning, ranks.share(conditions), conditioning.encode_words, rows, told, "encode words")
    session.only("network")
    session.meet(ranks)
    store.refresh()


def _encode(
    conditioning: Conditioning,
    wanted: Sequence[T],
    encoder: Callable[[Sequence[T]], Sequence[Record]],
    rows: int,
    progress: Progress | None,
    label: str,
) -> None:
    """Encode in small batches and write a file whenever enough has come together."""
    held: list[Record] = []
    written = 0
    for start in range(0, len(wanted), rows):
        held += encoder(wanted[start : start + rows])
        done = start + rows >= len(wanted)
        if start == 0 and conditioning.store is not None:
            _check_room(conditioning.store.folder, sum(map(size, held)) // len(held) * len(wanted))
        if done or sum(map(size, held)) >= FILE_BYTES:
            conditioning.store_records(wanted[written : written + len(held)], held)
            written, held = written + len(held), []
        if progress is not None:
            progress.counted(label, min(start + rows, len(wanted)), len(wanted))


def _check_room(folder: Path, needed: int) -> None:
    """Raises CloraError where the disk is too small, before hours are spent on filling it."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise CloraError(
            f"the encoded conditions take about {needed / 2**30:.1f} GiB; {folder} has {free / 2**30:.1f} GiB free: "
            "make room, or use fewer pictures: prepare.train_images, prepare.general_images"
        )
