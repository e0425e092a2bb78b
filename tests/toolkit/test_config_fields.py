"""The kinds of fields that a configuration may have, each with what it takes and what it tells."""

from __future__ import annotations

import pytest

from clora.errors import CloraError
from clora.toolkit import config_fields as kinds

WHOLE = kinds.Whole(1, 8)
TAKEN = [
    (WHOLE, 1),
    (WHOLE, 8),
    (kinds.Whole(1, 8, null=True), None),
    (kinds.Number(0.0, 1.0), 0),
    (kinds.Number(0.0, 1.0), 0.5),
    (kinds.Flag(), False),
    (kinds.OneOf(("a", "b")), "b"),
    (kinds.Name(), "Qwen2_5.x-y/z"),
    (kinds.Token(), "<|end|>"),
    (kinds.Token(), {"content": "a"}),
    (kinds.Token(), None),
    (kinds.Several(WHOLE, 0, 2), [1, 2]),
    (kinds.Either(WHOLE, kinds.Several(WHOLE, 1, 2)), [3]),
    (kinds.Section({"n": WHOLE}), {"n": 3, "other": "x"}),
]
REFUSED = [
    (WHOLE, True, "f is True; it must be a whole number from 1 to 8"),
    (WHOLE, 1.0, "f is 1.0; it must be a whole number"),
    (WHOLE, 9, "f is 9; it must be a whole number"),
    (WHOLE, None, "f is None; it must be a whole number"),
    (WHOLE, 10**30, "f is 1000000000000000000000000000000; it must be"),
    (kinds.Whole(3, 3), 4, "f is 4; it must be 3"),
    (kinds.Number(0.0, 1.0), float("nan"), "f is nan; it must be a number from 0 to 1"),
    (kinds.Number(0.0, 1.0), 10**400, "f is 1"),
    (kinds.Number(0.0, 1.0, null=True), "x", "f is 'x'; it must be a number from 0 to 1 or null"),
    (kinds.Flag(), 1, "f is 1; it must be true or false"),
    (kinds.OneOf(("a", "b")), [], "f is a list; it must be a or b"),
    (kinds.Name(), "a b", "f is 'a b'; it must be a name"),
    (kinds.Name(), "A" * 300_000, "(299,940 more characters); it must be a name"),
    (kinds.Token(), "", "f is ''; it must be a token of 1 to 100 characters"),
    (kinds.Several(WHOLE, 2, 2), [1], "f is a list of 1; it must be a list of 2"),
    (kinds.Several(WHOLE, 0, 2), {}, "f is a map; it must be a list of 0 to 2"),
    (kinds.Several(WHOLE, 0, 2), [1, 99], "f[1] is 99; it must be a whole number"),
    (kinds.Either(WHOLE, kinds.Several(WHOLE, 1, 2)), {}, "f is a map; it must be a whole number"),
    (kinds.Section({"n": WHOLE}), [], "f is a list; it must be a map"),
    (kinds.Section({"n": WHOLE}), {"n": 99}, "f.n is 99; it must be a whole number"),
]


@pytest.mark.parametrize(("kind", "value"), TAKEN)
def test_what_a_field_may_be_is_taken(kind: kinds.Kind, value: object) -> None:
    kinds.check_fields({"f": value}, {"f": kind, "absent": WHOLE}, "config.json")


@pytest.mark.parametrize(("kind", "value", "words"), REFUSED)
def test_anything_else_is_told_with_its_file_and_field(kind: kinds.Kind, value: object, words: str) -> None:
    with pytest.raises(CloraError) as caught:
        kinds.check_fields({"f": value}, {"f": kind}, "config.json")
    assert str(caught.value).startswith("config.json: f")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300


def test_many_problems_are_a_few_and_a_count() -> None:
    found = kinds.field_problems({"f": [99] * 500}, {"f": kinds.Several(WHOLE, 0, 1000)}, "config.json")
    assert len(found) == kinds.MOST_TOLD
    assert found[-1] == "config.json: f[5] is 99; it must be a whole number from 1 to 8 (and 494 more)"
