"""The thread that brings teachers from their files to the device while training goes on.

A file is read through a memory map into one flat buffer and copied to the device in one piece: on a GPU through pinned
memory, on a stream of its own, so that neither the processor nor the GPU's other work waits for it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import torch
from attrs import define, field, frozen

from clora.adapters.adapter import Adapter, Factors
from clora.errors import CloraError, reason, shown
from clora.lora_io.scales import StrengthFrom


@frozen
class Source:
    """Where a teacher lies, and its strength: `scale` times the file's own, by whose word `strength` says."""

    path: Path
    scale: float = 1.0
    strength: StrengthFrom = None


#: a file -> its factors, on the CPU; they may be views of the file itself
Read: TypeAlias = Callable[[Source], Factors]


class BufferPool:
    """Storage for one adapter at a time; it grows to the largest that it has held."""

    def __init__(self, device: torch.device, least: int = 0, *, pinned: bool = False) -> None:
        self.device = device
        self.least = least
        self.pinned = pinned
        self.held: torch.Tensor | None = None  # bytes

    def take(self, size: int, dtype: torch.dtype) -> torch.Tensor:
        """`size` numbers of a type, over whatever lay here before."""
        wanted = size * dtype.itemsize
        if self.held is None or self.held.numel() < wanted:
            self.held = None  # the old storage goes before the new comes
            whole = max(wanted, self.least)
            self.held = torch.empty(whole, dtype=torch.uint8, device=self.device, pin_memory=self.pinned)
        return self.held[:wanted].view(dtype)


@define(eq=False)
class Job:
    """One teacher to be loaded into a room."""

    name: str
    source: Source
    room: BufferPool
    after: torch.cuda.Event | None = None  # what still reads the room's old content
    done: threading.Event = field(factory=threading.Event)
    adapter: Adapter | None = None
    ready: torch.cuda.Event | None = None  # when the copy to the device has ended
    error: CloraError | None = None


class Device(Protocol):
    """How factors on the CPU come into a room, and how computation waits for them."""

    def put(self, factors: Factors, job: Job) -> None:
        """Fill the job's room and set its adapter; called by the loading thread."""
        ...

    def mark(self) -> torch.cuda.Event | None:
        """A mark behind all computation asked for so far; called by the training thread."""
        ...


class Processor:
    """The CPU itself: the file's numbers are copied once, into the room."""

    def put(self, factors: Factors, job: Job) -> None:
        """Fill the room."""
        job.adapter = Adapter.of(factors, job.room.take)

    def mark(self) -> None:
        """Nothing computes behind the training thread's back."""
        return None


class Gpu:
    """A CUDA device: the numbers are gathered in pinned memory and copied in one piece on a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.staging = BufferPool(torch.device("cpu"), pinned=True)
        self.copying: torch.cuda.Event | None = None

    def put(self, factors: Factors, job: Job) -> None:
        """Fill the room; returns when the copy is under way, and `job.ready` tells when it has ended."""
        if self.copying is not None:
            self.copying.synchronize()  # the staging memory is still being read
        staged = Adapter.of(factors, self.staging.take)
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            if job.after is not None:
                self.stream.wait_event(job.after)
            flat = job.room.take(staged.flat.numel(), staged.flat.dtype)
            flat.copy_(staged.flat, non_blocking=True)
            self.copying = job.ready = torch.cuda.Event()
            job.ready.record(self.stream)
        job.adapter = Adapter(staged.slots, flat)

    def mark(self) -> torch.cuda.Event:
        """An event behind the computation of the current stream."""
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        return event


class Loader:
    """Carries jobs out one after the other, in a thread that lives only while there are any."""

    def __init__(self, read: Read, device: Device) -> None:
        self.read = read
        self.device = device
        self._queue: deque[Job] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._running = False

    def put(self, job: Job) -> None:
        """Ask for a teacher behind those asked for before."""
        with self._lock:
            self._queue.append(job)
            if not self._running:
                self._running = True
                self._thread = threading.Thread(target=self._run, name="clora-teachers")
                self._thread.start()

    def hurry(self, jobs: Sequence[Job]) -> None:
        """Move those of the jobs that wait to the front, in this order."""
        with self._lock:
            waiting = [job for job in jobs if job in self._queue]
            self._queue = deque([*waiting, *(job for job in self._queue if job not in waiting)])

    def cancel(self, job: Job) -> bool:
        """Withdraw a job; False where it is under way or done."""
        with self._lock:
            if job not in self._queue:
                return False
            self._queue.remove(job)
            return True

    def rest(self) -> None:
        """Return once all jobs are done and the thread has ended."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while True:
            with self._lock:
                # an interpreter that ends waits for this thread: nobody will use what still waits
                if not self._queue or not threading.main_thread().is_alive():
                    self._running = False
                    return
                job = self._queue.popleft()
            try:
                self.device.put(self.read(job.source), job)
            except CloraError as error:
                job.error = error
            except Exception as error:
                job.error = CloraError(
                    f"{shown(job.source.path)}: the teacher {job.name} cannot be loaded: {reason(error)}"
                )
                job.error.__cause__ = error
            finally:
                job.done.set()
