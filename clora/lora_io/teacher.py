"""Whether a LoRA file can serve as a teacher: it must change the base, by no more than a LoRA can have learned.

A file may be whole and yet teach nothing, or noise: all factors zero, B alone zero (a LoRA before its first step), a
strength or a factor that the base's type cannot hold, a delta that drowns the base.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import hypot, isfinite, sqrt
from pathlib import Path

from attrs import frozen

from clora.errors import shown
from clora.lora_io.base_weights import BaseWeights
from clora.lora_io.check import check_lora
from clora.lora_io.contents import Contents, understand
from clora.lora_io.doubts import strength_doubts
from clora.lora_io.header import LoraFileError, brief, inspect_header, named
from clora.lora_io.norms import entry_bound, entry_norm, peak
from clora.lora_io.reader import finite_tensors, read_alphas
from clora.lora_io.scales import StrengthFrom, strengths

#: |delta| in multiples of the base's own weights. Trained effects have 0.01 to 0.3. Beyond 1 a mistake in alpha is
#: likely (16 to 64 times too strong): a warning. bfloat16 keeps 8 bits: beyond 256 the base's weights are less than the
#: rounding of the sum, and nothing of them is left: refused.
DOUBTFUL, REFUSED = 1.0, 256.0
#: the root mean square of a base's weights where they are not on this disk: no trained transformer's are as large
ASSUMED_RMS = 1.0
#: name, largest and smallest plain number of the base's type; where it is not known, float32's, which is bfloat16's too
_FLOAT16, _FLOAT32 = ("float16", 65504.0, 6e-8), ("float32", 3.389e38, 1.18e-38)


@frozen
class Judgement:
    """Why a file cannot be a teacher, and what is doubtful about it where it can; sentences that name the file."""

    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def judge(
    path: Path,
    shapes: Mapping[str, tuple[int, int]],
    base: BaseWeights,
    *,
    scale: float = 1.0,
    strength: StrengthFrom = None,
    data: bool = True,
) -> Judgement:
    """Read a file once, linear by linear, for a base whose linears are `shapes`; without `data` its header alone.

    `scale` multiplies the file's own strength, `strength` says whose word on that counts.
    """
    problems = check_lora(path, shapes, strength=strength)
    if problems:
        return Judgement(tuple(problems))
    try:
        header = inspect_header(path)
        contents = understand(path, header, shapes)
        alphas = read_alphas(path, contents)
        found = strengths(path, header, contents, alphas, strength)
        doubts = strength_doubts(path, header, contents, alphas, found) if strength is None else []
        if not data:
            return Judgement((), tuple(doubts))
        factors = _Factors(path, contents, {module: each.scale * scale for module, each in found.items()}, base)
        bounds, beyond = factors.bounds()
        problems = [*factors.strengths_beyond(), *beyond]
        problems = problems or [*factors.nothing(bounds)]
        large, doubtful = ([], []) if problems else factors.too_large(bounds)
    except LoraFileError as error:
        return Judgement(tuple(str(error).splitlines()))
    told = [f"{shown(path)}: {sentence}" for sentence in (*problems, *large)]
    return Judgement(tuple(told), (*doubts, *(f"{shown(path)}: {sentence}" for sentence in doubtful)))


@frozen
class _Factors:
    """A file's factors with every linear's whole strength, the bank's included, against a base."""

    path: Path
    contents: Contents
    scales: Mapping[str, float]
    base: BaseWeights

    @property
    def range(self) -> tuple[str, float, float]:
        """Name, largest and smallest number of the base's type."""
        return _FLOAT16 if self.base.dtype == "F16" else _FLOAT32

    def strengths_beyond(self) -> Iterable[str]:
        """Strengths that the base's type cannot hold."""
        name, most, _ = self.range
        wrong = {module: scale for module, scale in self.scales.items() if not abs(scale) <= most}
        if wrong:
            module, scale = max(wrong.items(), key=lambda item: abs(item[1]))
            many = f" ({len(wrong)} of {len(self.scales)} linears are so)" if len(self.scales) > 1 else ""
            yield f"{brief(module)}: its strength {scale:g} is beyond the range of {name}{many}"

    def bounds(self) -> tuple[dict[str, float | None], list[str]]:
        """|delta| of every linear at most, None for DoRA, in one pass; and the factors beyond the base's type."""
        name, most, _ = self.range
        bounds: dict[str, float | None] = {}
        beyond: dict[str, float] = {}
        for module, tensors in finite_tensors(self.path, self.contents):
            beyond |= {tensor: top for tensor, each in tensors.items() if (top := peak(each)) > most}
            bounds[module] = entry_bound(self.contents.entries[module], tensors, self.scales[module])
        if not beyond:
            return bounds, []
        tensor, top = max(beyond.items(), key=lambda item: item[1])
        many = f" ({len(beyond)} tensors are so)" if len(beyond) > 1 else ""
        return bounds, [f"{named(tensor)} holds {top:.3g}, which is beyond the range of {name}{many}"]

    def nothing(self, bounds: Mapping[str, float | None]) -> Iterable[str]:
        """The whole delta is zero, or below the base's type, and what is to blame."""
        name, _, least = self.range
        if all(bound is not None and bound < least for bound in bounds.values()):
            if all(abs(scale) < least for scale in self.scales.values()):
                why = "its strength is 0"
            elif any(bounds.values()):
                why = f"its whole change is below the smallest number of {name}"
            else:
                why = self._zeros()
            yield f"{why}: it changes nothing, and there is nothing to learn from it"

    def _zeros(self) -> str:
        """Which factors are zero in a file whose deltas all are."""
        empty: dict[str, list[bool]] = {}
        for module, tensors in finite_tensors(self.path, self.contents):
            for part, tensor in self.contents.entries[module].parts.items():
                if part != "alpha":
                    empty.setdefault(part, []).append(peak(tensors[tensor]) == 0)
        zero = [part for part, each in empty.items() if all(each)]
        if len(zero) == len(empty):
            return "all its factors are zero"
        if zero in (["a"], ["b"]):
            return "every A is zero" if zero == ["a"] else "every B is zero, as in a LoRA that was never trained"
        return f"its {', '.join(zero)} are zero everywhere" if zero else "the products of its factors are all zero"

    def too_large(self, bounds: Mapping[str, float | None]) -> tuple[list[str], list[str]]:
        """A problem, or a warning, that the delta is larger than the base's weights; for most files the bounds do."""
        own = {m: self._own(m) for m, bound in bounds.items() if bound is not None}
        if all((bounds[module] or 0.0) <= DOUBTFUL * size for module, size in own.items()):
            return [], []
        norms: dict[str, float] = {}
        for module, tensors in finite_tensors(self.path, self.contents):
            if module in own:
                norms[module] = entry_norm(self.contents.entries[module], tensors, self.scales[module]) or 0.0
        ratios = {module: norms[module] / size for module, size in own.items()}
        worst, whole = max(ratios, key=ratios.__getitem__), hypot(*norms.values()) / hypot(*own.values())
        against = "the base's own weights"
        if not self.base.rms:
            against = f"weights of root mean square {ASSUMED_RMS:g} (the base's are not on this disk)"
        if ratios[worst] > REFUSED:
            times = f"{ratios[worst]:.3g} times" if isfinite(ratios[worst]) else "beyond float64, against"
            why = f"beyond {REFUSED:g} times nothing of the base is left; is its alpha, or the bank's scale, right?"
            return [f"|delta| of {brief(worst)} is {times} {against}; {why}"], []
        if whole > DOUBTFUL:
            where = f"trained effects have 0.01 to 0.3; most of it is in {brief(worst)}"
            return [], [f"|delta| is {whole:.3g} times {against} ({where}); is its alpha, or the bank's scale, right?"]
        return [], []

    def _own(self, module: str) -> float:
        """The norm of the base's weight in a linear, as the root mean square has it."""
        out, inputs = self.contents.entries[module].shape
        return (self.base.rms or ASSUMED_RMS) * sqrt(out * inputs)
