"""How numbers are written in a report, and which of them are references for others."""

from __future__ import annotations

import math
from collections.abc import Mapping


def label(name: str) -> str:
    """A value's name for people: bad_case_rate -> bad case rate."""
    return name.replace("_", " ")


def plain(value: float) -> str:
    """A number with three significant digits and no exponent where it can be helped."""
    if not math.isfinite(value):
        return "–"
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:.{digits}f}"
    return f"{value:.2e}"


def shown(name: str, value: float | None) -> str:
    """A value as its name asks: shares (..._rate) as per cent, all else as plain numbers, a missing one as a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value * 100:.1f} %" if name.endswith("_rate") else plain(value)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 48 s, 5 min 12 s, 2 h 05 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: int) -> str:
    """Bytes in the unit that suits them: 1.42 GiB."""
    value, units = float(count), ("B", "KiB", "MiB", "GiB", "TiB")
    power = min(len(units) - 1, max(0, int(math.log(max(count, 1), 1024))))
    return f"{plain(value / 1024**power)} {units[power]}"


def split_references(values: Mapping[str, float]) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """The run's own values, and reference rows by name: `teacher_X` and `X_base` stand beside `X`."""
    own: dict[str, float] = {}
    references: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        if name.removeprefix("teacher_") != name and name.removeprefix("teacher_") in values:
            references.setdefault("teacher", {})[name.removeprefix("teacher_")] = value
        elif name.removesuffix("_base") != name and name.removesuffix("_base") in values:
            references.setdefault("base", {})[name.removesuffix("_base")] = value
        else:
            own[name] = value
    return own, references
