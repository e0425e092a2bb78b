"""Triggers: words that stand for one effect and occur in no other's prompts, as words and as the model's tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from hashlib import blake2b
from typing import Literal

from attrs import frozen

SUFFIX_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SUFFIX_LENGTH = 7

#: a text cut into what is compared: words, or a tokenizer's numbers
Cut = Callable[[str], Sequence[Hashable]]
Pieces = tuple[Hashable, ...]


@frozen
class Read:
    """What is read of one effect: its trigger, the student prompt that begins with it, the teacher prompt."""

    name: str
    trigger: str
    student: str
    teacher: str

    @property
    def rest(self) -> str:
        """What follows the trigger in the student prompt, the space between them included."""
        return self.student.removeprefix(self.trigger)


def made_trigger(name: str, seed: int) -> str:
    """`<name_SUFFIX>` with seven letters or digits hashed from (seed, name)   (paper: `<effectname_RN8pcKD>`).

    Stable across runs and machines, since the exported student answers to it. What is no letter, digit or underscore
    leaves the name, so that the trigger stays one word between its brackets.
    """
    digest = blake2b(f"{seed}|{name}".encode(), digest_size=16).digest()
    number = int.from_bytes(digest, "little")
    letters: list[str] = []
    for _ in range(SUFFIX_LENGTH):
        number, letter = divmod(number, len(SUFFIX_LETTERS))
        letters.append(SUFFIX_LETTERS[letter])
    return f"<{re.sub(r'[^0-9A-Za-z_]', '', name) or 'effect'}_{''.join(letters)}>"


def words(text: str) -> tuple[str, ...]:
    """The text as words and single signs, whatever their case: the finest cut that a person would make."""
    return tuple(re.findall(r"\w+|[^\w\s]", text.casefold()))


def collisions(effects: Sequence[Read], tokens: Callable[[str], Sequence[int]] | None = None) -> Iterator[str]:
    """Sentences on effects that a reader could mix up; `tokens` is the model's tokenizer, where it is known.

    Two effects with one trigger, or a trigger inside the words of another effect, would make the student answer one
    request with the other's effect. Words are compared whatever their case; tokens find what words do not: `zap`
    in `zapper`, or signs that the tokenizer does not know and reads as one and the same.
    """
    told: set[frozenset[str]] = set()
    for found in _Clashes(effects, words, lambda effect: {words(effect.trigger)}).sentences("words"):
        told.add(found.effects)
        yield found.sentence
    if tokens is None:
        return

    def cut(text: str) -> Pieces:
        return tuple(tokens(text))

    for found in _Clashes(effects, cut, lambda effect: trigger_tokens(effect, cut)).sentences("tokens"):
        if found.effects not in told:
            yield found.sentence


def trigger_tokens(effect: Read, cut: Callable[[str], Pieces]) -> set[Pieces]:
    """The tokens that a trigger may become: in its own student prompt, on its own, and after a space.

    In the student prompt they are what is left once the tokens of the rest are taken off the end: where the tokenizer
    merges the trigger's end with what follows it, the merged token is the trigger's.
    """
    whole, rest = cut(effect.student), cut(effect.rest)
    same = 0
    while same < min(len(whole), len(rest)) and whole[-1 - same] == rest[-1 - same]:
        same += 1
    return {whole[: len(whole) - same], cut(effect.trigger), cut(f" {effect.trigger}")}


@frozen
class _Found:
    """A sentence and the names of the effects that it is about."""

    effects: frozenset[str]
    sentence: str


class _Clashes:
    """The triggers of effects against one another's prompts, all cut the same way and indexed by piece."""

    def __init__(self, effects: Sequence[Read], cut: Cut, needles: Callable[[Read], set[Pieces]]) -> None:
        self.effects = effects
        self.needles = [needles(effect) for effect in effects]
        self.prompts = [
            {reader: tuple(cut(text)) for reader, text in (("student", effect.student), ("teacher", effect.teacher))}
            for effect in effects
        ]
        self.where: dict[Hashable, list[tuple[int, str, int]]] = {}
        for i, prompts in enumerate(self.prompts):
            for reader, pieces in prompts.items():
                for position, piece in enumerate(pieces):
                    self.where.setdefault(piece, []).append((i, reader, position))

    def sentences(self, unit: Literal["words", "tokens"]) -> Iterator[_Found]:
        """Every clash once, effect by effect; `unit` says what the pieces are."""
        told = "its trigger {!r} stands" if unit == "words" else "the tokens of its trigger {!r} stand"
        for i, effect in enumerate(self.effects):
            if not all(self.needles[i]):
                yield _Found(frozenset({effect.name}), f"effect {effect.name!r}: its trigger has no {unit}")
                continue
            for j, reader in self._holders(i).items():
                other = self.effects[j]
                names = frozenset({effect.name, other.name})
                if self.needles[i] & self.needles[j]:
                    if i < j:
                        yield _Found(names, _same(effect, other, unit))
                    continue
                clash = told.format(effect.trigger)
                yield _Found(names, f"effect {effect.name!r}: {clash} in the {reader} prompt of {other.name!r} too")

    def _holders(self, i: int) -> dict[int, str]:
        """The other effects whose prompts hold this one's trigger, each with who reads that prompt."""
        found: dict[int, str] = {}
        for needle in self.needles[i]:
            rarest = min(range(len(needle)), key=lambda k: len(self.where.get(needle[k], ())))
            for j, reader, position in self.where.get(needle[rarest], ()):
                start = position - rarest
                if j != i and start >= 0 and self.prompts[j][reader][start : start + len(needle)] == needle:
                    found[j] = "student" if found.get(j) == "student" else reader
        return dict(sorted(found.items()))


def _same(effect: Read, other: Read, unit: str) -> str:
    if unit == "words":
        return f"effects {effect.name!r} and {other.name!r} have the same trigger {effect.trigger!r}"
    return (
        f"effects {effect.name!r} and {other.name!r}: the model reads their triggers {effect.trigger!r} and "
        f"{other.trigger!r} as the same tokens"
    )
