"""The observers of a run's recipe, called after updates; one that fails is left out with a warning."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from clora.contracts.run import Observation, PlanFacts
from clora.errors import CloraError, reason
from clora.inference.student_samples import StudentSamples
from clora.plugin_system.guard import ComponentError

if TYPE_CHECKING:
    from clora.contracts.run import EffectEdits, Observer, RunInfo
    from clora.contracts.values import StepReport
    from clora.inference.session import ModelSession
    from clora.planning.plan import Plan
    from clora.runs.run_dir import RunDir


class RunObservers:
    """Calls the observers of a plan, on the first rank. `tell` is given a line about each that fails.

    `session` gives the model, and is asked for only where pictures are made.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunInfo,
        folder: RunDir,
        session: Callable[[], ModelSession],
        tell: Callable[[str], None],
    ) -> None:
        self.plan = plan
        self.run = run
        self.folder = folder
        self.session = session
        self.tell = tell
        self.facts = PlanFacts(plan.prompts, plan.text)
        self.observers: dict[str, Observer] = dict(plan.recipe.observers)
        self.every = {name: observer.every for name, observer in self.observers.items()}

    def step(self, report: StepReport) -> None:
        """Call those whose turn it is after an update. Raises nothing: whatever goes wrong is a warning."""
        for name, observer in tuple(self.observers.items()):
            if report.step % self.every[name] == 0 or report.step == self.run.steps:
                try:
                    self._observe(name, observer, report)
                except CloraError as error:
                    del self.observers[name]
                    self.tell(f"warning: {self._told(name, error)}; it observes no more of this run")

    def _observe(self, name: str, observer: Observer, report: StepReport) -> None:
        with self.plan.owners.calling(f"observers.{name}"):
            folder = self.folder.observers / name
            folder.mkdir(parents=True, exist_ok=True)
            observer.observe(Observation(self.run, self.facts, report, folder, self._samples(name)))

    def _samples(self, name: str) -> tuple[EffectEdits, ...]:
        """The pictures that an observer has asked for, made now."""
        request = self.plan.samples.get(name)
        if request is None:
            return ()
        try:
            return self._student.make(request)
        except Exception as error:  # of the model, such as one that has no memory left: the training goes on without
            why = f"its pictures could not be made: {type(error).__name__}: {reason(error)}"
            raise self.plan.owners.error(f"observers.{name}", why) from error

    @cached_property
    def _student(self) -> StudentSamples:
        return StudentSamples(self.plan, self.session())

    def _told(self, name: str, error: CloraError) -> str:
        """What went wrong, with the observer's place and plugin."""
        named = isinstance(error, ComponentError)
        return str(error if named else self.plan.owners.error(f"observers.{name}", reason(error)))
