"""The keys that losses share: their bounds, another default in a subclass, the course of a weight."""

from __future__ import annotations

import pytest
from attrs import frozen

from clora.api import CriticLoss, StudentLoss, streams_key


@pytest.mark.parametrize(
    ("keys", "word"), [({"streams": ()}, "Length"), ({"weight": -1.0}, "weight"), ({"fade_in": 2.0}, "fade_in")]
)
def test_the_shared_keys_have_bounds(keys: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        StudentLoss(**keys)  # pyright: ignore[reportArgumentType]
    if "fade_in" not in keys:
        with pytest.raises(ValueError, match=word):
            CriticLoss(**keys)  # pyright: ignore[reportArgumentType]


def test_a_subclass_has_streams_of_its_own_and_the_course_of_the_weight() -> None:
    @frozen
    class Mine(StudentLoss):
        needed: str
        streams: tuple[str, ...] = streams_key("effect", among=("effect",))

    loss = Mine("x", weight=2.0, fade_in=0.5)
    assert (loss.streams, loss.weight_at(0.25), loss.needs_critic(), tuple(loss.alarms({}))) == (
        ("effect",),
        1.0,
        False,
        (),
    )
    with pytest.raises(ValueError, match="streams"):
        Mine("x", streams=("general",))
