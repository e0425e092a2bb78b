"""Everything there is to know about one LoRA file, and every reason why it could not be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from clora.lora_io.blocks import by_block, unflattened
from clora.lora_io.contents import TITLES, Contents, understand, unmatched_problem
from clora.lora_io.doubts import strength_doubts
from clora.lora_io.header import Header, LoraFileError, inspect_header
from clora.lora_io.kinds import Entry
from clora.lora_io.norms import entry_norm
from clora.lora_io.pitfalls import Pitfall, Trait, pitfalls
from clora.lora_io.reader import conversion_notes, finite_tensors, lost_share, read_alphas
from clora.lora_io.scales import Strength, strengths

if TYPE_CHECKING:
    import torch

    from clora.lora_io.convert import Conversion


@frozen
class Surveyed:
    """One linear: its adapter, its strength where that could be understood, |delta| where that could be computed.

    `cost` is that of making it a LoRA, for LoKr and LoHa.
    """

    entry: Entry
    strength: Strength | None
    norm: float | None
    cost: Conversion | None

    @property
    def kind(self) -> str:
        """LoRA, LoKr or LoHa, with DoRA before it where it has a magnitude."""
        return f"DoRA over {TITLES[self.entry.kind]}" if self.entry.magnitude else TITLES[self.entry.kind]


@frozen
class Survey:
    """A file's linears, what of the backbone it leaves alone, and what is wrong with it."""

    path: Path
    bytes: int
    layout: str
    types: Mapping[str, int]  # the floats of its tensors, by how many
    linears: Mapping[str, Surveyed]
    missing: tuple[str, ...] | None  # None where no backbone was given
    unmatched: tuple[str, ...]
    problems: tuple[str, ...]
    doubts: tuple[str, ...]  # sentences on a strength that two programs take for two numbers
    metadata: Mapping[str, str]
    traits: frozenset[Trait]

    @property
    def norm(self) -> float | None:
        """|delta| over all linears; None where one of them is not known."""
        norms = [linear.norm for linear in self.linears.values()]
        return hypot(*(n for n in norms if n is not None)) if norms and None not in norms else None

    def pitfalls(self) -> list[Pitfall]:
        """The programs that would get it wrong; of a file that is unusable, only those that would not say so."""
        return pitfalls(set(self.traits) & {"unmatched keys"} if self.problems else set(self.traits))

    def notes(self) -> list[str]:
        """A sentence on what making it a plain LoRA costs, where that can be known without the base."""
        costs = {module: linear.cost for module, linear in self.linears.items() if linear.cost is not None}
        kinds = {module: self.linears[module].kind for module in costs}
        whole = hypot(*(linear.norm for linear in self.linears.values() if linear.norm is not None))
        return conversion_notes(costs, kinds, lost_share(costs.values(), whole))


def survey(path: Path, shapes: Mapping[str, tuple[int, int]] | None) -> Survey:
    """Read a file, linear by linear, for a backbone whose linears are `shapes` {module: (in, out)}, or for none.

    Raises nothing for a bad file: its problems are in the survey.
    """
    try:
        header = inspect_header(path)
    except LoraFileError as error:
        return Survey(path, 0, "", {}, {}, None, (), tuple(str(error).splitlines()), (), {}, frozenset())
    contents = understand(path, header, shapes, guess=unflattened)
    problems = [*contents.problems, *unmatched_problem(path, contents, shapes)]
    found: dict[str, Strength] = {}
    doubts: list[str] = []
    sizes: dict[str, tuple[float | None, Conversion | None]] = {}
    if not contents.problems:
        try:
            alphas = read_alphas(path, contents)
            found = strengths(path, header, contents, alphas)
            doubts = strength_doubts(path, header, contents, alphas, found)
            for module, tensors in finite_tensors(path, contents):
                sizes[module] = _sizes(contents.entries[module], tensors, found[module].scale)
        except LoraFileError as error:
            problems += str(error).splitlines()
    unknown = (None, None)
    linears = {m: Surveyed(e, found.get(m), *sizes.get(m, unknown)) for m, e in contents.entries.items()}
    missing = None if shapes is None else tuple(module for module in shapes if module not in linears)
    return Survey(
        path,
        header.bytes,
        contents.layout,
        _types(header, contents),
        linears,
        missing,
        contents.unmatched,
        tuple(problems),
        tuple(doubts),
        header.metadata,
        frozenset(_traits(contents, linears, missing)),
    )


def _sizes(entry: Entry, tensors: Mapping[str, torch.Tensor], scale: float) -> tuple[float | None, Conversion | None]:
    """|delta|, and what a LoRA of it would lose; None where that takes the base, or where there is nothing to lose."""
    whole = entry_norm(entry, tensors, scale)
    if entry.plain or whole is None:
        return whole, None
    from clora.lora_io.convert import Limits, converted

    try:
        return whole, converted(entry, tensors, scale, Limits(), None)[2]
    except (OverflowError, RuntimeError):  # beyond float32, which `whole` tells
        return whole, None


def _types(header: Header, contents: Contents) -> dict[str, int]:
    factors = {n: part for e in contents.entries.values() for part, n in e.parts.items() if part != "alpha"}
    return dict(Counter(header.tensors[name].dtype for name in factors).most_common())


def _traits(contents: Contents, linears: Mapping[str, Surveyed], missing: tuple[str, ...] | None) -> set[Trait]:
    found: set[Trait] = set()
    scaled = {m: x for m, x in linears.items() if x.strength is not None and x.strength.scale != 1}
    sources = {x.strength.source for x in scaled.values() if x.strength is not None and x.entry.kind == "lora"}
    for source, trait in _OF_SOURCE.items():
        if source in sources:
            found.add(trait)
    if "tensor" in sources and "comfyui with alpha" in contents.layout:
        found.add("alpha tensors beside lora_A")
    if any(x.entry.kind != "lora" for x in scaled.values()):
        found.add("scaled lycoris")
    if any((x.entry.magnitude or "").endswith("dora_scale") for x in linears.values()):
        found.add("dora_scale")
    if contents.unmatched:
        found.add("unmatched keys")
    if missing and linears:
        found.add("some linears only")
    blocks, _ = by_block(linears)
    tails = {tail for stem in blocks.values() for tail in stem}
    if tails and all(tail.startswith("attn.") for tail in tails):
        found.add("attention only")
    if len({(x.entry.rank, x.strength and x.strength.scale) for x in linears.values()}) > 1:
        found.add("ranks or alphas differ")
    return found


_OF_SOURCE: dict[str, Trait] = {
    "tensor": "alpha tensors",
    "header": "alpha in the header",
    "config": "alpha in adapter_config.json",
}
