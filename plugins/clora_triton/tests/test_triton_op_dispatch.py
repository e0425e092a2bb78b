"""The dispatcher: what it picks, when it measures, and a file on disk that may be anything."""

from __future__ import annotations

import json
import logging
import multiprocessing
from pathlib import Path

import pytest
import torch
from clora_triton.call import Call
from clora_triton.candidates import CANDIDATES, usable
from clora_triton.choices import FOLDER_VARIABLE, LIMIT, Choices, cache_folder
from clora_triton.dispatch import Dispatcher, implementation, key_of


def a_call(rows: int = 8, dtype: torch.dtype = torch.bfloat16, segments: int = 1) -> Call:
    x, weight = torch.zeros(rows, 5, 16, dtype=dtype), torch.zeros(24, 16, dtype=dtype)
    counts, which = [rows // segments] * segments, list(range(segments))
    return Call(x, weight, None, [torch.zeros(4, 16)] * 2, [torch.zeros(24, 4)] * 2, [1.0, 1.0], counts, which)


class Clock:
    """Times that are known, and how often they were asked for."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self.asked: list[str] = []

    def __call__(self, candidate, call, grad) -> float:
        name = next(name for name, known in CANDIDATES.items() if known is candidate)
        self.asked.append(name)
        if name not in self.seconds:
            raise RuntimeError(f"{name} cannot be compiled for this device")
        return self.seconds[name]


TIMES = {"addmm": 3.0, "side_stream": 2.0, "merged": 1.0, "parts": 1.5, "fused": 4.0}


def names(chosen) -> str:
    return next(name for name, known in CANDIDATES.items() if known is chosen)


def test_the_quickest_is_measured_once_and_remembered_by_the_next_process(tmp_path) -> None:
    clock = Clock(TIMES)
    first = Dispatcher(Choices(tmp_path, "gpu"), clock)
    assert names(first.choose(a_call(), True, "auto")) == "parts"
    asked = len(clock.asked)
    assert asked == 4
    assert names(first.choose(a_call(), True, "auto")) == "parts"
    assert names(Dispatcher(Choices(tmp_path, "gpu"), clock).choose(a_call(), True, "auto")) == "parts"
    assert len(clock.asked) == asked


def test_another_machine_version_shape_or_direction_is_measured_for_itself(tmp_path) -> None:
    clock = Clock(TIMES)
    Dispatcher(Choices(tmp_path, "gpu"), clock).choose(a_call(), True, "auto")
    for made_by, call, grad in (("gpu 2", a_call(), True), ("gpu", a_call(64), True), ("gpu", a_call(), False)):
        before = len(clock.asked)
        Dispatcher(Choices(tmp_path, made_by), clock).choose(call, grad, "auto")
        assert len(clock.asked) > before


def test_a_merged_weight_is_asked_only_where_nothing_is_lost() -> None:
    assert "merged" in usable(a_call(dtype=torch.float32), False, "auto")
    assert "merged" not in usable(a_call(dtype=torch.bfloat16), False, "auto")
    assert "merged" not in usable(a_call(dtype=torch.float32), True, "auto")
    assert "merged" not in usable(a_call(dtype=torch.float32, segments=2), False, "auto")


def test_triton_picks_among_its_own(tmp_path) -> None:
    clock = Clock({**TIMES, "addmm": 0.1})
    chosen = Dispatcher(Choices(tmp_path, "gpu"), clock).choose(a_call(), True, "triton")
    assert names(chosen) == "parts"
    assert set(clock.asked) == {"parts", "fused"}


def test_what_does_not_run_on_a_device_is_left_out_and_named(tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO, "clora_triton")
    clock = Clock({"addmm": 1.0})
    assert names(Dispatcher(Choices(tmp_path, "unknown"), clock).choose(a_call(), True, "auto")) == "addmm"
    assert "fused does not run here and is left out: RuntimeError: fused cannot be compiled" in caplog.text


def test_where_nothing_can_be_measured_the_one_that_works_everywhere_is_used(tmp_path) -> None:
    assert names(Dispatcher(Choices(tmp_path, "unknown"), Clock({})).choose(a_call(), True, "auto")) == "addmm"


def test_rows_are_counted_in_steps(tmp_path) -> None:
    assert key_of(a_call(1000), True) == key_of(a_call(1010), True)
    assert key_of(a_call(1000), True) != key_of(a_call(2000), True)


def test_a_cpu_measures_nothing(monkeypatch) -> None:
    monkeypatch.setattr("clora_triton.dispatch._dispatcher", lambda device: pytest.fail("measured"))
    assert implementation(a_call(), grad=True) is CANDIDATES["addmm"]


DAMAGED = {
    "half a file": b'{"made_by": "gpu", "choi',
    "no text": b"\xff\xfe\x00",
    "a list": b"[]",
    "a number for the table": b'{"made_by": "gpu", "choices": 3}',
    "numbers for entries": b'{"made_by": "gpu", "choices": {"%s": 3}}',
    "a number for a choice": b'{"made_by": "gpu", "choices": {"%s": {"choice": 3}}}',
    "a name that there is not": b'{"made_by": "gpu", "choices": {"%s": {"choice": "os.system"}}}',
    "another machine's": b'{"made_by": "other", "choices": {"%s": {"choice": "fused"}}}',
    "brackets without end": b"[" * 100_000,
    "too much": b" " * (LIMIT + 1),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_measured_anew_and_replaced(kind, tmp_path) -> None:
    key = f"auto {key_of(a_call(), True)}"
    Choices(tmp_path, "gpu").path.write_bytes(DAMAGED[kind].replace(b"%s", key.encode()))
    assert names(Dispatcher(Choices(tmp_path, "gpu"), Clock(TIMES)).choose(a_call(), True, "auto")) == "parts"
    assert Choices(tmp_path, "gpu").get(key, tuple(CANDIDATES)) == "parts"


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO, "clora_triton")
    (tmp_path / "file").write_text("")
    dispatcher = Dispatcher(Choices(tmp_path / "file", "gpu"), Clock(TIMES))
    assert names(dispatcher.choose(a_call(), True, "auto")) == "parts"
    assert names(dispatcher.choose(a_call(), True, "auto")) == "parts"
    assert len(dispatcher.timer.asked) == 4
    assert "choices are not kept" in caplog.text


def _write(folder: str, start: int) -> None:
    for i in range(start, start + 40):
        Choices(Path(folder), "gpu").put(f"key {i}", "addmm", {"addmm": 1.0})


def test_processes_that_write_at_once_leave_a_whole_file(tmp_path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(str(tmp_path), 100 * i)) for i in range(3)]
    for writer in writers:
        writer.start()
    path = Choices(tmp_path, "gpu").path
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            json.loads(path.read_text())
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(json.loads(path.read_text())["choices"]) >= 40
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_where_the_choices_lie(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache" / "clora_triton"
