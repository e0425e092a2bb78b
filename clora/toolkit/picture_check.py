"""`clora validate --data`: every picture that a recipe names is decoded once, and told by its list's line if it fails.

Threads decode, since Pillow gives the interpreter free meanwhile; how many pixels are in memory at once is bounded.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from threading import Condition

from attrs import define, field, frozen

from clora.contracts.data import PictureRow
from clora.errors import reason
from clora.files.pictures import MAX_PIXELS, PictureError, picture_digest, picture_size
from clora.toolkit.picture_doubts import doubts

#: damaged pictures that are told, then how many more there are
SHOWN = 50
#: threads, however many cores there are
MOST_THREADS = 32
#: pixels that are decoded at once: each takes about sixteen bytes until its picture is done
PIXELS_AT_ONCE = 2 * MAX_PIXELS

Tell = Callable[[str, int, int], None]


@frozen
class DataChecked:
    """How many pictures were decoded, the mistakes in them, and what is doubtful about them, each with its place."""

    count: int
    problems: tuple[str, ...]
    doubts: tuple[str, ...]


def check_pictures(rows: Sequence[PictureRow], tell: Tell, threads: int | None = None) -> DataChecked:
    """Decode every picture of the rows, each file once; `tell(label, done, total)` hears how far it is."""
    paths = list(dict.fromkeys(path for row in rows for path in (row.source, row.target) if path is not None))
    found: dict[Path, bytes | str] = {}
    for path, result in _decoded(paths, threads or _cores()):
        found[path] = result
        tell("check pictures", len(found), len(paths))
    damaged = [
        f"{row.place}: {key} {wrong}"
        for row in rows
        for key, path in (("source", row.source), ("target", row.target))
        if path is not None and isinstance(wrong := found[path], str)
    ]
    damaged = list(dict.fromkeys(damaged))
    more = [f"... and {len(damaged) - SHOWN:,} more"] if len(damaged) > SHOWN else []
    same = {path: result for path, result in found.items() if isinstance(result, bytes)}
    return DataChecked(len(paths), (*damaged[:SHOWN], *more), tuple(doubts(rows, same)))


def _decoded(paths: Iterable[Path], threads: int) -> Iterator[tuple[Path, bytes | str]]:
    """(path, digest of its pixels, or what is wrong with it), in the order in which they are done.

    A few more pictures than threads are on their way; Ctrl-C leaves the others alone.
    """
    waiting = iter(paths)
    room = _Room(PIXELS_AT_ONCE)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="pictures")
    running: Mapping[Future[bytes | str], Path] = {}
    try:
        with warnings.catch_warnings():  # once for all threads: they share the filters
            warnings.simplefilter("ignore")
            while True:
                more = islice(waiting, 2 * threads - len(running))
                running = {**running, **{pool.submit(_digest, path, room): path for path in more}}
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running[future], future.result()
                running = {future: path for future, path in running.items() if future not in done}
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _digest(path: Path, room: _Room) -> bytes | str:
    try:
        height, width = picture_size(path)
        with room.taken(height * width):
            return picture_digest(path)
    except PictureError as error:
        return str(error)
    except MemoryError:
        return f"{reason(path.name)} does not fit into the memory"


@define
class _Taken:
    room: _Room
    pixels: int

    def __enter__(self) -> None:
        with self.room.changed:
            self.room.changed.wait_for(lambda: self.room.free >= self.pixels)
            self.room.free -= self.pixels

    def __exit__(self, *_: object) -> None:
        with self.room.changed:
            self.room.free += self.pixels
            self.room.changed.notify_all()


@define
class _Room:
    """So many pixels at once; one picture alone never has more than there are."""

    free: int
    changed: Condition = field(factory=Condition)

    def taken(self, pixels: int) -> _Taken:
        """For the time of a `with`, once so many are free."""
        return _Taken(self, pixels)


def _cores() -> int:
    """The cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_THREADS)
