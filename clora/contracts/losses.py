"""What most losses share: whose rows train them, how much they count, and how that changes in the course of the run.

A loss need not be one of these classes; a class with `streams`, `weight` and `__call__` is a `Loss` too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import field, frozen
from attrs.validators import and_, deep_iterable, in_, min_len

from clora.contracts.bounds import between
from clora.contracts.values import Stream
from clora.contracts.weight_course import course

BOTH: tuple[Stream, ...] = ("general", "effect")


def streams_key(*default: Stream, among: Sequence[Stream] = BOTH) -> Any:
    """The key `streams` of a loss with another default, such as `streams_key("effect")`, or for fewer streams."""
    return field(default=default, kw_only=True, validator=and_(min_len(1), deep_iterable(in_(tuple(among)))))


@frozen(kw_only=True)
class StudentLoss:
    """A term of the student's objective: subclass it with `@frozen`, name keys of your own, write `__call__`.

    It stands under `losses` and under `warm_start.losses`, and is refused under `critic.losses`. Its `__call__` is that
    of `Loss`.
    """

    streams: tuple[Stream, ...] = streams_key(*BOTH)  # whose rows train it: effect, general or both
    weight: float = field(default=1.0, validator=between(1e-6, 1e6, zero=True))  # its factor in the objective
    #: share of the run over which the weight rises from 0
    fade_in: float = field(default=0.0, validator=between(0.0, 1.0))
    #: share of the run, at its end, over which the weight falls to 0
    fade_out: float = field(default=0.0, validator=between(0.0, 1.0))

    def weight_at(self, progress: float) -> float:
        """`weight`, rising from zero over the first `fade_in` of the run, falling to zero over its last `fade_out`."""
        return self.weight * course(progress, self.fade_in, self.fade_out)

    def needs_critic(self) -> bool:
        """False: it asks no critic. One that does says True, so that a recipe without a critic is refused."""
        return False

    def alarms(self, course: Mapping[str, Sequence[tuple[float, float]]]) -> Iterable[str]:
        """Nothing: whatever it logs is well. One that can tell more has sentences here (`Alarms`)."""
        return ()


@frozen(kw_only=True)
class CriticLoss:
    """A term of the critic's objective: subclass it with `@frozen`, name keys of your own, write `__call__`.

    It stands under `critic.losses` and is refused elsewhere. Its `__call__` is that of `Loss`.
    """

    streams: tuple[Stream, ...] = streams_key(*BOTH)  # whose rows train it: effect, general or both
    weight: float = field(default=1.0, validator=between(1e-6, 1e6, zero=True))  # its factor in the objective
