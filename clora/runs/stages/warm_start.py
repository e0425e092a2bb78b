"""The warm start as a stage: runs beside one another that begin the same way train it once.

Ablations of what comes after it share it: the adapter and its log lie in the cache beside the runs, under the hash of
all that decides them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clora.adapters.adapter import Adapter
from clora.contracts.backbone import trained_shapes
from clora.diffusion.rng import StepRng
from clora.files.atomic import write_atomic
from clora.lora_io.reader import deltas_of
from clora.lora_io.writer import write_lora
from clora.runs.cache_shards import Shards
from clora.runs.run_dir import RunDir, digest_of
from clora.training.batches import Batches
from clora.training.loop import Watchers, train
from clora.training.warm_start import warm_folder, warm_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from clora.inference.session import ModelSession
    from clora.planning.plan import Plan
    from clora.runs.cache_shards import Record
    from clora.training.batches import Targets
    from clora.training.distributed import Distributed

#: the folder in the cache
KEPT = "warm_starts"


def warm_start(
    plan: Plan,
    session: ModelSession,
    targets: Targets,
    folder: RunDir,
    ranks: Distributed,
    watchers: Watchers,
    say: Callable[[str], None],
) -> Adapter | None:
    """The warm start's adapter, on the device: from the cache, else trained to its end; None where the plan has none.

    Keeps it in the run's folder as a LoRA file too: it is the student of the all-in-one flow-matching baseline.
    """
    alone = warm_plan(plan)
    if alone is None:
        return None
    kept = Shards(folder.cache / KEPT)
    key = _key(alone, session, targets, ranks)
    own = warm_folder(folder.path)
    if ranks.first:
        kept.check([key])
    ranks.wait()
    kept.refresh()
    record = kept.read(key)
    if not ranks.any(record is None):
        assert record is not None
        adapter = _taken(alone, session, record)
        if ranks.first:
            say(f"warm start: its {alone.recipe.train.steps:,} updates were made by a run beside this one")
            write_atomic(own / folder.steps.name, record["log"].numpy().tobytes())
    else:
        batches = Batches(alone, session, targets)
        adapter = train(alone, session, batches, own, ranks, watchers).copy()
        session.forget_trained()
        if ranks.first:
            log = torch.frombuffer(bytearray((own / folder.steps.name).read_bytes()), dtype=torch.uint8)
            kept.write({key: {"flat": adapter.flat, "log": log}})
    if ranks.first:
        write_lora(own / "lora.safetensors", deltas_of(adapter.factors, session.shapes))
    return adapter


def _key(alone: Plan, session: ModelSession, targets: Targets, ranks: Distributed) -> str:
    """The hash of all that decides the adapter's bits: recipe and words, targets, pictures, how sums are made."""
    conditioning = session.conditioning
    return digest_of(
        {
            "plan": alone.digest,
            "backbone": alone.recipe.backbone.digest(),
            "targets": targets.digest,
            "general": [(item.source, conditioning.digest(item.source)) for item in alone.general()],
            "sums": [str(session.device), torch.get_num_threads(), ranks.world_size],
        }
    )


def _taken(alone: Plan, session: ModelSession, record: Record) -> Adapter:
    """The adapter that a record holds."""
    student = alone.recipe.student
    shapes = trained_shapes(alone.recipe.backbone)
    adapter = Adapter.fresh(shapes, student.rank, student.alpha, StepRng(0), trainable=False)
    adapter.flat.copy_(record["flat"])
    return adapter.to(session.device)
