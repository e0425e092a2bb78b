"""Files whose strength two programs take for two numbers without a word: told with both, for a person to settle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isclose
from pathlib import Path

from clora.errors import shown
from clora.lora_io.configs import ALPHA_KEY, CONFIG, DIM_KEY, KohyaNumbers, kohya_numbers
from clora.lora_io.contents import Contents
from clora.lora_io.header import Header
from clora.lora_io.kinds import Entry
from clora.lora_io.scales import Strength, of_header

SETTLE = "the bank's key `strength` settles it: file, header, or a number"
#: an alpha this far above any rank is ai-toolkit's way of saying that it counts for nothing
NO_ALPHA = 1e6
#: how many strengths a sentence lists
LISTED = 4


def strength_doubts(
    path: Path, header: Header, contents: Contents, alphas: Mapping[str, float], found: Mapping[str, Strength]
) -> list[str]:
    """Sentences on what is doubtful about the strengths `found` in a file, naming it; most files have none."""
    kohya = kohya_numbers(header)
    told = [
        *_whole_or_per_block(contents.entries, alphas, kohya, found),
        *_one_alpha_many_ranks(contents.entries, alphas, kohya, found),
        *_missing_alpha(contents.entries, alphas, kohya, found),
        *_missing_config(contents.entries, found),
    ]
    return [f"{shown(path)}: {sentence}; {SETTLE}" for sentence in told]


def _whole_or_per_block(
    entries: Mapping[str, Entry], alphas: Mapping[str, float], kohya: KohyaNumbers, found: Mapping[str, Strength]
) -> Iterable[str]:
    """LoKr whose alpha / ss_network_dim is not the strength that its factors' own ranks give."""
    if kohya.dim is None:
        return
    two: list[tuple[float, float]] = []
    whole = 0
    for module, entry in entries.items():
        other = of_header(entry, alphas, kohya) if entry.kind == "lokr" else None
        if other is None or abs(other * kohya.dim) >= NO_ALPHA or isclose(other, found[module].scale, rel_tol=1e-4):
            continue
        two.append((found[module].scale, other))
        whole += not entry.rank
    if two:
        kind = "LoKr of two whole factors" if whole == len(two) else "LoKr"
        yield (
            f"{_linears(len(two), kind)} strength {_list(s for s, _ in two)} by their own ranks, as ComfyUI and "
            f"PEFT take it, and {_list(h for _, h in two)} by alpha / {DIM_KEY} ({kohya.dim:g}) of the header, as "
            "LyCORIS may have trained it (ComfyUI#15114)"
        )


def _one_alpha_many_ranks(
    entries: Mapping[str, Entry], alphas: Mapping[str, float], kohya: KohyaNumbers, found: Mapping[str, Strength]
) -> Iterable[str]:
    """LoKr of several ranks with one alpha, in a file whose header does not tell the rank it was trained with."""
    lokr = {m: e for m, e in entries.items() if e.kind == "lokr" and e.rank and e.alpha is not None}
    scales = {found[module].scale for module in lokr}
    if kohya.dim is None and len(scales) > 1 and len({alphas[e.alpha] for e in lokr.values() if e.alpha}) == 1:
        ranks = _list(entry.rank for entry in lokr.values())
        yield (
            f"{_linears(len(lokr), f'LoKr of ranks {ranks}')} one alpha: strengths {_list(scales)} as ComfyUI and "
            f"PEFT take it, one strength for all as LyCORIS trains (alpha / its rank, which no {DIM_KEY} tells here)"
        )


def _missing_alpha(
    entries: Mapping[str, Entry], alphas: Mapping[str, float], kohya: KohyaNumbers, found: Mapping[str, Strength]
) -> Iterable[str]:
    """Factors without an alpha beside them, in a file whose header has one."""
    if kohya.alpha is None:
        return
    others = [
        other
        for module, entry in entries.items()
        if entry.kind != "lokr" and found[module].source == "none" and entry.alpha is None
        if (other := of_header(entry, alphas, kohya)) is not None and not isclose(other, 1.0, rel_tol=1e-4)
    ]
    if others:
        yield (
            f"{_linears(len(others))} no alpha: strength 1 is taken, as ComfyUI, diffusers and kohya's loader do, "
            f"but {ALPHA_KEY} ({kohya.alpha:g}) of the header would make it {_list(others)}, which some conversions "
            "have put into the factors and others have lost"
        )


def _missing_config(entries: Mapping[str, Entry], found: Mapping[str, Strength]) -> Iterable[str]:
    """PEFT's names without PEFT's configuration."""
    lost = [m for m, entry in entries.items() if entry.peft and entry.kind == "lora" and found[m].source == "none"]
    if lost:
        yield (
            f"{_linears(len(lost))} PEFT's names, whose alpha is in {CONFIG}, and none lies beside the file: "
            "strength 1 is taken, where PEFT takes lora_alpha / r of that file"
        )


def _linears(count: int, kind: str = "") -> str:
    """Such as "1 linear has" or "3 linears, LoKr of ranks 4 and 1, have"."""
    return f"{count} linear{'s' * (count != 1)}{f', {kind},' if kind else ''} {'has' if count == 1 else 'have'}"


def _list(numbers: Iterable[float]) -> str:
    """Different numbers, the largest first: 181, 45.2 and 22.6."""
    told = list(dict.fromkeys(f"{number:.3g}" for number in sorted(set(numbers), reverse=True)))
    if len(told) > LISTED:
        told = [*told[: LISTED - 1], f"{len(told) - LISTED + 1} more"]
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"
