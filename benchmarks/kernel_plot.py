"""The kernel benchmark as one SVG: a bar for each way, lines for the frozen linear's time and the FLOP limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

COLOURS = {
    "PEFT": "#b0b4ba",
    "PEFT, fp32 adapters": "#8d939c",
    "PEFT compiled": "#6b727d",
    "addmm_": "#d9a441",
    "eager": "#c0776a",
    "ours": "#2b6cb0",
    "PEFT with ours": "#63a0dc",
}
OTHER = ("#4c9a8a", "#7a6bb0", "#a05a8c", "#5a8f3c")  # single candidates of ours
MANY = 30  # cases; of more, only those of these ranks and rows are drawn
SHOWN = (("128", "4096"), ("128", "16384"))
WIDTH, LEFT, BAR, GAP, TOP, BOTTOM = 900, 330, 12, 16, 64, 30


def plot(rows: Sequence[Mapping[str, object]]) -> str:
    """Forward and backward over the frozen linear's, of every case or, of very many, of those at the usual rank."""
    groups: dict[str, list[Mapping[str, object]]] = {}
    many = len({(row["shape"], row["rows"], row["rank"], row["adapters"]) for row in rows}) > MANY
    for row in rows:
        if row["part"] == "both" and not (many and (str(row["rank"]), str(row["rows"])) not in SHOWN):
            what = f"{row['shape']}, {row['rows']} rows, rank {row['rank']}, {row['adapters']} adapter(s)"
            groups.setdefault(what, []).append(row)
    names = list(dict.fromkeys(str(row["provider"]) for row in rows if row["provider"] != "frozen"))
    spare = iter(OTHER * len(names))
    colours = {name: COLOURS.get(name) or next(spare) for name in names}
    most = max((_high(row, _frozen(group)) for group in groups.values() for row in group), default=1.0)
    scale = (WIDTH - LEFT - 60) / (min(most, 6) or 1)
    parts = [_text(LEFT, 20, "Forward and backward of a LoRA linear over the frozen linear below it", weight="bold")]
    at = LEFT - 315
    for name, colour in colours.items():
        parts += [f'<rect x="{at}" y="32" width="10" height="10" fill="{colour}"/>', _text(at + 14, 41, name)]
        at += 30 + 7 * len(name)
    y = TOP
    for what, group in groups.items():
        frozen = _frozen(group)
        bars = [row for row in group if row["provider"] != "frozen"]
        height = BAR * len(bars)
        parts.append(_text(LEFT - 8, y + height / 2 + 4, what, anchor="end"))
        for index, row in enumerate(bars):
            parts += _bar(row, frozen, y + index * BAR, scale, colours[str(row["provider"])])
        for value, dash in ((1.0, ""), (float(str(bars[0]["flop_limit"])), ' stroke-dasharray="3 2"')):
            x = f"{LEFT + scale * value:.1f}"
            parts.append(f'<line x1="{x}" x2="{x}" y1="{y - 3}" y2="{y + height + 3}" stroke="#222"{dash}/>')
        y += height + GAP
    parts.append(_text(LEFT, y + 10, "line: the frozen linear; dashes: the FLOP limit; whiskers: 20 % to 80 %"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + BOTTOM}" '
    style = 'font-family="system-ui, sans-serif" font-size="11" fill="#222">'
    back = f'<rect width="{WIDTH}" height="{y + BOTTOM}" fill="#fff"/>'
    return "\n".join([head + style, back, *parts, "</svg>", ""])


def _frozen(group: Sequence[Mapping[str, object]]) -> float:
    return next(float(str(row["median_ms"])) for row in group if row["provider"] == "frozen")


def _high(row: Mapping[str, object], frozen: float) -> float:
    return float(str(row["p80_ms"])) / frozen


def _bar(row: Mapping[str, object], frozen: float, y: float, scale: float, colour: str) -> list[str]:
    value = float(str(row["median_ms"])) / frozen
    low, high = (min(LEFT + scale * float(str(row[name])) / frozen, WIDTH - 50) for name in ("p20_ms", "p80_ms"))
    end = min(LEFT + scale * value, WIDTH - 50)
    middle = y + BAR / 2 - 1
    return [
        f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="{BAR - 2}" fill="{colour}"/>',
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="#222" stroke-width="0.8"/>',
        _text(max(end, high) + 4, y + BAR - 3, f"{value:.2f}", size=9),
    ]


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal", size: int = 11) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}"'
    return f"<text {place}>{escape(text)}</text>"
