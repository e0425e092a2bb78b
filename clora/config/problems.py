"""What is wrong with a recipe, and where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

from clora.config.tree import Mark
from clora.errors import CloraError, escaped, hint

#: how many mistakes of a recipe are told one by one, and how many characters each may have
MOST_TOLD, MOST_SAID = 40, 1_000
#: how many known words an unknown one is compared with
MOST_KNOWN = 100


@frozen
class UnknownWord:
    """A sentence about an unknown word; the nearest known one is looked for only if the sentence is told."""

    sentence: str
    word: str
    known: tuple[str, ...]
    otherwise: str = ""  # said where nothing is known

    def __str__(self) -> str:
        return self.sentence + (hint(self.word, self.known[:MOST_KNOWN]) or self.otherwise)


@frozen
class Problem:
    """One mistake at the place where it was typed; its sentence is made when it is told."""

    mark: Mark
    message: str | UnknownWord | CloraError

    def __str__(self) -> str:
        sentence = str(self.message)
        more = "..." if len(sentence) > MOST_SAID else ""
        return f"{self.mark}: {escaped(sentence[:MOST_SAID])}{more}"


class RecipeError(CloraError):
    """A recipe cannot be used; carries every mistake, in the order of files and lines, and tells the first of them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        unique = dict.fromkeys(problems)
        self.problems = tuple(sorted(unique, key=lambda p: (p.mark.source, p.mark.line, p.mark.column)))
        super().__init__("\n".join(_lines(self.problems)))


def _lines(problems: Sequence[Problem]) -> Iterator[str]:
    """A line a mistake. How a file was reached is said before its first mistake alone: it is the same for the others,
    which stay short enough to be read, and every line still begins with a place or ends its chain with one.
    """
    before = ""
    for problem in problems[:MOST_TOLD]:
        yield ("" if problem.mark.source == before else problem.mark.way()) + str(problem)
        before = problem.mark.source
    if len(problems) > MOST_TOLD:
        more = len(problems) - MOST_TOLD
        yield f"{problems[MOST_TOLD].mark}: {more:,} more mistake{'s' if more > 1 else ''} from here on"
