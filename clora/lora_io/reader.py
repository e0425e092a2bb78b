"""One reader for every layout: file -> {linear: (A, B, scale)}, and what it cost where the file is no plain LoRA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from clora.contracts.convolution import kernel_of
from clora.errors import reason, shown
from clora.lora_io.contents import TITLES, Contents, some, understand, unmatched_problem
from clora.lora_io.header import Header, LoraFileError, brief, inspect_header, named
from clora.lora_io.kinds import Entry
from clora.lora_io.norms import product_norm
from clora.lora_io.scales import Strength, StrengthFrom, strengths

if TYPE_CHECKING:
    import torch

    from clora.lora_io.convert import Conversion, Limits

#: how many problems of one file an error tells
MOST_PROBLEMS = 20
#: a linear's name -> the base's weight [out, in]
Weights = Callable[[str], "torch.Tensor"]


@frozen(eq=False)
class LoraDelta:
    """One linear's change of weight, scale * b @ a: a [r, in], b [out, r]; or a convolution's as a matrix."""

    a: torch.Tensor  # [r, in]
    b: torch.Tensor  # [out, r]
    scale: float  # a factor on the product
    kernel: tuple[int, ...] = ()  # (kh, kw) of a convolution, whose a is [r, in kh kw]

    def weight(self) -> torch.Tensor:
        """scale * b @ a in the shape of the weight: [out, in] of a linear, [out, in, kh, kw] of a convolution."""
        change = self.scale * (self.b @ self.a)
        return change.unflatten(1, (-1, *self.kernel)) if self.kernel else change


def deltas_of(
    factors: Mapping[str, tuple[torch.Tensor, torch.Tensor, float]], shapes: Mapping[str, tuple[int, int]]
) -> dict[str, LoraDelta]:
    """What an adapter's factors {linear: (A [r, in], B [out, r], scale)} change in a backbone of these `shapes`."""
    return {
        name: LoraDelta(a.detach(), b.detach(), scale, kernel_of(shapes, name))
        for name, (a, b, scale) in factors.items()
    }


@frozen(eq=False)
class LoraFile:
    """A LoRA file in memory; `unused` keys name no linear of the backbone.

    `conversions` {linear: its cost} are those that were no plain LoRA; `kinds` {linear: LoKr, LoHa or DoRA}.
    """

    deltas: Mapping[str, LoraDelta]
    layout: str
    unused: tuple[str, ...]
    metadata: Mapping[str, str]
    conversions: Mapping[str, Conversion] = field(factory=dict)
    kinds: Mapping[str, str] = field(factory=dict)

    @property
    def loss(self) -> float:
        """What converting lost of the file's whole change, relative, in the Frobenius norm over all its linears."""
        plain = (d.scale * product_norm(d.a, d.b) for m, d in self.deltas.items() if m not in self.conversions)
        return lost_share(self.conversions.values(), hypot(*plain, *(c.norm for c in self.conversions.values())))

    def notes(self) -> list[str]:
        """A sentence on what converting cost; none for a plain LoRA."""
        return conversion_notes(self.conversions, self.kinds, self.loss)


def lost_share(costs: Iterable[Conversion], whole: float) -> float:
    """What converting lost of a change of norm `whole`, relative; 0 of a change that is zero."""
    return hypot(*(cost.error for cost in costs)) / whole if whole else 0.0


def conversion_notes(costs: Mapping[str, Conversion], kinds: Mapping[str, str], loss: float) -> list[str]:
    """What it costs to make LoRA of linears of other kinds, over all linears and at most; nothing without any."""
    if not costs:
        return []
    counts = ", ".join(f"{n} linear{'s' * (n != 1)} from {kind}" for kind, n in Counter(kinds.values()).items())
    top = max(cost.rank for cost in costs.values())
    module, worst = max(costs.items(), key=lambda item: item[1].relative)
    return [
        f"made into LoRA of rank up to {top}: {counts}; this loses {loss:.2%} of the change, "
        f"at most {worst.relative:.2%} ({brief(module)})"
    ]


def read_lora(
    path: Path,
    shapes: Mapping[str, tuple[int, int]] | None = None,
    *,
    dtype: torch.dtype | None = None,
    allow_unused: bool = False,
    weights: Weights | None = None,
    limits: Limits | None = None,
    strength: StrengthFrom = None,
) -> LoraFile:
    """Read a LoRA in any layout of `keys`, for a backbone whose linears are `shapes` {module: (in, out)}.

    Factors keep the file's type (8-bit floats become float32) unless `dtype` is given; they are on the CPU. LoKr, LoHa
    and DoRA become LoRA in float32, cut at `limits`; DoRA needs `weights`, the base's. Without `shapes` every dotted
    name is taken as it stands. `strength` says whose word on the strength counts. Raises LoraFileError for whatever
    cannot be used, NaN and infinity included, and for keys that name no linear unless `allow_unused`.
    """
    header = inspect_header(path)
    contents = understand(path, header, shapes)
    problems = list(contents.problems)
    if not allow_unused or not contents.entries:
        problems += unmatched_problem(path, contents, shapes)
    dora = [module for module, entry in contents.entries.items() if entry.magnitude is not None]
    if dora and weights is None:
        problems.append(
            f"{shown(path)}: is DoRA ({some(dora)}), which can only be read together with the base's weights"
        )
    if problems:
        raise LoraFileError("\n".join(few(path, problems)))
    scales = file_strengths(path, header, contents, strength)
    deltas: dict[str, LoraDelta] = {}
    costs: dict[str, Conversion] = {}
    for module, tensors in finite_tensors(path, contents):
        entry = contents.entries[module]
        if entry.plain:
            a, b = (_typed(factor, dtype) for factor in entry.factors(tensors))
            kernel = entry.kernel if shapes is None else kernel_of(shapes, module)
            deltas[module] = LoraDelta(a, b, scales[module].scale, kernel)
        else:
            weight = _base_weight(path, module, entry, weights)
            try:
                made = _converted(entry, tensors, scales[module].scale, weight, dtype, limits)
            except (OverflowError, RuntimeError) as error:  # beyond float32; a decomposition that finds no end
                told = f"{brief(module)} cannot be made a LoRA: {reason(error)}"
                raise LoraFileError(f"{shown(path)}: {told}") from error
            deltas[module], costs[module] = made
    kinds = {m: TITLES[e.kind] if e.magnitude is None else "DoRA" for m, e in contents.entries.items() if m in costs}
    return LoraFile(deltas, contents.layout, contents.unmatched, header.metadata, costs, kinds)


def _converted(
    entry: Entry,
    tensors: Mapping[str, torch.Tensor],
    scale: float,
    weight: torch.Tensor | None,
    dtype: torch.dtype | None,
    limits: Limits | None,
) -> tuple[LoraDelta, Conversion]:
    from clora.lora_io.convert import Limits, converted

    a, b, cost = converted(entry, tensors, scale, limits or Limits(), weight)
    return LoraDelta(a.to(dtype or a.dtype), b.to(dtype or b.dtype), 1.0), cost


def _base_weight(path: Path, module: str, entry: Entry, weights: Weights | None) -> torch.Tensor | None:
    """The base's weight where the entry is DoRA. Raises LoraFileError where it is none of this file's shape."""
    if entry.magnitude is None or weights is None:
        return None
    weight = weights(module)
    if tuple(weight.shape) != entry.shape:
        sizes = f"{list(entry.shape)}, but the base's weight is {list(weight.shape)}"
        raise LoraFileError(f"{shown(path)}: {brief(module)} is DoRA of {sizes}")
    return weight


def _typed(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    import torch

    return tensor.to(dtype or (torch.float32 if tensor.element_size() == 1 else tensor.dtype))


def finite_tensors(path: Path, contents: Contents) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Linear by linear, the name and its tensors as stored, alphas left out; one linear at a time is in memory.

    Raises LoraFileError at the end, naming tensors with NaN or infinity; a linear that has one is not yielded.
    """
    broken: list[str] = []
    with opened(path) as file:
        for module, entry in contents.entries.items():
            tensors = {name: _tensor(path, file, name, contents) for name in entry.factor_names}
            bad = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
            broken += [name for name in bad if name not in broken]
            if not bad:
                yield module, tensors
    if broken:
        raise LoraFileError(f"{shown(path)}: NaN or infinity in {some(broken)}")


def few(path: Path, problems: list[str]) -> list[str]:
    """The problems of a file, of very many the first ones and how many more there are."""
    if len(problems) <= MOST_PROBLEMS:
        return problems
    return [*problems[:MOST_PROBLEMS], f"{shown(path)}: {len(problems) - MOST_PROBLEMS:,} more"]


def _tensor(path: Path, file: Any, name: str, contents: Contents) -> torch.Tensor:
    """One tensor. Raises LoraFileError where it is not what the header said when the file was checked."""
    tensor = file.get_tensor(name)
    if tuple(tensor.shape) != contents.shapes[name]:
        raise LoraFileError(f"{shown(path)}: {named(name)} has changed while the file was read")
    return tensor


def check_finite(path: Path, contents: Contents) -> None:
    """Read every tensor once. Raises LoraFileError naming those with NaN or infinity."""
    for _ in finite_tensors(path, contents):
        pass


def file_strengths(
    path: Path, header: Header, contents: Contents, strength: StrengthFrom = None
) -> dict[str, Strength]:
    """The strength of every linear, reading nothing but the alphas."""
    return strengths(path, header, contents, read_alphas(path, contents), strength)


def read_alphas(path: Path, contents: Contents) -> dict[str, float]:
    """The alpha tensors' values by name."""
    names = dict.fromkeys(entry.alpha for entry in contents.entries.values() if entry.alpha is not None)
    with opened(path) as file:
        return {name: float(_tensor(path, file, name, contents).reshape(())) for name in names}


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, memory-mapped. Raises LoraFileError where it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise LoraFileError(f"{shown(path)}: cannot be read: {reason(error)}") from error


def _is_finite(tensor: torch.Tensor) -> bool:
    """Whether every number is finite, from the least and the greatest: both are NaN where any number is.

    One pass without a copy, some fifty times as fast as isfinite() in bfloat16: it is paid at every switch of teachers.
    """
    import torch

    if not tensor.numel():
        return True
    least, greatest = (tensor.float() if tensor.element_size() == 1 else tensor).aminmax()
    return bool(torch.isfinite(least) & torch.isfinite(greatest))
