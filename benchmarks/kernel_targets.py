"""Whether a measurement of kernel_lora.py reaches what was aimed at, and by how much it falls short."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

Row = Mapping[str, str]

#: forward and backward over the frozen linear, on an H200 at rank 128 and the rows of a training step
FLOOR = {"attention": 1.18, "up": 1.12, "down": 1.13}
DESIGN_ROWS = ("4096", "8192")
#: how much quicker than PEFT's layer, with adapters of the base's type and in float32
QUICKER = {"PEFT": 1.15, "PEFT, fp32 adapters": 1.3}
QUICKER_CPU = 1.2
SLACK = 1.02  # three adapters over one, and ours over the best other way
OURS, LIMIT = "ours", "FLOP limit"


@frozen
class Target:
    """A number that should not be above a limit; `least` is what arithmetic alone makes of it, where that is known."""

    what: str
    value: float
    limit: float
    least: float = 0.0

    def __str__(self) -> str:
        missed = self.value / self.limit - 1
        verdict = f"missed by {missed:.1%}" if missed > 0 else "met"
        if self.least > self.limit:
            verdict += f" (out of reach: the arithmetic alone takes {self.least:.3f})"
        return f"{self.what}: {self.value:.3f}, wanted at most {self.limit:.3f}: {verdict}"


def targets(rows: Sequence[Row]) -> Iterator[Target]:
    """Every target that these rows can be compared with, forward and backward together."""
    cases: dict[tuple[str, ...], dict[str, float]] = {}
    for row in rows:
        if row["part"] == "both":
            times = cases.setdefault(tuple(row[name] for name in ("shape", "rows", "rank", "adapters")), {})
            times[row["provider"]] = float(row["median_ms"])
            times.setdefault(LIMIT, float(row["flop_limit"]) * times["frozen"])  # the frozen linear's row comes first
    for key, times in cases.items():
        yield from _of(key, times, cases)


def _of(
    key: tuple[str, ...], times: Mapping[str, float], cases: Mapping[tuple[str, ...], Mapping[str, float]]
) -> Iterator[Target]:
    shape, count, rank, adapters = key
    what = f"{shape}, {count} rows, rank {rank}, {adapters} adapter{'s' * (adapters != '1')}"
    ours = times[OURS]
    if shape in FLOOR:
        design = rank == "128" and count in DESIGN_ROWS
        if design and adapters == "1":
            yield Target(f"{what}: over frozen", ours / times["frozen"], FLOOR[shape])
        if design:
            for other, wanted in QUICKER.items():
                if other in times:
                    yield Target(f"{what}: over {other}", ours / times[other], 1 / wanted)
        others = {name: value for name, value in times.items() if name not in ("frozen", LIMIT, OURS, "PEFT with ours")}
        best = min(others, key=lambda name: others[name])
        yield Target(f"{what}: over the best other way, {best}", ours / others[best], SLACK)
    elif shape.startswith("emoji"):
        yield Target(f"{what}: over PEFT", ours / times["PEFT"], 1 / QUICKER_CPU, times[LIMIT] / times["PEFT"])
    if adapters == "3" and (*key[:3], "1") in cases and shape in FLOOR:
        yield Target(f"{what}: over one adapter", ours / cases[(*key[:3], "1")][OURS], SLACK)


def report(rows: Sequence[Row]) -> int:
    """Print every target, missed ones last; 1 where one is missed or where nothing could be compared."""
    found = list(targets(rows))
    missed = [target for target in found if target.value > target.limit]
    for target in found:
        if target.value <= target.limit:
            print(target)
    for target in missed:
        print(target)
    print(f"{len(found) - len(missed)} of {len(found)} targets met" if found else "no target belongs to these shapes")
    return int(bool(missed) or not found)
