"""One teacher of a manifest, every key checked."""

from __future__ import annotations

import re
from math import isfinite
from pathlib import Path
from typing import Literal

import yaml
from attrs import frozen

from clora.api import EffectCard, hint, quoted
from clora_teachers.paths import Folders, read_lora, read_pairs
from clora_teachers.problems import Problems, kind, word

REQUIRED = ("name", "lora", "teacher_prompt")
KEYS = (*REQUIRED, "caption", "scale", "strength", "trigger", "pairs")
#: how other programs' lists call the same things
ALIASES = {"id": "name", "lora_path": "lora", "effect_prompt": "teacher_prompt", "weight": "scale"}
#: a file's own strength is alpha / rank: no trainer makes one beyond these; and the letters that a number may have
LEAST_STRENGTH, MOST_STRENGTH, MOST_DIGITS = 1e-6, 1e6, 40
#: names of the adapters that a run makes itself
RESERVED = frozenset({"base", "critic", "default", "ema", "student"})


@frozen(eq=False)
class Entry:
    """An entry's texts and nodes by key, its LoRA file where there is one, and its card where nothing is wrong."""

    words: dict[str, str]
    nodes: dict[str, yaml.Node]
    lora: Path | None
    card: EffectCard | None


def read_entry(node: yaml.Node, folders: Folders, problems: Problems) -> Entry | None:
    """One item of the list; None where it is no mapping."""
    if not isinstance(node, yaml.MappingNode):
        problems.at(node, f"a teacher is a mapping with the keys {', '.join(REQUIRED)}")
        return None
    before = len(problems.found)
    nodes = _nodes(node, problems)
    missing = [key for key in REQUIRED if key not in nodes]
    if missing:
        problems.at(node, f"this teacher lacks {', '.join(missing)}")
    texts = (key for key in nodes if key not in ("scale", "strength", "pairs"))
    words = {key: text for key in texts if (text := word(key, nodes[key], problems)) is not None}
    scale = _scale(nodes["scale"], problems) if "scale" in nodes else 1.0
    strength = _strength(nodes["strength"], problems) if "strength" in nodes else None
    lora = read_lora(words["lora"], nodes["lora"], folders, problems) if "lora" in words else None
    pairs = read_pairs(nodes["pairs"], folders, problems) if "pairs" in nodes else ()
    if "name" in words:
        _check_name(words["name"], nodes["name"], problems)
    if lora is None or scale is None or len(problems.found) > before:
        return Entry(words, nodes, lora, None)
    card = EffectCard(
        words["name"],
        lora,
        words["teacher_prompt"],
        words.get("caption", ""),
        scale=scale,
        trigger=words.get("trigger"),
        pairs=pairs,
        strength=strength,
    )
    return Entry(words, nodes, lora, card)


def _nodes(node: yaml.MappingNode, problems: Problems) -> dict[str, yaml.Node]:
    """The values of the known keys under our names for them; unknown and repeated keys are noted."""
    found: dict[str, yaml.Node] = {}
    spelt: dict[str, str] = {}
    for key_node, value in node.value:
        if problems.full:
            break
        given = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        key = None if given is None else ALIASES.get(given, given)
        if given is None or key is None:
            problems.at(key_node, f"a key must be a word; a teacher's keys are {', '.join(KEYS)}")
        elif key not in KEYS:
            near = hint(given, (*KEYS, *ALIASES))
            meant = near if "did you mean" in near else f"; a teacher's keys are {', '.join(KEYS)}"
            problems.at(key_node, f"unknown key {quoted(given)}{meant}")
        elif key not in found:
            found[key], spelt[key] = value, given
        elif spelt[key] == given:
            problems.at(key_node, f"the key {given} stands here twice")
        else:
            problems.at(key_node, f"{given} is the same key as {spelt[key]}, which stands here already")
    return found


def _scale(node: yaml.Node, problems: Problems) -> float | None:
    """A finite number other than 0, or None with the mistake noted."""
    number: float | None = None
    if isinstance(node, yaml.ScalarNode) and not node.tag.startswith("tag:yaml.org,2002:bool"):
        try:
            number = float(node.value)  # takes 1e-1 too, which YAML 1.1 reads as text
        except ValueError:
            number = None
    if number is None or not isfinite(number) or number == 0:
        said = quoted(node.value) if isinstance(node, yaml.ScalarNode) else kind(node)
        problems.at(node, f"scale must be a number other than 0, not {said}")
        return None
    return number


def _strength(node: yaml.Node, problems: Problems) -> Literal["file", "header"] | float | None:
    """Whose word counts for the file's own strength, or a number in its place; None with the mistake noted."""
    text = node.value if isinstance(node, yaml.ScalarNode) else None
    if text == "file" or text == "header":
        return text
    try:
        number = float(text) if text is not None and len(text) <= MOST_DIGITS else 0.0
    except ValueError:
        number = 0.0
    if LEAST_STRENGTH <= abs(number) <= MOST_STRENGTH:
        return number
    said = quoted(text) if text is not None else kind(node)
    bounds = f"from {LEAST_STRENGTH:g} to {MOST_STRENGTH:g}, or its negative"
    problems.at(node, f"strength must be file, header, or a number {bounds}; not {said}")
    return None


def _check_name(name: str, node: yaml.Node, problems: Problems) -> None:
    """A name becomes an adapter, a file and a column: letters, digits, _ and -, and none that a run uses itself."""
    if not re.fullmatch(r"\w[\w-]*", name):
        possible = re.sub(r"[^\w-]+", "_", name).strip("_-")
        instead = f"; {quoted(possible)} would do" if possible else ""
        said = f"name {quoted(name)} may hold only letters, digits, _ and -, and must not begin with -"
        problems.at(node, said + instead)
    elif name.casefold() in RESERVED:
        instead = quoted(f"{name}_effect")
        problems.at(node, f"name {quoted(name)} is reserved for clora's own adapters; {instead} would do")
