"""Whose the parts of a recipe are: what goes wrong in one is told by its place and plugin, not found far away."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from attrs import field, frozen

from clora.errors import CloraError, quoted, reason, shown

TRACE_VARIABLE = "CLORA_TRACE"
_CORE = Path(__file__).parents[1]


def tracing() -> bool:
    """True where every call of a component is to be told on stderr, with its time: CLORA_TRACE=1."""
    return os.environ.get(TRACE_VARIABLE, "") == "1"


class ComponentError(CloraError):
    """A component raised, or gave what its contract forbids; the message names it, its plugin and its line."""

    exit_code: ClassVar[int] = 1


@frozen
class Owners:
    """What messages call the components of a recipe, by their places."""

    names: Mapping[str, str] = field(factory=dict)  # losses.opd -> "opd of clora-opd 0.2.0, recipe.yaml:9:8"

    def within(self, section: str) -> Owners:
        """As seen in a section whose parts take the places of the recipe's own, such as the warm start's losses."""
        inside = {
            place.removeprefix(f"{section}."): name
            for place, name in self.names.items()
            if place.startswith(f"{section}.")
        }
        return Owners({**self.names, **inside})

    def error(self, place: str, what: str) -> ComponentError:
        """The error that says what the component at a place did."""
        name = self.names.get(place)
        return ComponentError(f"{place}{f' ({name})' if name else ''}: {what}")

    @contextmanager
    def calling(self, place: str) -> Iterator[None]:
        """Within it the component at a place computes; what it raises becomes one ComponentError with its line.

        Errors that are meant for a person already pass as they are.
        """
        started = time.perf_counter()
        try:
            yield
        except CloraError:
            raise
        except (Exception, SystemExit) as error:  # someone else's code, which may do anything
            why = f"{type(error).__name__}: {reason(error)}{_line(error)}"
            raise self.error(place, why) from error
        finally:
            if tracing():
                name = self.names.get(place, "")
                milliseconds = 1000 * (time.perf_counter() - started)
                print(f"trace: {milliseconds:9.3f} ms  {place}{f'  ({name})' if name else ''}", file=sys.stderr)


def sentences(method: str, call: Callable[[], object]) -> list[str]:
    """What a component's own check tells, and where it raises or tells no sentences, that; errors for a person pass."""
    told, problem = texts(method, call, "a list of sentences, empty where all is well")
    return [problem] if problem else told


def texts(method: str, call: Callable[[], object], expected: str) -> tuple[list[str], str]:
    """The list of texts that a component's method gives, and a sentence where it raises or gives something else."""
    try:
        found = call()
        told = None if isinstance(found, str) or not isinstance(found, Iterable) else list(found)
    except CloraError:
        raise
    except (Exception, SystemExit) as error:  # a plugin's own code, which may do anything
        return [], f"its {method} raised {type(error).__name__}: {reason(error)}{_line(error)}"
    if told is None or not all(isinstance(one, str) for one in told):
        return [], f"its {method} gave {came(found)}; expected {expected}"
    return told, ""


def came(value: object) -> str:
    """A value as a message names it: a tensor by its shape and type, anything else by its type and text."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None:
        return f"a tensor {list(shape)} of {dtype}"
    return "None" if value is None else f"{type(value).__name__} {quoted(value)}"


def _line(error: BaseException) -> str:
    """The component's own innermost line in an error's traceback: below it libraries, above it the core."""
    files = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    outside = [(file, line) for file, line in files if _CORE not in file.parents]
    if not outside:
        return ""
    home = outside[0][0].parent  # where the core called
    file, line = [each for each in outside if home in each[0].parents][-1]
    return f" at {shown(file.name)}:{line}"
