"""A fixed number of teachers on the device: those in use, and those that the next cycle will ask for.

A bank of 180 teachers of 2.2 GB each does not fit on any device. Which teachers a step needs is drawn in advance, so
they are loaded while the step before runs, into the slots of those that have not been used for longest.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from clora.adapters.adapted import AdaptedNetwork
from clora.adapters.teacher_prefetch import BufferPool, Gpu, Job, Loader, Processor, Read, Source
from clora.errors import CloraError, hint


class TeacherSlots:
    """The supply of teachers to an adapted network; all calls are the training thread's.

    `count` None makes a slot for every teacher. `stalled` adds up the seconds that callers waited.
    """

    def __init__(
        self,
        adapted: AdaptedNetwork,
        sources: Mapping[str, Source],
        read: Read,
        device: torch.device,
        count: int | None = None,
    ) -> None:
        self.adapted = adapted
        self.sources = dict(sources)
        self.count = len(self.sources) if count is None else min(count, len(self.sources))
        self.device = Gpu(device) if device.type == "cuda" else Processor()
        self.loader = Loader(read, self.device)
        # one size for all where slots are shared; a file is about as large as its factors
        least = 0 if count is None else max(map(_bytes, self.sources.values()), default=0)
        self._free = [BufferPool(device, least) for _ in range(self.count)]
        self._jobs: OrderedDict[str, Job] = OrderedDict()  # by last use, the longest ago first
        self._held: Counter[str] = Counter()
        self._wanted: frozenset[str] = frozenset()
        self._gpu_waits: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self.needed = 0  # how often somebody asked
        self.stalled = 0.0
        adapted.supply = self

    def need(self, names: Sequence[str]) -> None:
        """Return once these teachers are on the network under their names.

        Raises CloraError for a teacher that the bank lacks or whose file cannot be used, and for more than fit.
        """
        for name in names:
            if name not in self.sources:
                raise CloraError(f"the bank has no teacher {name!r}{hint(name, self.sources)}")
        together = {*names, *self._held}
        if len(together) > self.count:
            raise CloraError(
                f"{len(together)} teachers are needed at once ({', '.join(sorted(together))}), "
                f"but teacher.slots is {self.count}; give more slots"
            )
        self.needed += bool(names)
        started = time.perf_counter()
        for name in names:
            if name not in self._jobs:
                self._load(name, keep=together, patient=True)
        self.loader.hurry([self._jobs[name] for name in names])
        new = [name for name in dict.fromkeys(names) if name not in self.adapted.adapters]
        for name in new:
            self._install(name)
        if new:
            self.stalled += time.perf_counter() - started
        for name in names:
            self._jobs.move_to_end(name)

    def ahead(self, names: Sequence[str]) -> None:
        """Begin to load teachers that will be needed, the most urgent first; returns at once.

        What has no slot yet is left out: nothing held or wanted makes room. Later calls replace what was wanted.
        """
        self._wanted = frozenset(names) & frozenset(self.sources)
        for name in dict.fromkeys(name for name in names if name in self.sources):
            if name not in self._jobs and not self._load(name, keep=self._wanted, patient=False):
                return

    @contextmanager
    def held(self, names: Sequence[str]) -> Iterator[None]:
        """Within it the teachers among `names` are on the network and stay there."""
        mine = [name for name in names if name in self.sources]
        self.need(mine)
        self._held.update(mine)
        try:
            yield
        finally:
            self._held.subtract(mine)
            self._held = +self._held

    def take_stall(self) -> float:
        """Seconds waited since the last call, by the caller's thread and by the GPU's computation."""
        for before, after in self._gpu_waits:
            after.synchronize()
            self.stalled += before.elapsed_time(after) / 1000
        self._gpu_waits.clear()
        seconds, self.stalled = self.stalled, 0.0
        return seconds

    @contextmanager
    def session(self) -> Iterator[None]:
        """Within it teachers may be loaded ahead; at its end, however it comes, nothing waits and no thread is left."""
        try:
            yield
        finally:
            self.rest()

    def rest(self) -> None:
        """Withdraw what waits to be loaded and leave no thread behind; the teachers on the network stay."""
        self._wanted = frozenset()
        for name, job in list(self._jobs.items()):
            if self.loader.cancel(job):
                self._drop(name)
        self.loader.rest()

    def _load(self, name: str, keep: frozenset[str] | set[str], *, patient: bool) -> bool:
        """Give a teacher a slot and ask for it; False where none may be taken."""
        if not self._free and not self._evict(keep, patient=patient):
            return False
        job = Job(name, self.sources[name], self._free.pop(), self.device.mark())
        self._jobs[name] = job
        self.loader.put(job)
        return True

    def _evict(self, keep: frozenset[str] | set[str], *, patient: bool) -> bool:
        """Free the slot unused for longest, of a teacher that nobody wants if there is one."""
        loose = [name for name in self._jobs if name not in keep and name not in self._held]
        for name in sorted(loose, key=lambda name: name in self._wanted):  # stable: by last use
            job = self._jobs[name]
            if not (self.loader.cancel(job) or job.done.is_set()):
                if not patient:
                    continue
                job.done.wait()  # it is being loaded into the slot
            self._drop(name)
            return True
        return False

    def _drop(self, name: str) -> None:
        """Take a teacher off the network; its room is free."""
        self.adapted.remove(name)
        self._free.append(self._jobs.pop(name).room)

    def _install(self, name: str) -> None:
        """Wait for a teacher and put it on the network: modules that it does not cover have nothing of any other."""
        job = self._jobs[name]
        job.done.wait()
        if job.adapter is None:
            self._drop(name)
            assert job.error is not None
            raise job.error
        if job.ready is not None and not job.ready.query():
            stream = torch.cuda.current_stream(job.room.device)
            before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            before.record(stream)
            stream.wait_event(job.ready)
            after.record(stream)
            self._gpu_waits.append((before, after))
        self.adapted.add(name, job.adapter)


def _bytes(source: Source) -> int:
    """The size of a teacher's file; 0 where it is gone, which whoever needs it is told."""
    try:
        return source.path.stat().st_size
    except OSError:
        return 0
