"""The cores that this process may use, and how many of them others keep busy: affinity, cgroup quotas, load."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from attrs import evolve, frozen

#: seconds that the load is looked at: at a hundred ticks a second a core's share is known to a twentieth
LOOK = 0.2
#: characters of a file of the kernel's that are read
MOST_TEXT = 4 << 20
#: how launchers tell a process how many of them are on this machine: torchrun, Open MPI, Intel MPI, MVAPICH
LOCAL_SIZES = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE")


@frozen
class Cores:
    """What there is: cores of the affinity, the physical ones among them, and the smallest quota, in cores.

    `busy` is what others take of the cores, `taken` what others take of the quota; `processes` share all of it.
    """

    logical: int
    physical: int
    quota: float | None = None
    busy: float = 0.0
    taken: float = 0.0
    processes: int = 1

    @property
    def allowed(self) -> float:
        """Cores' worth of time that this process may use."""
        return (self.logical if self.quota is None else min(self.logical, self.quota)) / self.processes

    @property
    def free(self) -> float:
        """What of it nobody uses."""
        left = (
            self.logical - self.busy if self.quota is None else min(self.logical - self.busy, self.quota - self.taken)
        )
        return max(0.0, left / self.processes)


@frozen
class Quota:
    """A cgroup's limit in cores, and the file that counts what its processes have used."""

    cores: float
    usage: Path


def look(environment: Mapping[str, str], root: Path = Path("/"), seconds: float = LOOK) -> Cores:
    """The cores of this process; it sleeps for `seconds` to see what others do meanwhile.

    The load average is a minute old and counts what waits for disks; the ticks that the kernel counts for each core are
    what happens now, on the cores of the affinity, whoever it is: in a container the host's other guests too.
    """
    mine = affinity()
    quotas = list(cgroup_quotas(root))
    tightest = min(quotas, key=lambda quota: quota.cores, default=None)
    processes = local_processes(environment)
    limit = None if tightest is None else tightest.cores
    cores = Cores(len(mine), physical_cores(mine, root), limit, processes=processes)
    if processes > 1:  # each would take the others, which start with it, for load
        return cores
    first = _used(root, mine, tightest)
    time.sleep(seconds)
    busy, taken = busy_between(first, _used(root, mine, tightest))
    return evolve(cores, busy=min(busy, cores.logical), taken=taken)


@frozen
class Used:
    """Seconds of processor time since some start, at `when`; None where the system does not tell."""

    when: float
    own: float
    cores: float | None
    group: float | None
    load: float


def busy_between(first: Used, last: Used) -> tuple[float, float]:
    """Cores that others kept busy on the machine, and in this process's own group."""
    elapsed = last.when - first.when
    if elapsed <= 0:
        return 0.0, 0.0
    own = last.own - first.own
    if first.cores is None or last.cores is None:
        return last.load, 0.0  # no Linux: the load average is all there is
    busy = max(0.0, (last.cores - first.cores - own) / elapsed)
    if first.group is None or last.group is None:
        return busy, 0.0
    return busy, max(0.0, (last.group - first.group - own) / elapsed)


def affinity() -> frozenset[int]:
    """The numbers of the cores that the scheduler may put this process on."""
    if hasattr(os, "sched_getaffinity"):  # Linux alone has it
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def physical_cores(mine: frozenset[int], root: Path) -> int:
    """Cores that share no arithmetic with another of them."""
    siblings = {
        _read(root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list") or str(number)
        for number in mine
    }
    return max(1, len(siblings))


def local_processes(environment: Mapping[str, str]) -> int:
    """How many processes of the same launch are on this machine."""
    told = [environment[name] for name in LOCAL_SIZES if name in environment]
    return max([int(size) for size in told if size.isascii() and size.isdigit() and len(size) < 5], default=1) or 1


def cgroup_quotas(root: Path) -> Iterator[Quota]:
    """The limits of this process's cgroup and of every one around it, in both versions of the interface."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        names = controllers.split(",")
        if not controllers:
            for folder in _around(root / "sys/fs/cgroup", group):
                limit, _, period = _read(folder / "cpu.max").partition(" ")
                yield from _quota(limit, period or "100000", folder / "cpu.stat")
        elif "cpu" in names:
            for mount in (controllers, "cpu"):
                for folder in _around(root / "sys/fs/cgroup" / mount, group):
                    limit, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
                    yield from _quota(limit, period, folder / "cpuacct.usage")


def _around(mount: Path, group: str) -> Iterator[Path]:
    """A group's folder and its parents' up to the mount: a container may see that alone, under the host's path."""
    parts = [part for part in group.split("/") if part not in ("", ".", "..")][:64]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _quota(limit: str, period: str, usage: Path) -> Iterator[Quota]:
    with suppress(ValueError):  # "max", or no such file
        allowed, each = int(limit), int(period)
        if allowed > 0 and each > 0:
            yield Quota(allowed / each, usage)


def _used(root: Path, mine: frozenset[int], quota: Quota | None) -> Used:
    own = os.times()
    return Used(
        time.monotonic(),
        own.user + own.system,
        core_seconds(_read(root / "proc/stat"), mine),
        None if quota is None else _group_seconds(quota.usage),
        os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,  # Windows has none
    )


def core_seconds(stat: str, mine: frozenset[int]) -> float | None:
    """Seconds that the cores have not been idle, from the text of /proc/stat; None where it does not tell of them.

    Time that the host gave to other machines (steal) counts: this one could not have had it.
    """
    ticks, seen = 0, 0
    for line in stat.splitlines():
        name, *counts = line.split()[:9]
        if name.startswith("cpu") and name[3:].isdigit() and len(name) < 10 and int(name[3:]) in mine:
            try:
                user, nice, system, _idle, _iowait, *interrupts = (int(count) for count in counts)
            except ValueError:
                return None
            ticks += user + nice + system + sum(interrupts)
            seen += 1
    return ticks / _ticks() if seen else None


def _ticks() -> int:
    return os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def _group_seconds(usage: Path) -> float | None:
    """What a group has used, from cpu.stat (microseconds, by name) or cpuacct.usage (nanoseconds)."""
    text = _read(usage)
    with suppress(ValueError):
        if usage.name == "cpuacct.usage":
            return int(text) / 1e9
        for line in text.splitlines():
            name, _, count = line.partition(" ")
            if name == "usage_usec":
                return int(count) / 1e6
    return None


def _read(path: Path) -> str:
    """A small file of the kernel's; empty where it is none, or not to be read."""
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.read(MOST_TEXT).strip()
    except OSError:
        return ""
