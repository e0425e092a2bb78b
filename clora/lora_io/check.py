"""Whether a LoRA file fits a backbone, told before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from clora.lora_io.contents import understand, unmatched_problem
from clora.lora_io.header import LoraFileError, inspect_header
from clora.lora_io.kinds import MAX_RANK
from clora.lora_io.layouts import InstalledLayout, installed
from clora.lora_io.reader import check_finite, file_strengths
from clora.lora_io.scales import StrengthFrom


@frozen
class Coverage:
    """Which linears a file changes: `matched` {module: rank}, `missing` modules, `unmatched` keys of the file."""

    layout: str
    matched: Mapping[str, int]  # for what is no plain LoRA, the highest rank that its delta can have
    missing: tuple[str, ...]
    unmatched: tuple[str, ...]

    def notes(self) -> list[str]:
        """Sentences worth knowing that are no mistakes: linears left alone, ranks that differ."""
        notes: list[str] = []
        if self.missing:
            total = len(self.matched) + len(self.missing)
            notes.append(
                f"changes {len(self.matched)} of {total} linears; the rest, such as {self.missing[0]}, stay the base's"
            )
        ranks = sorted(set(self.matched.values()))
        if len(ranks) > 1:
            notes.append(f"ranks differ between linears: {', '.join(map(str, ranks))}")
        return notes


def coverage(path: Path, shapes: Mapping[str, tuple[int, int]]) -> Coverage:
    """Compare a file's header with `shapes` {module: (in, out)}; raises LoraFileError for a broken header."""
    contents = understand(path, inspect_header(path), shapes)
    matched = {module: entry.most for module, entry in contents.entries.items()}
    return Coverage(contents.layout, matched, tuple(m for m in shapes if m not in matched), contents.unmatched)


def layouts_of(path: Path, shapes: Mapping[str, tuple[int, int]]) -> tuple[InstalledLayout, ...]:
    """The registered layouts that a file's names are understood by; none of a file that cannot be read."""
    if not installed():
        return ()
    try:
        return understand(path, inspect_header(path), shapes).registered
    except LoraFileError:  # whoever uses the file tells it
        return ()


def numbers_held(path: Path, shapes: Mapping[str, tuple[int, int]]) -> int:
    """How many numbers a file's LoRA has in memory, at most; raises LoraFileError for a broken header."""
    entries = understand(path, inspect_header(path), shapes).entries.values()
    return sum((entry.most if entry.plain else min(entry.most, MAX_RANK)) * sum(entry.shape) for entry in entries)


def check_lora(
    path: Path, shapes: Mapping[str, tuple[int, int]], *, data: bool = False, strength: StrengthFrom = None
) -> list[str]:
    """Every reason why a file cannot serve on this backbone, one sentence each, naming the file.

    Reads the header and the alphas; `data` reads the factors too and finds NaN and infinity. Covering only some of the
    linears is no problem. `strength` says whose word on the strength counts.
    """
    try:
        header = inspect_header(path)
        contents = understand(path, header, shapes)
    except LoraFileError as error:
        return [str(error)]
    problems = [*contents.problems, *unmatched_problem(path, contents, shapes)]
    if problems:
        return problems
    try:
        file_strengths(path, header, contents, strength)
    except LoraFileError as error:
        problems.append(str(error))
    try:
        if data:
            check_finite(path, contents)
    except LoraFileError as error:
        problems.append(str(error))
    return problems
