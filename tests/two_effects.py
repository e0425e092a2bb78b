"""A small run of two effects in this process, for tests that look at what it leaves."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen
from shallow_emoji import shallow_emoji

from clora.config.load import load_recipe
from clora.planning.plan import Plan, make_plan
from clora.plugin_system.discovery import discover
from clora.runs.job import make_job
from clora.runs.pipeline import Pipeline
from clora.runs.progress import Progress
from clora.runs.run_dir import RunDir
from clora.training.distributed import Distributed

RECIPE = Path(__file__).parents[1] / "recipes/collection.yaml"
SETS = (
    *shallow_emoji(),
    "effects=[duotone_ocean, thermal]",
    "student={rank: 4, alpha: 4, steps: 4}",
    "train={steps: 2, warmup_steps: 1, batch_size: 4, checkpoint_every: 1, keep_checkpoints: 5}",
    "teacher.steps=1",
    "prepare={previews: 0, train_images: 2, general_images: 4}",
    "evaluate={images: 1, general_images: 1}",
    "metrics=null",
    "warm_start.updates=2",
)


@frozen
class TwoEffects:
    """The collection's recipe made small, with some settings of a test on top."""

    sets: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """All settings, for a command line."""
        return (*SETS, *self.sets)

    def plan(self, *more: str) -> Plan:
        """The plan with further settings."""
        return make_plan(load_recipe(RECIPE, (), [*self.words, *more], discover()))

    def run(self, folder: Path, *more: str, until_export: bool = True, telling: bool = False) -> RunDir:
        """Carry the plan out in a folder, and on stderr where it is `telling`."""
        catalogue = discover()
        plan = make_plan(load_recipe(RECIPE, (), [*self.words, *more], catalogue))
        pipeline = Pipeline(make_job(plan, catalogue, RunDir(folder)), catalogue, Distributed(), Progress(on=telling))
        return pipeline.run(until_export=until_export)
