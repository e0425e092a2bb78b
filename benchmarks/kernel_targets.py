"""Whether what was measured reaches what was aimed at, and by how much it falls short: the kernels by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import frozen

Row = Mapping[str, str]
#: shape, rows, rank, adapters
Key = tuple[str, str, str, str]

#: forward and backward over the frozen linear, on an H200 at rank 128 and the rows of a training step
FLOOR = {"attention": 1.18, "up": 1.12, "down": 1.13}
DESIGN_ROWS = ("4096", "8192")
#: how much quicker than PEFT's layer, with adapters of the base's type and in float32
QUICKER = {"PEFT": 1.15, "PEFT, fp32 adapters": 1.3}
QUICKER_CPU = 1.2
EMOJI = ("emoji attention", "emoji up", "emoji down")
SLACK = 1.02  # three adapters over one, and ours over the best other way
OURS, LIMIT, ONE = "ours", "FLOP limit", "one adapter"
BEST = "the best other way"


@frozen
class Target:
    """A number that should not be above a limit; `least` is what arithmetic alone makes of it, where that is known."""

    case: str
    over: str
    value: float
    limit: float
    least: float = 0.0
    which: str = ""  # of several, the one that was compared with

    @property
    def met(self) -> bool:
        """Whether the number is as small as it should be; one that is no number is not."""
        return self.value <= self.limit

    def __str__(self) -> str:
        verdict = "met" if self.met else f"missed by {self.value / self.limit - 1:.1%}"
        if self.least > self.limit:
            verdict += f" (out of reach: the arithmetic alone takes {self.least:.3f})"
        over = f"{self.over}, {self.which}" if self.which else self.over
        return f"{self.case}: over {over}: {self.value:.3f}, wanted at most {self.limit:.3f}: {verdict}"


def targets(rows: Iterable[Row]) -> Iterator[Target]:
    """Every target that these rows can be compared with, forward and backward together."""
    cases: dict[Key, dict[str, float]] = {}
    for row in rows:
        if row["part"] == "both":
            times = cases.setdefault((row["shape"], row["rows"], row["rank"], row["adapters"]), {})
            times[row["provider"]] = float(row["median_ms"])
            times.setdefault(LIMIT, float(row["flop_limit"]) * times["frozen"])  # the frozen linear's row comes first
    for key, times in cases.items():
        alone = cases.get((*key[:3], "1"), {})
        for over, limit in aims(key):
            which, other = _compared(over, times, alone)
            if other is not None:
                least = times[LIMIT] / other if over == "PEFT" else 0.0
                yield Target(_case(key), over, times[OURS] / other, limit, least, which)


def aims(key: Key) -> Iterator[tuple[str, float]]:
    """(what our time is compared with, the most that it may be of that) for one case."""
    shape, count, rank, adapters = key
    if shape in EMOJI:
        yield "PEFT", 1 / QUICKER_CPU
    if shape not in FLOOR:
        return
    if rank == "128" and count in DESIGN_ROWS:
        if adapters == "1":
            yield "frozen", FLOOR[shape]
        for other, wanted in QUICKER.items():
            yield other, 1 / wanted
    yield BEST, SLACK
    if adapters == "3":
        yield ONE, SLACK


def _compared(over: str, times: Mapping[str, float], alone: Mapping[str, float]) -> tuple[str, float | None]:
    """(its name where there are several, the time compared with), None where that was not measured."""
    if over == ONE:
        return "", alone.get(OURS)
    if over != BEST:
        return "", times.get(over)
    others = {name: value for name, value in times.items() if name not in ("frozen", LIMIT, OURS, "PEFT with ours")}
    best = min(others, key=lambda name: others[name], default="")
    return best, others.get(best)


def unmeasured(found: Iterable[Target], keys: Iterable[Key]) -> list[str]:
    """What measuring these cases should have compared and did not, such as a provider that could not run."""
    there = {(target.case, target.over) for target in found}
    wanted = [(_case(key), over) for key in keys for over, _ in aims(key)]
    return [f"{case}: over {over}: not measured" for case, over in wanted if (case, over) not in there]


def _case(key: Key) -> str:
    shape, rows, rank, adapters = key
    return f"{shape}, {rows} rows, rank {rank}, {adapters} adapter{'s' * (adapters != '1')}"


def report(found: Sequence[Target], lacking: Sequence[str] = ()) -> int:
    """Print every target, missed ones and what was not measured last; 1 where there is any, or nothing to compare."""
    missed = [target for target in found if not target.met]
    for line in (*(target for target in found if target.met), *missed, *lacking):
        print(line)
    if not found:
        print("no target belongs to what was measured")
        return 1
    told = f", {len(lacking)} not measured" if lacking else ""
    print(f"{len(found) - len(missed)} of {len(found)} targets met{told}")
    return int(bool(missed or lacking))
