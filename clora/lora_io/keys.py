"""Which linear of a backbone a tensor's name means, and which of its factors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

from attrs import Factory, field, frozen

from clora.contracts.lora_layout import LoraPart, TensorName
from clora.lora_io.grammar import built_in, stripped, unwrapped
from clora.lora_io.layouts import InstalledLayout
from clora.lora_io.linears import originals_of

Kind = Literal["lora", "lokr", "loha"]


@frozen
class Key:
    """A tensor's name, understood."""

    module: str  # the backbone's linear, or an original one that stands for several
    part: LoraPart
    layout: str  # "" where the name is no layout's own
    peft: bool = False  # its alpha is in PEFT's adapter_config.json
    adapter: str | None = None  # the adapter's name, where the tensor's name has one
    by: InstalledLayout | None = None  # the registered layout that said so; None where clora's own did

    @property
    def kind(self) -> Kind | None:
        """The kind of adapter that it is a factor of; None for alpha and magnitude, which go with any."""
        if self.part in ("alpha", "magnitude"):
            return None
        return "lokr" if self.part.startswith("lokr_") else "loha" if self.part.startswith("hada_") else "lora"


def _flattened(shapes: Mapping[str, tuple[int, int]] | None) -> dict[str, str | None]:
    """{name with underscores: dotted name}; None where two linears share a flat name and neither can be meant."""
    flat: dict[str, str | None] = {}
    for module in (*(shapes or ()), *originals_of(shapes)):
        name = module.replace(".", "_")
        flat[name] = None if name in flat else module
    return flat


@frozen
class Names:
    """The linears that names in a file may mean; None takes every dotted name as it stands."""

    shapes: Mapping[str, tuple[int, int]] | None
    guess: Callable[[str], str] | None = None  # a flat name -> a dotted one, where there are no shapes
    flat: Mapping[str, str | None] = field(
        init=False, default=Factory(lambda self: _flattened(self.shapes), takes_self=True)
    )

    def understand(self, key: str) -> Key | None:
        """What a tensor's name means in a layout of clora's own, or None where it names no linear here."""
        name = built_in(key)
        module = None if name is None else self.linear(name.said)
        if name is None or module is None:
            return None
        layout = name.layout
        if layout == "diffusers" and module in originals_of(self.shapes):
            layout = "original names"
        return Key(module, name.said.part, layout, name.peft, name.adapter)

    def understand_as(self, layout: InstalledLayout, said: TensorName) -> Key | None:
        """What a registered layout says of a tensor's name, or None where that names no linear here."""
        module = self.linear(said)
        return None if module is None else Key(module, said.part, layout.name, by=layout)

    def linear(self, said: TensorName) -> str | None:
        """The linear that a name means, under prefixes and wrappers; None where there is no such one."""
        if said.flat:
            name = unwrapped(said.linear)
            return self.guess(name) if self.shapes is None and self.guess else self.flat.get(name)
        names = list(stripped(said.linear))
        if self.shapes is None:
            return names[-1] or None
        originals = originals_of(self.shapes)
        return next((name for name in names if name in self.shapes or name in originals), None)

    def leftover(self, key: str) -> tuple[str, str] | None:
        """(what stands before it, linear) where a name ends like a known linear's; None where it does not.

        A block's number in what stands before makes it the name of another model's linear.
        """
        name = built_in(key)
        if name is None or self.shapes is None:
            return None
        said = name.before
        known = {**dict.fromkeys(self.shapes), **dict.fromkeys(originals_of(self.shapes))}
        flat = {name: module for name, module in self.flat.items() if module is not None and "." in module}
        for at in range(1, len(said)):
            if said[at - 1] in "._" and not re.search(r"\d", said[:at]):
                linear = said[at:] if said[at:] in known and said[at - 1] == "." else flat.get(said[at:])
                if linear is not None:
                    return said[:at], linear
        return None
