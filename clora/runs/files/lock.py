"""One process at a time in a run's folder, and the second is told who has it.

What is promised:

- On one machine, and on a shared disk whose locks reach all machines (NFS, Lustre with -o flock, ...), two processes
  never work in one folder. The operating system holds the lock, and lets go of it however the process ends.
- Where locks do not reach other machines, or there are none, the holder also writes into the lock file every few
  seconds. Another machine watches it before it takes over what nobody seems to hold: BEATS beats long, so no clock of
  two machines is compared. If two start in the same moment, one of them finds the other's name at its next beat, and
  stops.
- A holder that stood still for longer than that (a suspended machine) finds that it was replaced and stops at its next
  update. Readers take no lock: every file comes into place whole.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from attrs import evolve, field, frozen

from clora.errors import CloraError, escaped, shown
from clora.files.atomic import told_plainly
from clora.files.untrusted_json import read_text
from clora.runs.files.checksums import Tell, make_way, warn
from clora.runs.files.fields import Fields
from clora.runs.files.sealed_json import sealed, unsealed

NAME = ".lock"
#: seconds between two beats of a holder, and how many of them another machine waits for
BEAT, BEATS = 5.0, 4
_MOST = 64 << 10


class HeldError(CloraError):
    """Another process works in this folder; the message says which."""


@frozen
class Holder:
    """Who has the folder."""

    token: str  # no two are alike
    host: str
    boot: str  # of the host's kernel, where it tells
    pid: int
    since: str
    command: str
    beat: int = 0

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        words = [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else []
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        return cls(uuid4().hex, socket.gethostname(), _boot(), os.getpid(), since, shlex.join(words)[:400])

    @classmethod
    def of(cls, fields: Fields) -> Holder:
        """From the lock file's map."""
        texts = {key: fields.text(key) for key in ("token", "host", "boot", "since", "command")}
        return cls(**texts, pid=fields.whole("pid"), beat=fields.whole("beat"))

    def __str__(self) -> str:
        return f"`{escaped(self.command[:200])}` (process {self.pid} on {escaped(self.host[:100])}, since {self.since})"


@frozen
class FolderLock:
    """The lock of one folder, held: `check()` raises HeldError once somebody else has taken the folder over."""

    path: Path
    holder: Holder
    lost: threading.Event = field(factory=threading.Event)

    def check(self) -> None:
        """Raise HeldError where this process stood still so long that another one took the folder."""
        if self.lost.is_set():
            other = _read(self.path)
            raise HeldError(f"{shown(self.path.parent)} was taken over by {other or 'another process'}; this one stops")


@contextmanager
def held(folder: Path, tell: Tell = warn) -> Iterator[FolderLock]:
    """Hold a folder, which is made if need be. Raises HeldError, naming the holder, where somebody has it."""
    path = folder / NAME
    with told_plainly(folder):
        folder.mkdir(parents=True, exist_ok=True)
    make_way(path, tell)
    handle, strong = _locked(path)
    lock = FolderLock(path, Holder.here())
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(lock, handle, stop), name="folder lock", daemon=True)
    try:
        _wait_for_beats(path, lock.holder, strong, tell)
        _write(handle, lock.holder)
        if not strong:  # two may have seen nobody: the one that wrote last has it
            time.sleep(BEAT / 5)
            if (other := _read(path)) is not None and other.token != lock.holder.token:
                raise HeldError(_in_use(path, other))
        beating.start()
        yield lock
    finally:
        stop.set()
        if beating.ident is not None:
            beating.join()
        mine = _read(path)
        if not strong:
            os.close(handle)  # Windows removes no open file
        if mine is not None and mine.token == lock.holder.token:
            path.unlink(missing_ok=True)
        if strong:
            os.close(handle)  # only now: who waits for it must not get a file that goes


def _locked(path: Path) -> tuple[int, bool]:
    """The open lock file, and whether the operating system holds it for this process alone. Raises HeldError."""
    while True:
        with told_plainly(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            strong = _system_lock(handle, path)
            if not strong or _is_same(handle, path):
                return handle, strong
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its last holder has removed it: this is a file that nobody will find


def _system_lock(handle: int, path: Path) -> bool:
    """Ask the operating system; False where it has no locks for this file system. Raises HeldError."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise HeldError(_in_use(path, _read(path))) from None
    except OSError:  # ENOLCK, EOPNOTSUPP, ENOSYS: this file system has none
        return False
    return True


def _is_same(handle: int, path: Path) -> bool:
    """True while the path still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _wait_for_beats(path: Path, me: Holder, strong: bool, tell: Tell) -> None:
    """Return once the holder that the file names is surely gone. Raises HeldError where it is alive."""
    other = _read(path)
    if other is None:
        return
    if strong and other.boot == me.boot and other.host == me.host:
        return  # this kernel knows that nobody holds it: the process has ended
    tell(f"{shown(path.parent)} was last held by {other}; waiting for a sign of life of it")
    end = time.monotonic() + BEAT * BEATS
    while time.monotonic() < end:
        time.sleep(BEAT / 10)
        now = _read(path)
        if now is None:
            return
        if (now.token, now.beat) != (other.token, other.beat):
            raise HeldError(_in_use(path, now))
    tell(f"{shown(path.parent)}: no sign of life in {BEAT * BEATS:.0f} s; it is taken over")


def _beat(lock: FolderLock, handle: int, stop: threading.Event) -> None:
    """Write a new number every few seconds, as long as the file is this process's own."""
    number = 0
    while not stop.wait(BEAT):
        there = _read(lock.path)
        if there is not None and there.token != lock.holder.token:
            lock.lost.set()
            return
        number += 1
        try:
            _write(handle, evolve(lock.holder, beat=number))
        except (CloraError, OSError):
            continue  # a full disk or a network that is away: the next beat may come through


def _write(handle: int, holder: Holder) -> None:
    """Replace the open file's content: a rename would leave the lock on a file that nobody finds."""
    tree = {key: getattr(holder, key) for key in ("token", "host", "boot", "pid", "since", "command", "beat")}
    raw = sealed(NAME, tree).encode()
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, raw)
    os.ftruncate(handle, len(raw))
    os.fsync(handle)


def _read(path: Path) -> Holder | None:
    """Who the file names; None where it names nobody or is just being written."""
    for _ in range(3):
        try:
            return Holder.of(Fields(unsealed(NAME, read_text(path, _MOST), shown(path)), shown(path)))
        except CloraError:
            if not path.is_file() or path.stat().st_size == 0:
                return None
            time.sleep(0.02)  # torn: the holder writes at this moment
    return None


def _in_use(path: Path, other: Holder | None) -> str:
    by = other or "another process"
    return f"{shown(path.parent)} is in use by {by}; wait until it ends, or choose another --run-dir"


def _boot() -> str:
    """The kernel's own number of this start of the machine; empty where it has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
