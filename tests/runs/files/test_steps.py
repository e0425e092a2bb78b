"""The log of the updates: what is damaged is found, told and dropped, what a kill has torn is not told."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from damage import WAYS, damage

from clora.contracts.values import StepReport
from clora.runs.files.steps import StepLog, line_of, mend_steps, read_steps

#: a log that is not there, that a kill has cut, or that is another's
UNTOLD = ("deleted", "renamed", "cut short", "emptied", "another of its kind")


def report(step: int) -> StepReport:
    return StepReport(step, {"a": 0.5 / step}, 0.1, 20.0, 1e-4, {"a.norm": float("nan") if step == 2 else 1.0})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "steps.jsonl"
    writer = StepLog(path, 0)
    for step in range(1, 6):
        writer.add(report(step))
    return path


def steps(path: Path) -> list[int]:
    return [line.step for line in read_steps(path).reports]


def test_what_was_added_is_read_again(log: Path) -> None:
    found = read_steps(log)
    assert found.damage == ""
    assert found.reports[0] == report(1)
    assert math.isnan(found.reports[1].logs["a.norm"])
    assert len(found.reports) == 5


def test_every_flipped_bit_is_found(log: Path) -> None:
    whole = log.read_bytes()
    for place in range(0, 8 * len(whole), 5):
        raw = bytearray(whole)
        raw[place // 8] ^= 1 << place % 8
        log.write_bytes(bytes(raw))
        found = read_steps(log)
        assert len(found.reports) == whole[: place // 8].count(b"\n"), place
        torn = place // 8 == len(whole) - 1  # without its end the last line is one that a kill has cut
        assert torn or "steps.jsonl: line" in found.damage, place


@pytest.mark.parametrize("way", [way for way in WAYS if way not in UNTOLD])
def test_damage_is_told_once_and_the_rest_goes_on(log: Path, way: str) -> None:
    damage(log, way)
    good, told = steps(log), []
    mend_steps(log, tell=told.append)
    assert bool(told) == (way != "last byte flipped")  # which makes of the last line one that a kill has cut
    assert steps(log) == good
    assert read_steps(log).damage == ""
    again: list[str] = []
    StepLog(log, 2, again.append).add(report(3))
    assert again == []
    assert steps(log) == [step for step in good if step <= 2] + [3]


@pytest.mark.parametrize("line", [b"null\n", b"[]\n", b"7\n", b"{}\n", b"\xff\xfe\n", b"\n", b"[" * 99_999 + b"\n"])
def test_a_line_of_anything_else_is_damage(log: Path, line: bytes) -> None:
    log.write_bytes(line_of(report(1)).encode() + line + line_of(report(2)).encode())
    found = read_steps(log)
    assert [line.step for line in found.reports] == [1]
    assert "line 2 is damaged" in found.damage
    assert len(found.damage) < 300


def test_lines_that_changed_places_are_damage(log: Path) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))
    found = read_steps(log)
    assert [line.step for line in found.reports] == [2]
    assert "update 1 stands there" in found.damage


def test_a_torn_last_line_is_dropped_without_a_word(log: Path) -> None:
    log.write_bytes(log.read_bytes()[:-9])
    assert read_steps(log).damage == ""
    assert steps(log) == [1, 2, 3, 4]


def test_on_resume_the_log_agrees_with_the_checkpoint(log: Path) -> None:
    StepLog(log, 3).add(report(4))
    assert steps(log) == [1, 2, 3, 4]
