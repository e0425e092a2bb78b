"""`steps.jsonl`: a line for every student update, each with its checksum."""

from __future__ import annotations

from pathlib import Path

from attrs import asdict, frozen

from clora.contracts.values import StepReport
from clora.errors import shown
from clora.files.atomic import told_plainly, write_atomic
from clora.runs.files.checksums import DamagedError, Tell, make_way, warn
from clora.runs.files.fields import Fields, finite
from clora.runs.files.sealed_json import sealed, unsealed

#: bytes that are read of one line: a report of a thousand losses has some 50 kB
MAX_LINE = 1 << 20
_BEGIN = b'{"step": '


@frozen
class Steps:
    """The good lines of a log, their updates rising, and what is wrong with the rest (nothing where all is well)."""

    reports: tuple[StepReport, ...]
    damage: str = ""


def line_of(report: StepReport) -> str:
    """The line of one update, with its line feed."""
    return sealed("steps.jsonl", finite(asdict(report)), indent=None) + "\n"


def read_steps(path: Path) -> Steps:
    """The log up to its first damaged line; a last line without its end, which a kill leaves, is no damage."""
    if path.is_dir():
        return Steps((), f"{shown(path)} is a folder, not the log of the updates")
    reports: list[StepReport] = []
    try:
        with path.open("rb") as file:
            while raw := file.readline(MAX_LINE):
                if not raw.endswith(b"\n") and (raw.startswith(_BEGIN) or _BEGIN.startswith(raw)):
                    break
                try:
                    report = _report(raw, f"line {len(reports) + 1}")
                    if reports and report.step <= reports[-1].step:
                        raise DamagedError(f"line {len(reports) + 1} is damaged: update {report.step} stands there")
                except DamagedError as error:
                    return Steps(tuple(reports), f"{shown(path)}: {error}")
                reports.append(report)
    except FileNotFoundError:
        return Steps(())
    except OSError as error:
        return Steps(tuple(reports), f"{shown(path)} cannot be read: {error.strerror}")
    return Steps(tuple(reports))


def mend_steps(path: Path, done: int | None = None, tell: Tell = warn) -> tuple[StepReport, ...]:
    """Write the good lines of a damaged log again, and of any log those up to update `done`; returns them.

    Raises CloraError where the disk refuses.
    """
    found = read_steps(path)
    kept = tuple(report for report in found.reports if done is None or report.step <= done)
    if found.damage:
        last = found.reports[-1].step if found.reports else 0
        tell(f"{found.damage}; what it said of updates after {last} is dropped")
        make_way(path, tell)
    if found.damage or done is not None:
        write_atomic(path, "".join(map(line_of, kept)))
    return kept


class StepLog:
    """One JSON line per student update; on resume the lines past the checkpoint are dropped."""

    def __init__(self, path: Path, done: int, tell: Tell = warn) -> None:
        self.path = path
        mend_steps(path, done, tell)

    def add(self, report: StepReport) -> None:
        """Append one line. Raises CloraError where the disk refuses."""
        with told_plainly(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line_of(report))


def _report(raw: bytes, where: str) -> StepReport:
    try:
        text = raw.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        raise DamagedError(f"{where} is damaged: it is no text in UTF-8") from None
    fields = Fields(unsealed("steps.jsonl", text, where), where)
    return StepReport(
        step=fields.whole("step"),
        losses=fields.numbers("losses"),
        seconds=fields.number("seconds"),
        forward_equivalents=fields.number("forward_equivalents"),
        learning_rate=fields.number("learning_rate"),
        logs=fields.numbers("logs"),
    )
