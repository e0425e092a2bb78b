"""What the observers of a recipe ask for, and what is wrong with it, before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from clora.contracts.run import RequestsSamples, SampleRequest
from clora.errors import hint, quoted
from clora.planning.texts import MOST_TOLD
from clora.plugin_system.guard import came, sentences

if TYPE_CHECKING:
    from clora.config.schema import Recipe
    from clora.planning.components import Finding

#: pictures that one observer is given at a time
MOST_SAMPLES = 256


@frozen
class Observed:
    """The requests of the recipe's observers by their names, and what is wrong with those that it cannot have."""

    requests: Mapping[str, SampleRequest]
    findings: Sequence[Finding]


def observed(recipe: Recipe, effects: Sequence[str]) -> Observed:
    """Ask every observer of a recipe with these effects for its pictures."""
    requests: dict[str, SampleRequest] = {}
    findings: list[Finding] = []
    for name, observer in recipe.observers.items():
        place = f"observers.{name}"
        every = observer.every
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            findings.append((f"{place}.every", f"must be a whole number of updates, at least 1, found {quoted(every)}"))
        if not isinstance(observer, RequestsSamples):
            continue
        made, wrong = request_of(observer, effects)
        if made is not None:
            wrong = list(_request_problems(made, effects, recipe.train.shard_base))
            requests[name] = made
        findings += [(place, sentence) for sentence in wrong]
    return Observed(requests, findings)


def request_of(observer: RequestsSamples, effects: Sequence[str]) -> tuple[SampleRequest | None, list[str]]:
    """The request of an observer; where it gives none, a sentence that says so."""
    given: list[Any] = []

    def ask() -> Sequence[str]:
        given.append(observer.sample_request(tuple(effects)))
        return ()

    wrong = sentences("sample_request", ask)
    if wrong:
        return None, wrong
    (made,) = given
    if isinstance(made, SampleRequest):
        return made, []
    return None, [f"its sample_request gave {came(made)}; expected a SampleRequest"]


def _request_problems(request: SampleRequest, effects: Sequence[str], shard_base: bool) -> Iterator[str]:
    """A sentence for everything in a request that the run cannot give."""
    asked = request.effects
    if not isinstance(asked, tuple) or not all(isinstance(effect, str) for effect in asked):
        yield f"it asks for pictures of {came(asked)}; expected a tuple of effects"
        return
    unknown = [effect for effect in dict.fromkeys(asked) if effect not in effects]
    for effect in unknown[:MOST_TOLD]:
        yield f"it asks for pictures of {quoted(effect)}, which is no effect of this run{hint(effect, effects)}"
    if len(unknown) > MOST_TOLD:
        yield f"and of {len(unknown) - MOST_TOLD:,} more that are none"
    count = len(asked) * request.pictures
    if count > MOST_SAMPLES:
        yield f"it asks for {count:,} pictures at a time ({len(asked):,} effects); at most {MOST_SAMPLES} are made"
    if asked and shard_base:
        yield "it asks for pictures, which are not made where processes share one base (train.shard_base)"
