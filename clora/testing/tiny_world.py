"""A run of seconds that trains an installed component: the quick start with two effects and the least of all sizes."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from attrs import frozen

from clora.contracts.values import StepReport

QUICK_START = "clora:quickstart.yaml"
UPDATES = 2  # of the student
SIZES = {
    "student": {"rank": 2, "alpha": 2, "steps": 4},
    "teacher": {"steps": 1},
    "warm_start": None,
    "train": {"steps": UPDATES, "warmup_steps": 0, "batch_size": 4, "checkpoint_every": UPDATES},
    "prepare": {"previews": 0, "train_images": 2, "general_images": 2},
    "evaluate": {"images": 1, "general_images": 1},
    "metrics": None,
    "exporters": None,
    "reporters": None,
    "device": "cpu",
}


@frozen
class TinyWorld:
    """Two effects of the quick start, two pictures each, four rows a batch; the same numbers on every call."""

    folder: Path  # every run gets a new folder in it

    def train(self, **sections: Any) -> tuple[StepReport, ...]:
        """Train for two updates and return their reports; `losses` has each loss that had rows, by its recipe's name.

        `sections` are a recipe's, as in YAML, and lie on top of the quick start's:
        `train(losses={"mine": {"use": "huber", "weight": 0.5}})` adds a loss, `train(router="mine")` replaces the
        router. The component must be installed. Raises RecipeError where a recipe would be refused, and ComponentError
        for what the component raises.
        """
        from clora.config.load import load_recipe
        from clora.planning.plan import make_plan
        from clora.plugin_system.discovery import discover
        from clora.runs.files.steps import read_steps
        from clora.runs.job import make_job
        from clora.runs.pipeline import Pipeline
        from clora.runs.progress import Progress
        from clora.runs.run_dir import RunDir
        from clora.training.distributed import Distributed

        catalogue = discover()
        run = Path(mkdtemp(prefix="clora-", dir=self.folder))
        sizes, mine = run / "sizes.yaml", run / "mine.yaml"
        named = load_recipe(QUICK_START, catalogue=catalogue).recipe.effects or ()
        sizes.write_text(json.dumps({**SIZES, "effects": list(named[:2])}), encoding="utf-8")
        mine.write_text(json.dumps(sections, indent=1), encoding="utf-8")
        plan = make_plan(load_recipe(QUICK_START, [sizes, mine], catalogue=catalogue))
        job = make_job(plan, catalogue, RunDir(run / "run"))
        done = Pipeline(job, catalogue, Distributed(), Progress(on=False)).run(until_export=True)
        return read_steps(done.steps).reports
