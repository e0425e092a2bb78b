"""A whole run: the stages in order, each skipped when its inputs have not changed."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from clora import __version__, threads
from clora.adapters.adapter import Adapter
from clora.files import write_atomic
from clora.plan import Plan, make_plan
from clora.progress import Progress
from clora.protocols import Explains, RunInfo
from clora.recipe.load import load_recipe
from clora.runs import RunFolder, digest_file, digest_of
from clora.stages.conditions import encode
from clora.stages.evaluate import conditions_of_evaluation, evaluate
from clora.stages.export import export, illustrate
from clora.stages.prepare import prepare
from clora.stages.report import conditions_of_report, report
from clora.training.batches import Batches, Targets
from clora.training.loop import Watchers, train
from clora.training.ranks import Ranks
from clora.world import World

if TYPE_CHECKING:
    from clora.catalogue import Catalogue


@frozen
class Job:
    """One run to carry out: the plan, its folder, and what it adds at serving time."""

    plan: Plan
    folder: RunFolder
    plus: Job | None = None


def run_folder(plan: Plan, runs: Path) -> RunFolder:
    """Where a plan runs unless told otherwise: its name and hash, so the same command finds its own folder."""
    return RunFolder(runs / f"{plan.recipe.name}-{plan.digest[:8]}")


def make_job(plan: Plan, catalogue: Catalogue, folder: RunFolder) -> Job:
    """The job of a plan, with the job of the recipe that `serve.plus` names (with the same seed) before it."""
    plus = None
    if plan.recipe.serve.plus is not None:
        sets = [f"seed={plan.recipe.seed}"]
        other = make_plan(load_recipe(Path(plan.recipe.serve.plus), (), sets, catalogue))
        plus = make_job(other, catalogue, run_folder(other, folder.path.parent))
    return Job(plan, folder, plus)


class Pipeline:
    """Carries out a job; `run()` goes on wherever an earlier call was stopped."""

    def __init__(self, job: Job, catalogue: Catalogue, ranks: Ranks, progress: Progress) -> None:
        self.job = job
        self.plan = job.plan
        self.folder = job.folder
        self.catalogue = catalogue
        self.ranks = ranks
        self.progress = progress
        self.info = RunInfo(self.plan.recipe.name, self.folder.path, self.plan.digest, self.plan.recipe.train.steps)
        self._world: World | None = None
        self.seconds = 0.0

    @property
    def world(self) -> World:
        """The model, loaded when the first stage needs it."""
        if self._world is None:
            self._world = World(self.plan, self.ranks, self.folder.cache)
            kernel = self.plan.recipe.kernels
            if isinstance(kernel, Explains):
                self.progress.say(f"kernels: {kernel.explain(self._world.device)}")
        return self._world

    def run(self, *, until_export: bool = False) -> RunFolder:
        """All stages; with `until_export` only what another run needs of this one."""
        if self.job.plus is not None:
            self.progress.say(f"first the recipe that is added at serving: {self.job.plus.plan.recipe.name}")
            Pipeline(self.job.plus, self.catalogue, self.ranks, self.progress).run(until_export=True)
        started = time.monotonic()
        if self.ranks.first:
            self._open()
        self.ranks.wait()
        if self.plan.recipe.train.shard_base:
            _ = self.world  # all ranks make it together
        self.catalogue.run_started(self.info)
        self._train_and_export()
        if self.ranks.first and not until_export:
            self._evaluate()
            self._note_time(time.monotonic() - started)
            self._report()
        elif self.ranks.first:
            self._note_time(time.monotonic() - started)
        self._meet()
        return self.folder

    def _meet(self) -> None:
        """Return once every rank has come here."""
        if self._world is None:
            self.ranks.wait()
        else:
            self._world.meet(self.ranks)

    def prepare(self) -> Targets | None:
        """Prepare alone, of this run and of the one it adds at serving; None where nothing is trained."""
        if self.job.plus is not None:
            self.progress.say(f"first the recipe that is added at serving: {self.job.plus.plan.recipe.name}")
            Pipeline(self.job.plus, self.catalogue, self.ranks, self.progress).prepare()
        if self.ranks.first:
            self._open()
        self.ranks.wait()
        if self.plan.recipe.train.shard_base:
            _ = self.world  # all ranks make it together
        if self.plan.recipe.serve.adapter == "student":
            return prepare(self.plan, self.world, self.folder, self.ranks, self.progress)
        if self.ranks.first:
            self._encode_for_evaluation()
        self._meet()
        return None

    def evaluate_again(self) -> None:
        """Evaluate and report anew, whatever was done before."""
        self._say_threads(self.folder.info().get("threads"))
        self.folder.forget("evaluate", "report")
        self._evaluate()
        self._report()

    def _open(self) -> None:
        self.folder.check_writable()
        self.progress.say(f"{self.plan.recipe.title or self.plan.recipe.name} -> {self.folder.path}")
        write_atomic(self.folder.recipe, self.plan.text)
        before = self.folder.info() if (self.folder.path / "run.json").exists() else {"seconds": 0.0}
        self.folder.write_info(
            {
                "name": self.plan.recipe.name,
                "title": self.plan.recipe.title,
                "seed": self.plan.recipe.seed,
                "digest": self.plan.digest,
                "steps": self.plan.recipe.train.steps if self.plan.recipe.losses else 0,
                "seconds": before["seconds"],
                "ranks": self.ranks.world,
                "threads": self._say_threads(before.get("threads")),
                "machine": {"system": platform.platform(), "processor": platform.processor()},
                "versions": {
                    "clora": __version__,
                    "python": platform.python_version(),
                    **{name: version(name) for name in ("torch", "diffusers", "peft", "safetensors")},
                },
            }
        )

    def _say_threads(self, before: object) -> int:
        """Set and tell how many threads compute: as many as in the calls before, which decides the sums' last bits."""
        count, sentence = threads.of_run(before)
        if sentence is not None:
            self.progress.say(sentence)
        return count

    def _note_time(self, seconds: float) -> None:
        """Working time adds up over interrupted calls."""
        info = self.folder.info()
        self.folder.write_info(info | {"seconds": round(info["seconds"] + seconds, 2)})

    def _train_and_export(self) -> None:
        plan = self.plan
        if plan.recipe.serve.adapter == "teachers":
            return
        if self.folder.stage_done("export", plan.digest):
            self.progress.say("train, export: done before")
            return
        student: Adapter | None = None
        if plan.recipe.serve.adapter == "student":
            targets = prepare(plan, self.world, self.folder, self.ranks, self.progress)
            batches = Batches(plan, self.world, targets)
            student = train(plan, self.world, batches, self.folder.path, self.ranks, self._watchers())
        if self.ranks.first:
            self.progress.say("export")
            export(plan, self.world, self.folder, student)
            self.folder.mark_done("export", plan.digest, (self.folder.lora,))
        self.world.forget_trained()

    def _watchers(self) -> Watchers:
        steps = self.plan.recipe.train.steps

        def step(made) -> None:
            self.progress.step(made, steps)
            self.catalogue.step_finished(self.info, made)

        return Watchers(step, lambda done, path: self.catalogue.checkpoint_saved(self.info, done, path))

    def _inputs(self) -> str:
        """What the evaluation depends on beside the recipe: the exported file and what is added to it."""
        files = [self.folder.lora] if self.folder.lora.exists() else []
        if self.job.plus is not None:
            files.append(self.job.plus.folder.lora)
        return digest_of([self.plan.digest, *(digest_file(file) for file in files)])

    def _evaluate(self) -> None:
        if self.folder.stage_done("evaluate", self._inputs()):
            self.progress.say("evaluate: done before")
            return
        self._encode_for_evaluation()
        plus = None if self.job.plus is None else self.job.plus.folder.lora
        evaluate(self.plan, self.world, self.folder, plus, self.progress.say)
        self.folder.mark_done("evaluate", self._inputs(), (self.folder.results, self.folder.pictures))

    def _encode_for_evaluation(self) -> None:
        """Nothing where prepare has done so, or where the backbone is in memory whole."""
        wanted = chain(conditions_of_evaluation(self.plan), conditions_of_report(self.plan))
        encode(self.world, wanted, Ranks(), self.progress)

    def _report(self) -> None:
        if not self.folder.stage_done("report", self._inputs()):
            self.progress.say("report")
            plus = None if self.job.plus is None else self.job.plus.folder.lora
            report(self.plan, lambda: self.world, self.folder, plus)
            illustrate(self.plan, self.folder)
            self.folder.mark_done("report", self._inputs(), (self.folder.report,))
        self.catalogue.run_finished(self.info, self.folder.read_results())
