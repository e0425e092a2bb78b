"""Every numeric key, of the recipe's own sections and of every component that ships, has two bounds."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from math import inf, nan
from typing import Any, Union, get_args, get_origin

import attrs
import pytest
from attrs import field, frozen

from clora.config.fields import Key, draft, keys_of
from clora.config.schema import Recipe
from clora.contracts.bounds import between
from clora.plugin_system.discovery import discover

#: what no key means; 1e-320 is 0 in float32, and 10^10 of anything is more than there is
NUMBERS = (10**30, -(10**30), 10**10, 1e308, -1e308, 1e-320, -1e-320, nan, inf, -inf)


def placed(expected: Any, number: float, default: Any = None) -> Iterator[Any]:
    """Every value of the type that has the number in one numeric place."""
    origin, members = get_origin(expected), get_args(expected)
    if expected in (int, float):
        if expected is float or isinstance(number, int):
            yield float(number) if expected is float else number
    elif origin in (Union, types.UnionType):
        for member in members:
            yield from placed(member, number, default)
    elif origin is tuple and members[1:] != (...,):
        others = default if isinstance(default, tuple) else (64,) * len(members)
        for i, member in enumerate(members):
            yield from ((*others[:i], value, *others[i + 1 :]) for value in placed(member, number))
    elif origin in (tuple, list, Sequence):
        yield from ((value,) for value in placed(members[0], number))
    elif origin in (dict, Mapping):
        yield from ({"a": value} for value in placed(members[1], number))


def inner(expected: Any) -> Iterator[type]:
    """The attrs classes that a type holds."""
    if isinstance(expected, type) and attrs.has(expected):
        yield expected
    for member in get_args(expected):
        yield from inner(member)


def numeric_keys(cls: type, where: str) -> Iterator[tuple[str, type, Key]]:
    """The keys of a class, and of the sections within it, whose values hold numbers."""
    for key in keys_of(cls):
        if any(True for _ in placed(key.type, 1)):
            yield f"{where}.{key.name}", cls, key
        for section in inner(key.type):
            yield from numeric_keys(section, f"{where}.{key.name}")


@cache
def every_key() -> tuple[tuple[str, type, Key], ...]:
    catalogue = discover()
    assert [plugin.reason for plugin in catalogue.plugins if plugin.state == "broken"] == []
    ours = [c for c in catalogue.components if c.distribution == "clora"]
    assert len(ours) > 20
    found = list(numeric_keys(Recipe, "recipe"))
    for component in ours:
        found += numeric_keys(component.cls, f"{component.kind}:{component.name}")
    return tuple(found)


def accepted(cls: type, key: Key, value: Any) -> bool:
    """True where the key's validator lets a value through."""
    if key.attribute.validator is None:
        return True
    try:
        key.attribute.validator(draft(cls, {}), key.attribute, value)
    except ValueError:
        return False
    return True


def test_the_walk_finds_keys_of_every_form() -> None:
    names = {name for name, _, _ in every_key()}
    assert names >= {
        "recipe.student.rank",
        "recipe.student.ema",
        "recipe.train.betas",
        "merge:peft.density",
        "recipe.start.replay",
        "router:pdsr.p_switch",
        "backbone:qwen_image_edit.memory.offload_blocks",
        "dataset:pictures.size",
    }
    assert len(names) > 50


def test_no_key_takes_a_number_that_nobody_means() -> None:
    taken = [
        f"{name} takes {value!r}"
        for name, cls, key in every_key()
        for number in NUMBERS
        for value in placed(key.type, number, key.attribute.default)
        if accepted(cls, key, value)
    ]
    assert taken == []


def test_every_default_is_within_its_bounds() -> None:
    plain = [(name, cls, key) for name, cls, key in every_key() if not key.required]
    assert [name for name, cls, key in plain if not accepted(cls, key, key.attribute.default)] == []


def test_the_walk_would_tell_a_key_without_bounds() -> None:
    @frozen
    class Loose:
        one_sided: int = field(default=1, validator=attrs.validators.ge(0))
        pair: tuple[float, float] = (0.0, 1.0)

    keys = {key.name: key for key in keys_of(Loose)}
    assert accepted(Loose, keys["one_sided"], 10**30)
    assert not accepted(Loose, keys["one_sided"], -1)
    assert list(placed(tuple[float, float], 7, (0.0, 1.0))) == [(7.0, 1.0), (0.0, 7.0)]
    assert accepted(Loose, keys["pair"], (7.0, 1.0))


@pytest.mark.parametrize(
    ("bounds", "right", "wrong", "words"),
    [
        (between(1, 1000), (1, 1000), (0, 1001, -1, 10**5000), "between 1 and 1000"),
        (between(0.0, 1.0, below=True), (0.0, 0.999), (1.0, -0.1, nan), "at least 0 and less than 1"),
        (between(1e-6, 1e6, zero=True), (0.0, 1e-6, 1e6), (1e-7, -1e-6), "0 or between 1e-6 and 1,000,000"),
        (between(-1.0, 1.0), (0.0, -1.0), (1e-320, -1e-320, inf), "between -1 and 1"),
        (between(0, 2**32 - 1), (0, 2**32 - 1), (2**32,), "between 0 and 4,294,967,295"),
    ],
)
def test_between(bounds: Any, right: tuple[float, ...], wrong: tuple[float, ...], words: str) -> None:
    @frozen
    class Holder:
        key: Any = field(validator=bounds)

    for value in right:
        assert Holder(value).key == value
    for value in wrong:
        with pytest.raises(ValueError, match="'key' must be ") as caught:
            Holder(value)
        assert f"must be {words}, found" in str(caught.value)
        assert len(str(caught.value)) < 160


def test_a_message_has_the_key_the_bounds_and_the_number(wrong) -> None:
    assert wrong("student: {steps: 999999999}") == ["2:18: student.steps must be between 1 and 1000, found 999999999"]
    assert wrong("train: {betas: [0.9, 1.0]}") == ["2:16: train.betas must be at least 0 and less than 1, found 1.0"]
    assert wrong("train: {weight_decay: 1e-320}") == [
        "2:23: train.weight_decay must be between 0 and 1, found 1e-320, which is 0 in float32"
    ]


def test_a_strangers_component_needs_no_bounds(load) -> None:
    assert load(f"router: {{hold_steps: {10**19}}}").recipe.router.hold_steps == 10**19


def test_a_validators_own_sentence_is_cut_to_a_line(wrong) -> None:
    (line,) = wrong(f"router: {{use: fixed, effect: bloom, code: {'9' * 2000}x}}")
    assert line.startswith("2:43: router.code must match regex")
    assert len(line) < 500
