"""The lock of a run's folder: the second process is told who holds it, a dead one holds nothing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve

from clora.errors import CloraError
from clora.runs.files import lock
from clora.runs.files.lock import NAME, HeldError, Holder, held
from clora.runs.files.sealed_json import sealed

HOLDS = """
import sys, time
from pathlib import Path
from clora.runs.files.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path: Path):
    """Another process that holds `tmp_path / "run"`."""
    words = [sys.executable, "-c", HOLDS, str(tmp_path / "run"), "--set", "a\x1b[31m=1"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def written_by(folder: Path, holder: Holder) -> None:
    tree = {key: getattr(holder, key) for key in ("token", "host", "boot", "pid", "since", "command", "beat")}
    folder.mkdir(exist_ok=True)
    (folder / NAME).write_text(sealed(NAME, tree))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.1)


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP])
def no_system_lock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_a_folder_is_held_once_and_free_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with held(tmp_path / "run") as mine:
            mine.check()
            assert (tmp_path / "run" / NAME).exists()
        assert not (tmp_path / "run" / NAME).exists()
    with pytest.raises(KeyError), held(tmp_path / "run"):
        raise KeyError
    with held(tmp_path / "run"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks; the beats stand for them")
def test_the_second_is_told_who_holds_it(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(HeldError) as told, held(tmp_path / "run"):
        pass
    said = str(told.value)
    assert f"process {other.pid} on " in said
    assert "is in use by `-c " in said
    assert "since 20" in said
    assert "\x1b" not in said
    assert told.value.exit_code == 2
    with pytest.raises(HeldError), held(tmp_path / "run"):
        pass  # asking has not taken it


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks; the beats stand for them")
def test_a_killed_holder_holds_nothing(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "run" / NAME).exists()  # it could not tidy up
    told: list[str] = []
    with held(tmp_path / "run", told.append):
        pass
    assert told == []  # this machine knows, and waits for nothing


def test_another_machine_that_is_alive_is_left_alone(tmp_path: Path, quick, monkeypatch) -> None:
    far = evolve(Holder.here(), token="far", host="far", boot="another", pid=77)
    written_by(tmp_path / "run", far)
    beats = iter(range(1, 1000))
    monkeypatch.setattr(lock.time, "sleep", lambda _: written_by(tmp_path / "run", evolve(far, beat=next(beats))))
    told: list[str] = []
    with pytest.raises(HeldError, match="process 77 on far"), held(tmp_path / "run", told.append):
        pass
    assert "waiting for a sign of life" in told[0]
    assert lock._read(tmp_path / "run" / NAME).token == "far"


def test_another_machine_without_a_sign_of_life_is_replaced(tmp_path: Path, quick) -> None:
    written_by(tmp_path / "run", evolve(Holder.here(), token="far", host="far", boot="another"))
    told: list[str] = []
    with held(tmp_path / "run", told.append):
        pass
    assert len(told) == 2
    assert "it is taken over" in told[1]


def test_without_locks_of_the_system_the_beats_hold_it(tmp_path: Path, quick, no_system_lock) -> None:
    with held(tmp_path / "run") as mine, pytest.raises(HeldError), held(tmp_path / "run", lambda text: None):
        pass
    mine.check()


def test_a_holder_that_was_replaced_stops(tmp_path: Path, quick) -> None:
    with held(tmp_path / "run") as mine:
        written_by(tmp_path / "run", evolve(Holder.here(), token="far", host="far"))
        assert mine.lost.wait(30)
        with pytest.raises(HeldError, match=r"was taken over by .* on far"):
            mine.check()
    assert lock._read(tmp_path / "run" / NAME).token == "far"  # it has left the other's alone


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"\xff\x00", b'{"token": 3}', b"[" * 100_000])
def test_a_damaged_lock_file_holds_nobody_up(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / NAME).write_bytes(content)
    with held(tmp_path / "run"):
        pass


def test_a_folder_in_its_place_is_kept_aside(tmp_path: Path) -> None:
    (tmp_path / "run" / NAME).mkdir(parents=True)
    told: list[str] = []
    with held(tmp_path / "run", told.append):
        pass
    assert (tmp_path / "run" / f"{NAME}.damaged").is_dir()
    assert len(told) == 1


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CloraError, match="is a file, not a folder"), held(tmp_path / "file" / "run"):
        pass
