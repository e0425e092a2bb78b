"""A broken example of each rule for observers is caught."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import field, frozen

from clora.api import SampleRequest, between
from clora.testing.conformance import problems_of


@frozen
class Careless:
    """An observer that spoils what it is given and writes beside its folder."""

    every: int = field(default=1, validator=between(1, 100))

    def sample_request(self, effects):
        return SampleRequest(effects[:2], 2)

    def observe(self, seen):
        seen.report.losses.clear()
        seen.samples[0].student.mul_(0.5)
        (seen.run.folder / "notes.txt").write_text("mine")


@frozen
class Fickle:
    """An observer that wants other pictures each time, and raises."""

    every: int = field(default=1, validator=between(1, 100))
    asked: list = field(factory=list)

    def sample_request(self, effects):
        self.asked.append(1)
        return SampleRequest(effects[: len(self.asked)])

    def observe(self, seen):
        raise OSError("no disk")


@frozen
class Silent:
    """An observer of nothing."""


@pytest.mark.parametrize(
    ("part", "sentences"),
    [
        (
            Careless(),
            [
                "it changed the report, which other observers read",
                "it changed the pictures that it was given",
                "it wrote notes.txt, which does not lie below `seen.folder`",
            ],
        ),
        (Fickle(), ["its sample_request gives other pictures each time", "observers: OSError: no disk"]),
        (Silent(), ["'Silent' is no Observer: it has no every, observe"]),
    ],
)
def test_an_observer_that_breaks_a_rule_is_caught(part: Any, sentences: list[str]) -> None:
    found = problems_of("observers", part, checks_imports=False)
    for sentence in sentences:
        assert any(sentence in problem for problem in found), found
