"""A whole run: the stages in order, each skipped when its inputs have not changed."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from itertools import chain
from typing import TYPE_CHECKING

from attrs import evolve

from clora.adapters.adapter import Adapter
from clora.contracts.loaded_backbone import Explains
from clora.contracts.run import RunInfo
from clora.contracts.version import __version__
from clora.errors import shown
from clora.files.atomic import write_atomic
from clora.inference.session import ModelSession
from clora.planning.plan import Plan
from clora.process import threads
from clora.runs.files.checksums import checksum_of_file, warn
from clora.runs.files.leftovers import sweep
from clora.runs.files.lock import FolderLock, held
from clora.runs.files.record import RunRecord
from clora.runs.files.repair import mend
from clora.runs.files.steps import read_steps
from clora.runs.job import Job
from clora.runs.observing import RunObservers
from clora.runs.progress import Progress
from clora.runs.run_dir import RunDir, digest_file, digest_of
from clora.runs.stages.conditions import encode
from clora.runs.stages.evaluate import conditions_of_evaluation, evaluate
from clora.runs.stages.export import export
from clora.runs.stages.exporters import add_files, illustrate
from clora.runs.stages.prepare import prepare
from clora.runs.stages.previews import PREVIEWS
from clora.runs.stages.report import conditions_of_report, report
from clora.runs.stages.warm_start import warm_start
from clora.training.batches import Batches, Targets
from clora.training.checkpoint import Checkpoints
from clora.training.distributed import Distributed
from clora.training.loop import Watchers, train
from clora.training.warm_start import warm_plan

if TYPE_CHECKING:
    from clora.contracts.values import StepReport
    from clora.plugin_system.catalogue import Catalogue


class Pipeline:
    """Carries out a job; `run()` goes on wherever an earlier call was stopped."""

    def __init__(self, job: Job, catalogue: Catalogue, ranks: Distributed, progress: Progress) -> None:
        self.job = job
        self.plan = job.plan
        self.folder = job.folder
        self.catalogue = catalogue
        self.ranks = ranks
        self.progress = progress
        self.info = RunInfo(self.plan.recipe.name, self.folder.path, self.plan.digest, self.plan.recipe.train.steps)
        self._loaded: ModelSession | None = None
        self._lock: FolderLock | None = None

    @property
    def session(self) -> ModelSession:
        """The model, loaded when the first stage needs it."""
        if self._loaded is None:
            self._loaded = ModelSession(self.plan, self.ranks, self.folder.cache)
            kernel = self.plan.recipe.kernels
            if isinstance(kernel, Explains):
                self.progress.say(f"kernels: {kernel.explain(self._loaded.device)}")
        return self._loaded

    def run(self, *, until_export: bool = False) -> RunDir:
        """All stages; with `until_export` only what another run needs of this one.

        Raises CloraError, and HeldError where another process works in the folder.
        """
        if self.job.plus is not None:
            self.progress.say(f"first the recipe that is added at serving: {self.job.plus.plan.recipe.name}")
            Pipeline(self.job.plus, self.catalogue, self.ranks, self.progress).run(until_export=True)
        with self._held():
            started = time.monotonic()
            if self.ranks.first:
                self._open()
            self.ranks.wait()
            if self.plan.recipe.train.shard_base:
                _ = self.session  # all ranks make it together
            self.catalogue.run_started(self.info)
            self._train_and_export()
            if self.ranks.first:
                self._still_held()
                add_files(self.plan, self.folder)
            if self.ranks.first and not until_export:
                self._evaluate()
                illustrate(self.plan, self.folder)
                self._note_time(time.monotonic() - started)
                self._report()
            elif self.ranks.first:
                self._note_time(time.monotonic() - started)
            self._meet()
        return self.folder

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Within it no other process works in the folder: the first rank holds it for all."""
        if not self.ranks.first:
            yield
            return
        with held(self.folder.path) as self._lock:
            yield

    def _still_held(self) -> None:
        """Raise HeldError where another process has taken the folder over meanwhile."""
        if self._lock is not None:
            self._lock.check()

    def _meet(self) -> None:
        """Return once every rank has come here."""
        if self._loaded is None:
            self.ranks.wait()
        else:
            self._loaded.meet(self.ranks)

    def prepare(self) -> Targets | None:
        """Prepare alone, of this run and of the one it adds at serving; None where nothing is trained."""
        if self.job.plus is not None:
            self.progress.say(f"first the recipe that is added at serving: {self.job.plus.plan.recipe.name}")
            Pipeline(self.job.plus, self.catalogue, self.ranks, self.progress).prepare()
        with self._held():
            if self.ranks.first:
                self._open()
            self.ranks.wait()
            if self.plan.recipe.train.shard_base:
                _ = self.session  # all ranks make it together
            if self.plan.recipe.serve.adapter == "student":
                return prepare(self.plan, self.session, self.folder, self.ranks, self.progress)
            if self.ranks.first:
                self._encode_for_evaluation()
            self._meet()
        return None

    def evaluate_again(self) -> None:
        """Evaluate and report anew, whatever was done before."""
        with self._held():
            sweep(self.folder.path)
            self._say_threads(self.folder.info().threads)
            self.folder.forget("evaluate", "report")
            self._evaluate()
            illustrate(self.plan, self.folder)
            self._report()

    def _open(self) -> None:
        self.folder.check_writable()
        self.progress.say(f"{self.plan.recipe.title or self.plan.recipe.name} -> {self.folder.path}")
        before = mend(self.folder)
        write_atomic(self.folder.recipe, self.plan.text)
        self.folder.write_info(
            RunRecord(
                name=self.plan.recipe.name,
                title=self.plan.recipe.title,
                seed=self.plan.recipe.seed,
                digest=self.plan.digest,
                steps=self.plan.recipe.train.steps if self.plan.recipe.losses else 0,
                seconds=0.0 if before is None else before.seconds,
                ranks=self.ranks.world_size,
                recipe=checksum_of_file(self.folder.recipe),
                threads=self._say_threads(0 if before is None else before.threads),
                components=self.plan.code,
                machine={"system": platform.platform(), "processor": platform.processor()},
                versions={
                    "clora": __version__,
                    "python": platform.python_version(),
                    **{name: version(name) for name in ("torch", "diffusers", "peft", "safetensors")},
                },
            )
        )

    def _say_threads(self, before: int) -> int:
        """Set and tell how many threads compute: as many as in the calls before, which decides the sums' last bits."""
        count, sentence = threads.of_run(before)
        if sentence is not None:
            self.progress.say(sentence)
        return count

    def _note_time(self, seconds: float) -> None:
        """Working time adds up over interrupted calls."""
        info = self.folder.info()
        self.folder.write_info(evolve(info, seconds=round(info.seconds + seconds, 2)))

    def _train_and_export(self) -> None:
        plan = self.plan
        if plan.recipe.serve.adapter == "teachers":
            return
        tell = warn if self.ranks.first else _silent
        if self.folder.stage_done("export", plan.digest, tell):
            if self._previews_stand():
                self.progress.say("train, export: done before")
            else:
                prepare(plan, self.session, self.folder, self.ranks, self.progress)
            self._look_at_steps()
            return
        student: Adapter | None = None
        if plan.recipe.serve.adapter == "student":
            self._look_for_checkpoint()
            targets = prepare(plan, self.session, self.folder, self.ranks, self.progress)
            batches = Batches(plan, self.session, targets)
            watchers = self._watchers("train", plan)
            told = self._watchers("warm start", warm_plan(plan) or plan)
            say = self.progress.say if self.ranks.first else _silent
            warm = partial(warm_start, plan, self.session, targets, self.folder, self.ranks, told, say)
            student = train(plan, self.session, batches, self.folder.path, self.ranks, watchers, warm)
        if self.ranks.first:
            self._still_held()
            self.progress.say("export")
            files = export(plan, self.session, self.folder, student)
            self.folder.forget("report")  # it shows the curves of a training that was made again
            self.folder.mark_done("export", plan.digest, files)
        self.session.forget_trained()

    def _look_for_checkpoint(self) -> None:
        """Say where a LoRA that was finished must be trained anew."""
        mark = self.folder.marks().stages.get("export")
        checkpoints = Checkpoints(self.folder.path / "checkpoints", self.plan.digest, 1)
        if self.ranks.first and mark is not None and mark.inputs == self.plan.digest and not checkpoints.steps():
            warn(f"{shown(self.folder.lora)}: there is no checkpoint to make it from: training begins at update 0")

    def _previews_stand(self) -> bool:
        """True where the pictures that prepare has made are as they were written."""
        marks = self.folder.marks()
        made = [stage for stage in marks.stages if stage.startswith(PREVIEWS)]
        return not any(marks.damaged(self.folder.path, stage) for stage in made)

    def _look_at_steps(self) -> None:
        """Say where the log of a finished training lacks its end: nothing but training makes it again."""
        steps = self.plan.recipe.train.steps if self.plan.recipe.serve.adapter == "student" else 0
        found = read_steps(self.folder.steps).reports
        if self.ranks.first and len(found) < steps:
            warn(f"{shown(self.folder.steps)} has {len(found)} of {steps} updates; a new report lacks the others")

    def _watchers(self, label: str, plan: Plan) -> Watchers:
        steps = plan.recipe.train.steps
        observers = RunObservers(plan, self.info, self.folder, lambda: self.session, warn)

        def step(made: StepReport) -> None:
            self._still_held()
            self.progress.step(made, steps, label)
            if label == "train":
                self.catalogue.step_finished(self.info, made)
                observers.step(made)

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
        self._still_held()
        self._encode_for_evaluation()
        plus = None if self.job.plus is None else self.job.plus.folder.lora
        evaluate(self.plan, self.session, self.folder, plus, self.progress.say)
        made = (self.folder.results, self.folder.pictures, self.folder.metric_pictures)
        self.folder.mark_done("evaluate", self._inputs(), tuple(path for path in made if path.exists()))

    def _encode_for_evaluation(self) -> None:
        """Nothing where prepare has done so, or where the backbone is in memory whole."""
        wanted = chain(conditions_of_evaluation(self.plan), conditions_of_report(self.plan))
        encode(self.session, wanted, Distributed(), self.progress)

    def _report(self) -> None:
        inputs = digest_of([self._inputs(), self.plan.reporters_digest])
        if not self.folder.stage_done("report", inputs):
            files = ()
            if self.plan.recipe.reporters:
                self.progress.say("report")
                plus = None if self.job.plus is None else self.job.plus.folder.lora
                files = report(self.plan, self.info, lambda: self.session, self.folder, plus)
            else:
                self.progress.say("no report: the recipe has no reporters")
            self.folder.mark_done("report", inputs, files)
        self.catalogue.run_finished(self.info, self.folder.read_results().tree())


def _silent(text: str) -> None:
    """Nothing is said: the first rank says it."""
