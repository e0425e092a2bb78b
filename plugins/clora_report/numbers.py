"""How numbers are written in a report, and which of them are references for others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clora.api import Measured

#: the unit of shares from 0 to 1, which are written in per cent
SHARE = "%"


def label(name: str) -> str:
    """A value's name for people: to_teacher -> to teacher."""
    return name.replace("_", " ")


def plain(value: float) -> str:
    """A number with three significant digits and no exponent where it can be helped."""
    if not math.isfinite(value):
        return "–"
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:.{digits}f}"
    return f"{value:.2e}"


def shown(value: float | None, unit: str = "") -> str:
    """A value in its unit, shares in per cent; a missing one is a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value * 100:.1f} %" if unit == SHARE else f"{plain(value)} {unit}".rstrip()


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


def split_references(measured: Measured) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """The run's own values, and the rows that they are measured against by whose they are, such as "teacher"."""
    own: dict[str, float] = {}
    references: dict[str, dict[str, float]] = {}
    for name, value in measured.values.items():
        reference = measured.quantity(name).reference
        if reference is not None and reference.of in measured.values:
            references.setdefault(reference.who, {})[reference.of] = value
        else:
            own[name] = value
    return own, references
