"""What is wrong with a recipe, and where."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from clora.errors import CloraError
from clora.recipe.tree import Mark


@frozen
class Problem:
    """One mistake at the place where it was typed."""

    mark: Mark
    message: str

    def __str__(self) -> str:
        return f"{self.mark}: {self.message}"


class RecipeError(CloraError):
    """A recipe cannot be used; carries every mistake, in the order of files and lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        unique = dict.fromkeys(problems)
        self.problems = tuple(sorted(unique, key=lambda p: (p.mark.source, p.mark.line, p.mark.column)))
        super().__init__("\n".join(str(problem) for problem in self.problems))
