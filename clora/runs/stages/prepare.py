"""Prepare: all that can be made once before training, in an order in which no two large parts of a model meet.

Conditions are encoded (text encoder and VAE), then the teachers make their outputs (the transformer), then a few of
these become pictures (the VAE), and training begins with the transformer alone. What is made is kept in a cache beside
the runs; a killed prepare goes on where it was.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from clora.inference.student_samples import conditions_of_samples
from clora.process.stopping import during
from clora.runs.progress import Progress
from clora.runs.run_dir import RunDir
from clora.runs.stages.conditions import conditions_of_training, encode
from clora.runs.stages.evaluate import conditions_of_evaluation
from clora.runs.stages.previews import write_previews
from clora.runs.stages.report import conditions_of_report
from clora.runs.stages.targets import make_targets
from clora.training.batches import Targets
from clora.training.distributed import Distributed

if TYPE_CHECKING:
    from clora.inference.session import ModelSession
    from clora.planning.plan import Plan


@during("while preparing", "what is encoded and what the teachers have made is kept")
def prepare(
    plan: Plan,
    session: ModelSession,
    folder: RunDir,
    ranks: Distributed | None = None,
    progress: Progress | None = None,
) -> Targets:
    """Make what the cache lacks, together with the other ranks; returns what training aims at.

    Raises CloraError where the cache cannot be written.
    """
    ranks, progress = ranks or Distributed(), progress or Progress(on=False)
    later = chain(conditions_of_evaluation(plan), conditions_of_report(plan))
    encode(session, chain(conditions_of_training(plan), later), ranks, progress)
    encode(session, conditions_of_samples(plan), ranks, progress)  # apart: it shares no batch with the training's
    targets = make_targets(plan, session, folder, ranks, progress)
    if ranks.first and write_previews(plan, session, folder, targets):
        progress.say(f"prepare: pictures of the teachers' outputs lie in {folder.prepare}")
    session.only("network")
    session.meet(ranks)
    return targets
