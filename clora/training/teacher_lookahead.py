"""Asks for the coming cycle's teachers while the present one runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clora.contracts.method import Learns
from clora.errors import CloraError
from clora.planning.teacher_schedule import slots_problem, teachers_of

if TYPE_CHECKING:
    from clora.adapters.teacher_slots import TeacherSlots
    from clora.diffusion.rng import StepRng
    from clora.planning.plan import Plan


class LookAhead:
    """Tells the slots, at the beginning of a cycle, whom this cycle and the next one follow."""

    def __init__(self, plan: Plan, teachers: TeacherSlots, rng: StepRng) -> None:
        self.recipe = plan.recipe
        self.effects = plan.mix
        self.owners = plan.owners
        self.teachers = teachers
        self.rng = rng
        self.foresees = not isinstance(self.recipe.router, Learns)  # what a router learns may change its next route
        self.before = teachers.needed
        teachers.take_stall()  # what came before is no cycle's
        # the plan has looked at the first rank; the others draw their own rows
        problem = slots_problem(self.recipe, rng, self.effects, self.owners)
        if problem is not None:
            raise CloraError(f"teacher.slots: {problem}")

    def begin(self, update: int) -> None:
        """Ask for the teachers of cycle `update` (0-based) and of the next, if there is one.

        Nothing is asked for before the losses have asked for a teacher themselves: some recipes follow none.
        """
        if self.teachers.needed == self.before:
            return
        names = self._of(update)
        if self.foresees and update + 1 < self.recipe.train.steps:
            names += self._of(update + 1)
        self.teachers.ahead(names)

    def _of(self, update: int) -> tuple[str, ...]:
        return teachers_of(self.recipe, self.rng, self.effects, update, self.owners)
