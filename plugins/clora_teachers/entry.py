"""One teacher of a manifest, every key checked."""

from __future__ import annotations

import re
from difflib import get_close_matches
from math import isfinite
from pathlib import Path

import yaml
from attrs import field, frozen

from clora.api import EffectCard

REQUIRED = ("name", "lora", "teacher_prompt", "caption")
KEYS = (*REQUIRED, "scale", "trigger")
#: names of the adapters that a run makes itself
RESERVED = frozenset({"base", "critic", "default", "ema", "student"})


@frozen
class Problems:
    """The mistakes found in a file, each with its line (0 for the whole file)."""

    path: Path
    found: list[tuple[int, str]] = field(factory=list)

    def at(self, node: yaml.Node, sentence: str) -> None:
        """Note a mistake where a node begins."""
        self.found.append((node.start_mark.line + 1, sentence))

    def say(self, sentence: str) -> None:
        """Note a mistake of the whole file."""
        self.found.append((0, sentence))

    def sentences(self) -> tuple[str, ...]:
        """All of them in the file's order, as file:line: sentence."""
        ordered = sorted(self.found, key=lambda mistake: mistake[0])
        return tuple(f"{self.path}:{line}: {text}" if line else f"{self.path}: {text}" for line, text in ordered)


@frozen(eq=False)
class Entry:
    """An entry's texts and nodes by key, and its card where nothing is wrong with it."""

    words: dict[str, str]
    nodes: dict[str, yaml.Node]
    card: EffectCard | None


def read_entry(node: yaml.Node, folder: Path, problems: Problems) -> Entry | None:
    """One item of the list; None where it is no mapping. `folder` is the manifest's own, resolved."""
    if not isinstance(node, yaml.MappingNode):
        problems.at(node, f"a teacher is a mapping with the keys {', '.join(REQUIRED)}")
        return None
    before = len(problems.found)
    nodes = _nodes(node, problems)
    missing = [key for key in REQUIRED if key not in nodes]
    if missing:
        problems.at(node, f"this teacher lacks {', '.join(missing)}")
    words = {key: word for key in nodes if key != "scale" and (word := _word(key, nodes[key], problems)) is not None}
    scale = _scale(nodes["scale"], problems) if "scale" in nodes else 1.0
    lora = _lora(words["lora"], nodes["lora"], folder, problems) if "lora" in words else None
    if "name" in words:
        _check_name(words["name"], nodes["name"], problems)
    if lora is None or scale is None or len(problems.found) > before:
        return Entry(words, nodes, None)
    card = EffectCard(
        words["name"], lora, words["teacher_prompt"], words["caption"], scale=scale, trigger=words.get("trigger")
    )
    return Entry(words, nodes, card)


def _nodes(node: yaml.MappingNode, problems: Problems) -> dict[str, yaml.Node]:
    """The values of the known keys; unknown and repeated keys are noted."""
    found: dict[str, yaml.Node] = {}
    for key_node, value in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if key not in KEYS:
            near = get_close_matches(str(key), KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"a teacher's keys are {', '.join(KEYS)}"
            problems.at(
                key_node, f"unknown key {key!r}; {hint}" if key is not None else f"a key must be a word; {hint}"
            )
        elif key in found:
            problems.at(key_node, f"the key {key} stands here twice")
        else:
            found[key] = value
    return found


def _word(key: str, node: yaml.Node, problems: Problems) -> str | None:
    """A text that is not blank, or None with the mistake noted."""
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
        if node.value.strip():
            return node.value.strip()
        problems.at(node, f"{key} is empty")
    elif isinstance(node, yaml.ScalarNode):
        problems.at(node, f"{key} must be text, but YAML reads {node.value!r} as {_kind(node)}; put it in quotes")
    else:
        problems.at(node, f"{key} must be text, not {_kind(node)}")
    return None


def _scale(node: yaml.Node, problems: Problems) -> float | None:
    """A finite number other than 0, or None with the mistake noted."""
    number: float | None = None
    if isinstance(node, yaml.ScalarNode) and not node.tag.startswith("tag:yaml.org,2002:bool"):
        try:
            number = float(node.value)  # takes 1e-1 too, which YAML 1.1 reads as text
        except ValueError:
            number = None
    if number is None or not isfinite(number) or number == 0:
        said = repr(node.value) if isinstance(node, yaml.ScalarNode) else _kind(node)
        problems.at(node, f"scale must be a number other than 0, not {said}")
        return None
    return number


def _kind(node: yaml.Node) -> str:
    """What a node is, in words."""
    names = {"int": "a number", "float": "a number", "bool": "true or false", "null": "nothing", "timestamp": "a date"}
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return names.get(node.tag.rsplit(":", 1)[-1], f"a {node.tag}")


def _lora(text: str, node: yaml.Node, folder: Path, problems: Problems) -> Path | None:
    """The LoRA's path, which must lead to a safetensors file inside the manifest's folder, links followed."""
    try:
        path = (folder / text).resolve()
        exists = path.is_file()
    except (OSError, ValueError, RuntimeError):  # a loop of links, a zero byte, a name too long
        problems.at(node, f"lora {text!r} is no usable path")
        return None
    if not path.is_relative_to(folder):
        problems.at(node, f"lora {text!r} leads out of the manifest's folder; copy the file beside the manifest")
    elif Path(text).suffix != ".safetensors":
        problems.at(node, f"lora {text!r} is no .safetensors file, and nothing else is read (a pickle can run code)")
    elif not exists:
        near = get_close_matches(Path(text).stem, _neighbours(path), n=1)  # the ending alone makes no two names alike
        hint = f"; did you mean {near[0]}.safetensors?" if near else ""
        problems.at(node, f"lora {text!r}: there is no such file{hint}")
    else:
        return path
    return None


def _neighbours(path: Path) -> list[str]:
    """The safetensors files beside a path, without their ending."""
    return sorted(file.stem for file in path.parent.glob("*.safetensors")) if path.parent.is_dir() else []


def _check_name(name: str, node: yaml.Node, problems: Problems) -> None:
    """A name becomes an adapter, a file and a column: letters, digits, _ and -, and none that a run uses itself."""
    if not re.fullmatch(r"\w[\w-]*", name):
        problems.at(node, f"name {name!r} may hold only letters, digits, _ and -, and must not begin with -")
    elif name.casefold() in RESERVED:
        problems.at(node, f"name {name!r} is reserved for clora's own adapters")
