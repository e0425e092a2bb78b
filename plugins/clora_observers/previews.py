"""Sheets of pictures from a run that still trains: what the student makes of some effects by now."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import field, frozen
from attrs.validators import optional

from clora.api import Observation, SampleRequest, between

#: effects on a sheet where the recipe names none
EFFECTS = 4
_SHEET = re.compile(r"update_(\d{6,7})\.png")


@frozen
class Previews:
    """Writes `RUN/observers/NAME/update_000025.png`: for each effect its source pictures, below them the student's.

    The pictures come from the student's current weights, in the words and with the sampler that the recipe serves, and
    from the same noise every time. Training is the same with it and without.
    """

    every: int = field(default=25, validator=between(1, 1_000_000))  # student updates between two sheets
    #: names of effects, in the order of the sheet; null: the first four of the run
    effects: tuple[str, ...] | None = None
    pictures: int = field(default=4, validator=between(1, 16))  # of each effect: its first test pictures
    height: int = field(default=256, validator=between(16, 2048))  # pixels of a picture on the sheet, at most
    #: sheets that are kept, the newest; null: all
    keep: int | None = field(default=50, validator=optional(between(1, 1_000_000)))

    def check(self) -> Iterable[str]:
        """No effects are no sheet, and an effect named twice is a mistake of the pen."""
        if self.effects == ():
            yield "effects names none; leave it out for the first four of the run"
        for effect in dict.fromkeys(self.effects or ()):
            if (self.effects or ()).count(effect) > 1:
                yield f"effects names {effect!r} twice"

    def sample_request(self, effects: Sequence[str]) -> SampleRequest:
        """The chosen effects, or the run's first ones."""
        return SampleRequest(tuple(effects[:EFFECTS]) if self.effects is None else self.effects, self.pictures)

    def observe(self, seen: Observation) -> None:
        """Write the sheet of this update whole, then remove the oldest beyond those that are kept."""
        from clora_observers.sheet import write_sheet

        write_sheet(seen.folder / f"update_{seen.report.step:06}.png", seen.samples, self.height)
        if self.keep is not None:
            for old in _sheets(seen.folder)[: -self.keep]:
                with suppress(FileNotFoundError):  # a person has taken it away
                    old.unlink()


def _sheets(folder: Path) -> list[Path]:
    """The sheets of a folder, the oldest update first; other files are no concern of ours."""
    found = {path: match for path in folder.iterdir() if (match := _SHEET.fullmatch(path.name)) is not None}
    return sorted(found, key=lambda path: int(found[path][1]))
