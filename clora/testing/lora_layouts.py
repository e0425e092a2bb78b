"""What `clora.testing.conformance` asks of a LoRA layout: it reads what it writes, and no name brings it down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

from attrs import frozen

from clora.config.fields import keys_of
from clora.contracts.component import Component
from clora.contracts.lora_layout import LoraPart, TensorName, WritesTensorNames
from clora.errors import CloraError, escaped
from clora.lora_io.file_names import understood
from clora.lora_io.header import MAX_NAME, brief, named
from clora.lora_io.keys import Names
from clora.lora_io.layouts import install, installed
from clora.plugin_system.catalogue import Registered
from clora.plugin_system.guard import Owners, came
from clora.plugin_system.lora_layouts import LAYOUTS, RegisteredLayout

#: linears whose names are easily taken for one another
LINEARS = (
    "proj_out",
    "single_transformer_blocks.0.attn.to_q",
    "transformer_blocks.0.attn.to_k",
    "transformer_blocks.0.attn.to_out.0",
    "transformer_blocks.0.attn.to_q",
    "transformer_blocks.1.attn.to_q",
    "transformer_blocks.10.attn.to_q",
    "transformer_blocks.0.ff.net.0.proj",
)
NAMES = Names(dict.fromkeys(LINEARS, (6, 8)))
#: what files of strangers may call a tensor
HOSTILE = (
    *("", " ", ".", "..", "._.", "-", "_", "0", "-1", "1e999", "nan", "None", "True", "__class__"),
    *("/", "\\", "../../lora", "/etc/passwd", "C:\\lora", "~", "file://lora", "a/b.c"),
    *("%s", "{}", "{0.__class__}", "$(a)", "[", "(", "*", "a|b", "^$", "\\d", "'", '"', "<b>", "#", "a=b"),
    *("é", "e\u0301", "İ", "ß", "ﬁ", "名", "🙂", "²", "٣", "Ⅷ", "１"),
    *(letter * MAX_NAME for letter in ("a", ".", "_", "-", "0", "9", "(", "名")),
    *((word * MAX_NAME)[:MAX_NAME] for word in ("a.", "a_", ".0", "lora_", "blocks.0.", "a a ")),
    *("lora_A", ".lora_A.weight", "lora_up", "alpha", ".alpha", "weight", "bias", "transformer."),
    *LINEARS,
    *(f"{linear}.weight" for linear in LINEARS),
)
#: what may stand where a name has a block's number
NUMBERS = ("", "-1", "+0", "00", "0_0", "0.0", "1e9", "999", "9" * 30, "9" * 400, "²", "٠", "x")


@frozen
class Written:
    """A name that it writes, and for what."""

    linear: str
    part: LoraPart
    name: str

    @property
    def tensor(self) -> str:
        """What a message calls the tensor."""
        return f"{self.part} of {self.linear}"


@contextmanager
def reading(layout: Any) -> Iterator[str]:
    """Within it this process reads files in a layout, as if it were installed alone; gives the name to write it by."""
    before = installed()
    registered = Registered("tested", "tested", "0", LAYOUTS, Component("tested", type(layout)))
    install([RegisteredLayout(registered)])
    try:
        yield registered.name
    finally:
        install(before)


def layout_problems(layout: Any, names: Iterable[str] = ()) -> Iterator[str]:
    """Everything that is wrong with it. `names` are tensors of a file in it, for one that only reads."""
    keys = [key.name for key in keys_of(type(layout))]
    if keys:
        yield f"it has the key {keys[0]!r}, which nobody can set: no recipe names a layout"
        return
    given, written = list(names), _written(layout) if isinstance(layout, WritesTensorNames) else []
    own = [*given, *(each.name for each in written)]
    asked = list(dict.fromkeys(chain(HOSTILE, own, *map(_alike, own))))
    said, problem = _answers(layout, [name for name in asked if len(name) <= MAX_NAME and escaped(name) == name])
    if problem is not None:
        yield problem
        return
    yield from (f"it does not read {named(name)}" for name in given if name not in said)
    yield from _not_read_back(layout, written)
    yield from _collisions(said, own)


def _written(layout: WritesTensorNames) -> list[Written]:
    """All that a file on `LINEARS` holds. Raises ComponentError for what is no name."""
    parts: tuple[LoraPart, ...] = ("a", "b", "alpha")
    with reading(layout):
        (registered,) = installed()
        return [
            Written(linear, part, name)
            for linear in LINEARS
            for part in parts
            if (name := registered.tensor_name(linear, part)) is not None
        ]


def _answers(layout: Any, names: list[str]) -> tuple[dict[str, TensorName], str | None]:
    """What it says of the names that it reads; and the first answer that is none, or is another one later."""
    rounds: list[dict[str, TensorName]] = []
    for order in (names, names[::-1]):
        said: dict[str, TensorName] = {}
        for name in order:
            answer, problem = _answer(layout, name)
            if problem is not None:
                return {}, f"its understand({named(name)}) {problem}"
            if answer is not None:
                said[name] = answer
        rounds.append(said)
    other = next((name for name in names if rounds[0].get(name) != rounds[1].get(name)), None)
    return rounds[0], None if other is None else f"its understand({named(other)}) gave two answers"


def _answer(layout: Any, name: str) -> tuple[TensorName | None, str | None]:
    """What it says of a name, and what is wrong with that."""
    try:
        with Owners().calling(LAYOUTS):
            answer = layout.understand(name)
    except CloraError as error:
        return None, f"raised; expected None for what it cannot read: {error}"
    if answer is not None and not isinstance(answer, TensorName):
        return None, f"gave {came(answer)}; expected a TensorName or None"
    if answer is not None and not answer.linear:
        return None, f"gave {answer.part} of a linear without a name; expected None"
    return answer, None


def _not_read_back(layout: Any, written: list[Written]) -> Iterator[str]:
    """Names that it writes and that a reader, who asks clora's own layouts first, does not take for what they are."""
    with reading(layout):
        keys = understood(NAMES, [each.name for each in written]).keys
    first: dict[str, Written] = {}
    for each in written:
        other = first.setdefault(each.name, each)
        if other != each:
            yield f"it calls {other.tensor} and {each.tensor} both {named(each.name)}"
            return
    for each in written:
        key = keys.get(each.name)
        if key is None or (key.module, key.part) != (each.linear, each.part):
            reader = "" if key is None or key.by is not None else " by clora itself"
            read = "not read back" if key is None else f"read as {key.part} of {key.module}{reader}"
            yield f"it calls {each.tensor} {named(each.name)}, which is {read}"
            return


def _collisions(said: Mapping[str, TensorName], own: list[str]) -> Iterator[str]:
    """The first two names that it reads as one tensor: a file with both could not be used."""
    first: dict[tuple[str, str], str] = {}
    for name in dict.fromkeys([*own, *said]):
        if name in said:
            linear, part = NAMES.linear(said[name]) or said[name].linear, said[name].part
            other = first.setdefault((linear, part), name)
            if other != name:
                yield f"it reads {named(other)} and {named(name)} both as {part} of {brief(linear)}"
                return


def _alike(name: str) -> Iterator[str]:
    """Names that are nearly this one: halves, other cases, letters too many, other separators and numbers."""
    yield from (name.replace(".", other) for other in ("..", "_", "/", "\\", " ", ". ", "．"))
    cuts = [match.start() for match in re.finditer(r"[._]", name)]
    yield from (half for cut in cuts for half in (name[:cut], name[: cut + 1], name[cut:], name[cut + 1 :]))
    parts = name.split(".")
    yield from (".".join([*parts[:at], *parts[at + 1 :]]) for at in range(len(parts)))
    yield from (f"{parts[0]}.{parts[-1]}", f"{parts[0]}..{parts[-1]}")
    yield from (name[1:], name[:-1], f"x{name}", f"{name}x", f" {name}", f"{name} ", f".{name}", f"{name}.")
    yield from (name.upper(), name.lower(), name.title(), name * 2, f"{name}.{name}", f"{name}/{name}")
    yield from (f"{name[:cut]}.{name[cut:]}" for cut in cuts)
    for match in re.finditer(r"\d+", name):
        yield from (f"{name[: match.start()]}{number}{name[match.end() :]}" for number in NUMBERS)
