"""Which effects want a caption, and asking a captioner for them: one that fails does not lose the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from clora.api import (
    MAX_NAME,
    CloraError,
    HasPairs,
    WrittenCaption,
    fingerprint,
    hint,
    open_file,
    quoted,
    read_captions,
    reason,
    shown,
)
from clora_captions.answers import tidied, wrong_with
from clora_captions.writing import put_caption

if TYPE_CHECKING:
    from clora.api import Captioner, Dataset, EffectCard, RequestsCaptions

PAIRS = 2  # as the paper's request has
TRIES = 3  # of one request, where the answers are no captions
#: after so many effects in a row that failed alike, the next would fail too
HOPELESS = 3

Pairs = tuple[tuple[Path, Path], ...]


@frozen
class Wanted:
    """One effect to ask about; `digest` stands for the request, the pictures' bytes and the model."""

    effect: str
    request: str
    pairs: Pairs
    digest: str


@frozen
class Sorted:
    """What becomes of every effect: asked about, left as it is with the reason, or impossible to ask about."""

    wanted: tuple[Wanted, ...]
    kept: tuple[tuple[str, str], ...]
    failed: tuple[tuple[str, str], ...]


@frozen
class Outcome:
    """The effects that got a caption, and those that did not with the reason."""

    made: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]


@frozen
class Captioning:
    """The parts of a recipe that write captions, and the file they write them to."""

    prompts: RequestsCaptions
    dataset: Dataset
    captioner: Captioner
    file: Path

    def sort(self, cards: Sequence[EffectCard], again: Iterable[str] = ()) -> Sorted:
        """Tell the effects apart; `again` names those to ask about whatever the file says.

        Raises CloraError for an unknown name in `again`, for one whose caption stands in the manifest, for a captions
        file with mistakes, and where the prompt strategy reads no captions.
        """
        again = frozenset(again)
        known = {card.name for card in cards}
        if unknown := sorted(again - known):
            raise CloraError(
                "\n".join(f"--again: there is no effect {quoted(name)}{hint(name, known)}" for name in unknown)
            )
        if cards and self.prompts.caption_request(cards[0], PAIRS) is None:
            raise CloraError("prompts: captions are turned off, so none is read")
        written = read_captions(self.file)
        wanted: list[Wanted] = []
        kept: list[tuple[str, str]] = []
        failed: list[tuple[str, str]] = []
        for card in cards:
            entry = written.get(card.name)
            if card.caption and (entry is None or entry.caption != " ".join(card.caption.split())):
                kept.append((card.name, "its caption stands in the bank's manifest"))
                continue
            try:
                asked = self._wanted(card)
            except CloraError as error:
                if entry is None or card.name in again:
                    failed.append((card.name, str(error)))
                else:
                    kept.append((card.name, "it has a caption"))
                continue
            why = None if card.name in again else _why_kept(entry, asked)
            wanted.append(asked) if why is None else kept.append((card.name, why))
        if overruled := [name for name, why in kept if name in again]:
            names = ", ".join(shown(name, 100) for name in overruled[:20])
            raise CloraError(f"the captions of {names} stand in the bank's manifest; remove them there")
        return Sorted(tuple(wanted), tuple(kept), tuple(failed))

    def ask(self, wanted: Sequence[Wanted], tell: Callable[[str], None], show: Callable[[str, str], None]) -> Outcome:
        """Ask about one effect after the other and write each answer to the file at once, so that none is lost.

        `tell` is told what is going on, `show` is given every effect with its caption.
        """
        made: list[str] = []
        failed: list[tuple[str, str]] = []
        alike: list[str] = []  # the reasons of the last failures in a row
        before = read_captions(self.file)
        for i, want in enumerate(wanted):
            tell(f"caption {i + 1}/{len(wanted)}: {shown(want.effect, 100)}, {_counted(len(want.pairs), 'pair')}")
            try:
                caption = self._answer(want, tell)
                show(want.effect, caption)
                self._keep(want, caption, before.get(want.effect))
            except CloraError as error:
                tell(f"{shown(want.effect, 100)}: {error}")
                failed.append((want.effect, str(error)))
                alike = [*alike, str(error)][-HOPELESS:]
                if len(alike) == HOPELESS and len(set(alike)) == 1:
                    failed += [(w.effect, "not asked, since those before it failed alike") for w in wanted[i + 1 :]]
                    break
            else:
                made.append(want.effect)
                alike = []
        return Outcome(tuple(made), tuple(failed))

    def _keep(self, want: Wanted, caption: str, before: WrittenCaption | None) -> None:
        """Write an answer down, unless someone has written there since the asking began."""
        if read_captions(self.file).get(want.effect) != before:
            raise CloraError(
                f"{shown(self.file)} has another caption for it than when the asking began; that one is kept"
            )
        put_caption(self.file, want.effect, WrittenCaption(caption, self._by(), want.digest, fingerprint(caption)))

    def _by(self) -> str:
        """The captioner's name as a message and the captions file can hold it."""
        return tidied(self.captioner.name())[:MAX_NAME]

    def _answer(self, want: Wanted, tell: Callable[[str], None]) -> str:
        """A caption, after up to TRIES answers that were none: the next request says what was wrong with the last."""
        request, wrong_last = want.request, ""
        for _ in range(TRIES):
            caption = tidied(self.captioner.caption(request, want.pairs))
            if (wrong := wrong_with(caption)) is None:
                return caption
            tell(f"{shown(want.effect, 100)}: an answer {wrong}")
            wrong_last = wrong
            request = (
                f"{want.request}\n\nAn earlier answer could not be used: it {wrong}. "
                "Answer with the instruction for the effect alone."
            )
        raise CloraError(f"{TRIES} answers of {self._by()} were no captions; the last {wrong_last}")

    def _wanted(self, card: EffectCard) -> Wanted:
        """What to ask about a card. Raises CloraError where it has no pairs."""
        pairs = chosen(card.name, card.pairs or self._pairs(card.name))
        if not pairs:
            raise CloraError(
                "there are no before/after pictures of it; give some as `pairs:` in the bank's manifest or as targets "
                "in the dataset, or write its caption by hand"
            )
        request = self.prompts.caption_request(card, len(pairs)) or ""  # None was refused before
        pictures = [_bytes(picture) for pair in pairs for picture in pair]
        return Wanted(card.name, request, pairs, fingerprint(request, self.captioner.name(), *pictures))

    def _pairs(self, effect: str) -> Sequence[tuple[Path, Path]]:
        if not isinstance(self.dataset, HasPairs):
            return ()
        try:
            return self.dataset.pairs(effect)
        except ValueError as error:
            raise CloraError(reason(error)) from error


def chosen(effect: str, pairs: Sequence[tuple[Path, Path]]) -> Pairs:
    """Two of an effect's pairs, by a draw that depends on the names alone: new pairs rarely change it."""

    def drawn(pair: tuple[Path, Path]) -> bytes:
        return blake2b("|".join((effect, *(picture.name for picture in pair))).encode(errors="replace")).digest()

    return tuple(sorted(pairs, key=drawn)[:PAIRS])


def _why_kept(entry: WrittenCaption | None, asked: Wanted) -> str | None:
    """Why an entry stays; None where the effect is to be asked about."""
    if entry is None:
        return None
    if entry.edited:
        changed = entry.request not in ("", asked.digest)
        return "a person wrote it" + (
            f"; what it describes has changed, `--again {shown(asked.effect, 100)}`" if changed else ""
        )
    return "nothing has changed" if entry.request == asked.digest else None


def _bytes(picture: Path) -> bytes:
    try:
        with open_file(picture) as file:
            return file.read()
    except (OSError, ValueError) as error:
        why = reason(getattr(error, "strerror", None) or error)
        raise CloraError(f"{shown(picture)} cannot be read: {why}") from None


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
