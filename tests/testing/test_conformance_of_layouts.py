"""Broken LoRA layouts are caught by the checks for authors, each rule by an example that breaks it alone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen

from clora.api import LoraPart, TensorName
from clora.lora_io.layouts import installed
from clora.testing.conformance import problems_of
from clora.testing.lora_layouts import HOSTILE, layout_problems, reading

PARTS: dict[str, LoraPart] = {"left": "a", "right": "b", "strength": "alpha"}
WORDS = {part: word for word, part in PARTS.items()}
LINEAR = "transformer_blocks.0.attn.to_q"


def split(name: str) -> tuple[str, LoraPart] | None:
    """Linear and part of `net.M.left`."""
    match = re.fullmatch(r"net\.(.+)\.(left|right|strength)", name)
    return None if match is None else (match[1], PARTS[match[2]])


@frozen
class Well:
    """A layout that breaks no rule."""

    def understand(self, name):
        found = split(name)
        return None if found is None else TensorName(*found)

    def tensor_name(self, linear, part):
        return f"net.{linear}.{WORDS[part]}"


@frozen
class Flat:
    """One with underscores for dots, and without a name for alpha."""

    def understand(self, name):
        match = re.fullmatch(r"net_(.+)\.(left|right)", name)
        return None if match is None else TensorName(match[1], PARTS[match[2]], flat=True)

    def tensor_name(self, linear, part):
        return f"net_{linear.replace('.', '_')}.{WORDS[part]}" if part != "alpha" else None


@frozen
class OnlyRead:
    """One that is read and not written, wrapped as others are."""

    def understand(self, name):
        found = split(name)
        return None if found is None else TensorName(f"transformer.{found[0]}", found[1])


@pytest.mark.parametrize("layout", [Well(), Flat(), OnlyRead()], ids=lambda layout: type(layout).__name__)
def test_a_layout_that_keeps_the_rules_passes(layout) -> None:
    assert problems_of("lora_layouts", layout, checks_imports=False) == []
    assert installed() == ()


class CountsBlocks(Well):
    """Raises for a number that is no int, as `²`."""

    def understand(self, name):
        found = super().understand(name)
        if found is not None:
            [int(part) for part in found.linear.split(".") if part.isdigit()]
        return found


class KnowsBlocks(Well):
    """Raises for a block that it does not know."""

    def understand(self, name):
        found = super().understand(name)
        for number in re.findall(r"blocks\.(\d{1,9})\.", "" if found is None else found.linear):
            range(11)[int(number)]
        return found


class Splits(Well):
    """Raises for a name of fewer parts than its own have."""

    def understand(self, name):
        _net, _rest = name.split(".", 1)
        return super().understand(name)


class Refuses(Well):
    """Tells a person what it ought to leave to others."""

    def understand(self, name):
        from clora.api import CloraError

        if len(name) > 100:
            raise CloraError("too long")
        return super().understand(name)


class GivesText(Well):
    """Answers with the linear alone."""

    def understand(self, name):
        found = super().understand(name)
        return None if found is None else found.linear


class NamesNothing(Well):
    """Reads `net.left` as a factor of nothing."""

    def understand(self, name):
        before, _, part = name.rpartition(".")
        linear = before.removeprefix("net").removeprefix(".")
        return TensorName(linear, PARTS[part]) if before.startswith("net") and part in PARTS else None


@frozen
class Remembers(Well):
    """Knows a name only once."""

    _seen: set[str] = field(factory=set, init=False, eq=False)

    def understand(self, name):
        found = None if name in self._seen else super().understand(name)
        self._seen.add(name)
        return found


class Strips(Well):
    """Takes spaces off."""

    def understand(self, name):
        return super().understand(name.strip())


class AnyCase(Well):
    """Reads names in any case."""

    def understand(self, name):
        return super().understand(name.lower())


class Normalises(Well):
    """Reads 00 as 0."""

    def understand(self, name):
        return super().understand(re.sub(r"(?<=\.)0+(?=\d)", "", name))


class Slashes(Well):
    """Reads a path as dots."""

    def understand(self, name):
        return super().understand(name.replace("/", "."))


class SkipsEmptyParts(Well):
    """Reads two dots as one."""

    def understand(self, name):
        return super().understand(".".join(filter(None, name.split("."))))


class Compatible(Well):
    """Reads wide letters as narrow ones."""

    def understand(self, name):
        return super().understand(unicodedata.normalize("NFKC", name))


class NoPart(Well):
    """Knows a part that there is not."""

    def understand(self, name):
        return TensorName(name, "bias") if name.endswith("bias") else super().understand(name)


class CutsOff(Well):
    """Looks at the beginning of a name alone."""

    def understand(self, name):
        match = re.match(r"net\.(.+)\.(left|right|strength)", name)
        return None if match is None else TensorName(match[1], PARTS[match[2]])


class SharesNames(Well):
    """Writes no block's number."""

    def tensor_name(self, linear, part):
        return super().tensor_name(re.sub(r"\d+\.", "", linear), part)


class MixesUp(Well):
    """Writes A where it reads B."""

    def tensor_name(self, linear, part):
        return super().tensor_name(linear, {"a": "b", "b": "a"}.get(part, part))


class Forgets(Well):
    """Writes a name that it does not read."""

    def tensor_name(self, linear, part):
        return f"network.{linear}.{WORDS[part]}"


class HidesDots(Well):
    """Writes underscores, reads them, and does not say so."""

    def understand(self, name):
        return Flat().understand(name) and TensorName(name[4:].rpartition(".")[0], PARTS[name.rpartition(".")[2]])

    def tensor_name(self, linear, part):
        return Flat().tensor_name(linear, part)


class TakesOurs(Well):
    """Writes what clora reads by itself, as another part."""

    def tensor_name(self, linear, part):
        return {"a": f"{linear}.lora_B.weight", "b": f"{linear}.lora_A.weight"}.get(part)


class Invisible(Well):
    """Writes a letter that nobody sees."""

    def tensor_name(self, linear, part):
        return f"{super().tensor_name(linear, part)}\u200b"


@frozen
class HasKey(Well):
    """Has a key, which no recipe can set."""

    prefix: str = "net"


BROKEN = {
    CountsBlocks: "ValueError: invalid literal for int() with base 10: '²' at test_conformance_of_layouts.py:",
    KnowsBlocks: "raised; expected None for what it cannot read: lora_layouts: IndexError: range object index",
    Splits: "its understand('') raised; expected None for what it cannot read: lora_layouts: ValueError: not enough",
    Refuses: "raised; expected None for what it cannot read: too long",
    GivesText: "gave str 'proj_out'; expected a TensorName or None",
    NamesNothing: "its understand('net.left') gave a of a linear without a name; expected None",
    Remembers: "its understand('net.proj_out.left') gave two answers",
    Strips: "it reads 'net.proj_out.left' and ' net.proj_out.left' both as a of proj_out",
    AnyCase: "it reads 'net.proj_out.left' and 'NET.PROJ_OUT.LEFT' both as a of proj_out",
    Normalises: f"it reads 'net.single_{LINEAR}.left' and 'net.single_{LINEAR.replace('0', '00')}.left' both as a of",
    Slashes: "it reads 'net.proj_out.left' and 'net/proj_out/left' both as a of proj_out",
    SkipsEmptyParts: "it reads 'net.proj_out.left' and 'net..proj_out..left' both as a of proj_out",
    Compatible: "it reads 'net.proj_out.left' and 'net．proj_out．left' both as a of proj_out",
    NoPart: "its understand('bias') raised; expected None for what it cannot read: lora_layouts: ValueError: ",
    CutsOff: "it reads 'net.proj_out.left' and 'net.proj_out.leftx' both as a of proj_out",
    SharesNames: "it calls a of transformer_blocks.0.attn.to_q and a of transformer_blocks.1.attn.to_q both 'net.trans",
    MixesUp: "it calls a of proj_out 'net.proj_out.right', which is read as b of proj_out",
    Forgets: "it calls a of proj_out 'network.proj_out.left', which is not read back",
    HidesDots: f"it calls a of single_{LINEAR} 'net_single_{LINEAR.replace('.', '_')}.left', which is not read back",
    TakesOurs: "it calls a of proj_out 'proj_out.lora_B.weight', which is read as b of proj_out by clora itself",
    Invisible: "its tensor_name('proj_out', 'a') gave str 'net.proj_out.left\\u200b'; expected a name of up to 500",
    HasKey: "it has the key 'prefix', which nobody can set: no recipe names a layout",
}


@pytest.mark.parametrize(("cls", "sentence"), BROKEN.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_a_layout_that_breaks_a_rule_is_caught(cls: type, sentence: str) -> None:
    found = problems_of("lora_layouts", cls(), checks_imports=False)
    assert any(sentence in problem for problem in found), found
    assert installed() == ()


def test_the_layout_of_the_guide_keeps_the_rules() -> None:
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.+?)```", guide, re.DOTALL) if "class LeftRight" in block]
    told: dict[str, Any] = {"frozen": frozen, "TensorName": TensorName, "LoraPart": LoraPart}
    exec(code, told)
    names = [f"net.{LINEAR}.{word}" for word in PARTS]
    assert problems_of("lora_layouts", told["LeftRight"](), checks_imports=False) == []
    assert list(layout_problems(told["LeftRight"](), names)) == []


def test_what_is_only_read_is_asked_for_an_authors_own_names() -> None:
    assert list(layout_problems(OnlyRead(), [f"net.{LINEAR}.left", f"net.{LINEAR}.right"])) == []
    assert list(layout_problems(OnlyRead(), ["net.left"])) == ["it does not read 'net.left'"]
    assert list(layout_problems(CutsOff(), [f"net.{LINEAR}.left"])) != []


def test_a_layout_with_a_method_nearly_named_as_another_is_told() -> None:
    @frozen
    class Misspelt(OnlyRead):
        """A layout that seems to write."""

        def tensor_nam(self, linear, part):
            return linear

    (told,) = problems_of("lora_layouts", Misspelt(), checks_imports=False)
    assert "did you mean 'tensor_name'?" in told


def test_the_layouts_of_the_process_are_back_when_the_test_of_one_has_failed() -> None:
    def fail() -> Iterator[None]:
        with reading(Well()) as name:
            assert [layout.name for layout in installed()] == [name]
            raise ArithmeticError
        yield

    with pytest.raises(ArithmeticError):
        next(fail())
    assert installed() == ()


def test_the_hostile_names_are_what_a_file_may_have() -> None:
    assert max(map(len, HOSTILE)) == 500
    assert len(set(HOSTILE)) > 60
