"""The report of `clora inspect` as text."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from math import hypot, isfinite
from typing import TYPE_CHECKING

from attrs import frozen

from clora.errors import CloraError, shown
from clora.files.untrusted_json import parse_json
from clora.lora_io.blocks import LINEARS, by_block, compact

if TYPE_CHECKING:
    from clora.lora_io.survey import Survey, Surveyed

Shapes = Mapping[str, tuple[int, int]]


@frozen
class Fits:
    """The backbone that files are held against: its name and linears {module: (in, out)}; None where there is none."""

    name: str
    shapes: Shapes | None


LABEL = 11
LARGEST = 3
PROBLEMS = 10
WHERE = 4
SOURCES = {
    "tensor": "tensors beside the factors",
    "header": "the header's lora_adapter_metadata",
    "config": "adapter_config.json beside it",
}
#: metadata that a person may want to read, and what to call it
WORTH = {
    "modelspec.title": "title",
    "modelspec.author": "author",
    "modelspec.architecture": "for",
    "base_model": "base model",
    "ss_base_model_version": "base model",
    "ss_sd_model_name": "base model",
    "modelspec.trigger_phrase": "trigger",
    "trigger_phrase": "trigger",
    "trigger_word": "trigger",
    "modelspec.usage_hint": "usage",
    "modelspec.license": "license",
    "ss_network_module": "network",
    "software": "software",
}


def as_text(found: Survey, fits: Fits, *, every: bool = False) -> str:
    """One file's report; `every` adds a line for each linear and leaves no problem out."""
    title = [shown(found.path)]
    if found.layout:
        types = ", ".join(found.types)
        title += [f"{found.layout} layout, {types}, {size(found.bytes)}"]
    lines = ["  ".join(title), *_problems(found, every)]
    if found.linears:
        lines += [
            *_strength(found),
            *_rows("doubt", _told(found, found.doubts)),
            *_coverage(found, fits),
            *_change(found),
            *_metadata(found.metadata),
        ]
        lines += [*_pitfalls(found), *(_table(found) if every else [])]
    return "\n".join(lines)


def clean(text: str, most: int = 400) -> str:
    """A file's own words in one line, without what would move the cursor."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= most else f"{text[:most]}..."


def size(count: int) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.3g} GB"


def _rows(label: str, lines: list[str]) -> list[str]:
    """Lines under one label, wrapped to the terminal's width."""
    width = max(60, min(120, shutil.get_terminal_size().columns))
    indent = " " * (LABEL + 2)
    rows = [
        row
        for line in lines
        for row in textwrap.wrap(
            clean(line, 2000),
            width - len(indent),
            break_long_words=False,
            break_on_hyphens=False,
            subsequent_indent="  ",
        )
    ]
    return [f"  {label if i == 0 else '':<{LABEL}}{row}" for i, row in enumerate(rows)]


def _problems(found: Survey, every: bool) -> list[str]:
    """What makes it unusable, without the file's name, which stands above."""
    told = _told(found, found.problems)
    some = told if every else told[:PROBLEMS]
    more = [f"and {len(told) - len(some)} more; --modules tells them all"] if len(some) < len(told) else []
    return _rows("UNUSABLE", [*some, *more])


def _told(found: Survey, sentences: Sequence[str]) -> list[str]:
    """Sentences without the file's name, which stands above."""
    return [sentence.removeprefix(f"{shown(found.path)}: ") for sentence in sentences]


def _strength(found: Survey) -> list[str]:
    """Ranks and alphas, alike ones together, the most frequent first."""
    groups: dict[str, list[str]] = {}
    for module, linear in found.linears.items():
        groups.setdefault(strength(linear), []).append(module)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    lines: list[str] = []
    for text, modules in ordered:
        lines.append(f"{text}: {len(modules)} linear{'s' * (len(modules) != 1)}")
        if len(ordered) > 1:
            where = [f"  {line}" for line in compact(modules)]
            lines += where if len(where) <= WHERE else [*where[:WHERE], f"  and {len(where) - WHERE} more"]
    sources = {x.strength.source for x in found.linears.values() if x.strength is not None} - {"none"}
    told = [f"alpha from {SOURCES[source]}" for source in SOURCES if source in sources]
    return _rows("strength", [*lines, *told])


def strength(linear: Surveyed) -> str:
    """Such as "rank 16, alpha 8 (scale 0.5)"."""
    entry, found = linear.entry, linear.strength
    kind = "" if linear.kind == "LoRA" else f"{linear.kind} "
    rank = f"{kind}rank {entry.rank}" if entry.rank else f"{kind}of two whole factors"
    if found is None:
        return rank
    none = "no alpha" if entry.alpha is None else "its alpha not used"
    alpha = none if found.alpha is None else f"alpha {found.alpha:g}"
    return f"{rank}, {alpha} (scale {found.scale:.4g})"


def _coverage(found: Survey, fits: Fits) -> list[str]:
    """How much of the backbone is changed, or which linears of which blocks are seen."""
    where = compact(found.linears, fits.shapes)
    if found.missing is None:
        stems, _ = by_block(found.linears)
        for stem, tails in stems.items():
            absent = [linear for linear in LINEARS if linear not in tails]
            if len(tails.keys() & set(LINEARS)) > 1 and absent:
                where.append(f"{stem}: {len(tails)} kinds of linear; not {', '.join(absent)}")
        return _rows("coverage", where)
    total = len(found.linears) + len(found.missing)
    head = f"{len(found.linears)} of {total} linears of {fits.name}"
    if not found.missing:
        return _rows("coverage", [head])
    return _rows("coverage", [f"{head}; the rest stay the base's", *(f"  {line}" for line in where)])


def _change(found: Survey) -> list[str]:
    """|delta|, whole and of the largest linears."""
    known = {module: linear.norm for module, linear in found.linears.items() if linear.norm is not None}
    if not known:
        dora = any(linear.entry.magnitude for linear in found.linears.values())
        return _rows("change", ["DoRA: only the base's weights tell how large it is"]) if dora else []
    largest = sorted(known.items(), key=lambda item: -item[1])[:LARGEST]
    whole = hypot(*known.values())
    note = "" if found.norm is not None else f" (of {len(known)} of its {len(found.linears)} linears)"
    if not whole:
        return _rows("change", ["none: every delta is zero"])
    top = [f"{_number(norm, 3):<9} {module}" for module, norm in largest]
    return [
        *_rows("change", [f"{_number(whole, 4):<9} |delta| of the whole file{note}; its largest:"]),
        *_rows("", top),
        *_rows("as LoRA", found.notes()),
    ]


def _number(norm: float, digits: int) -> str:
    """A norm, or "overflow" where float64 has no number that large."""
    return f"{norm:.{digits}g}" if isfinite(norm) else "overflow"


def _metadata(metadata: Mapping[str, str]) -> list[str]:
    told: dict[str, str] = {}
    for key, name in WORTH.items():
        if metadata.get(key) and name not in told:
            told[name] = metadata[key]
    lines = [f"{name}: {clean(text)}" for name, text in told.items()]
    return _rows("metadata", [*lines, *_effects(metadata.get("clora"))])


def _effects(text: str | None) -> Iterator[str]:
    """The effects of a LoRA that clora wrote, with the prompt that each answers to."""
    try:
        how = parse_json(text or "{}", "clora")
        effects = {str(name): str(effect["prompt"]) for name, effect in how.get("effects", {}).items()}
    except (CloraError, TypeError, KeyError, AttributeError):
        return
    if effects:
        yield f"{len(effects)} effect{'s' * (len(effects) != 1)}, {how.get('steps')} steps: " + "; ".join(
            f"{n}: {p}" for n, p in effects.items()
        )


def _pitfalls(found: Survey) -> list[str]:
    """The programs that would get it wrong; a line that says so where none is known to."""
    dropped = _dropped(found)
    lines = [f"{p.program}: {p.what.format(dropped=dropped)} [{p.source}]" for p in found.pitfalls()]
    return _rows("beware", lines) if lines else _rows("loaders", ["none known to get its strength wrong"])


def _dropped(found: Survey) -> str:
    """The strength of a program that takes alpha for the rank, in multiples of the right one."""
    scales = {linear.strength.scale for linear in found.linears.values() if linear.strength is not None}
    times = sorted({1 / scale for scale in scales if scale})
    if not times:
        return "another strength"
    return f"{times[0]:.3g}x strength" if len(times) == 1 else f"{times[0]:.3g}x to {times[-1]:.3g}x strength"


def _table(found: Survey) -> list[str]:
    """A line for every linear."""
    width = max(len(clean(module)) for module in found.linears)
    rows = [f"  {'linear':<{width}}  {'in -> out':>14}  {'|delta|':>9}  strength"]
    for module, linear in found.linears.items():
        out, inputs = linear.entry.shape
        norm = "" if linear.norm is None else _number(linear.norm, 4)
        rows.append(f"  {clean(module):<{width}}  {f'{inputs} -> {out}':>14}  {norm:>9}  {strength(linear)}")
    return ["", *rows]
