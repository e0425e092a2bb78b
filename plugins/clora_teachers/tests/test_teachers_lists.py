"""Lists that other programs write: JSON and JSONL, their keys, and their mistakes at their lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from clora_teachers.bank import Bank
from clora_teachers.json_nodes import json_root
from clora_teachers.problems import Problems
from hypothesis import given, settings, strategies as st

from clora.api import EffectCard

LIST = [
    {"id": "ink", "effect_prompt": "turn it into ink \U0001f58b", "lora_path": "ink.safetensors"},
    {"id": "wool", "effect_prompt": "make it of wool", "lora_path": "wool.safetensors", "weight": 0.5},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ink", "wool"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    return tmp_path


def bank(folder: Path, text: str, name: str = "bank.json") -> Bank:
    (folder / name).write_text(text, encoding="utf-8")
    return Bank(folder / name)


def told(made: Bank) -> list[str]:
    return [sentence.removeprefix(f"{made.manifest}:") for sentence in made.check()]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bank.json", json.dumps(LIST)),
        ("bank.json", json.dumps(LIST, indent="\t")),
        ("bank.json", json.dumps(LIST, indent=2, ensure_ascii=False)),
        ("bank.JSON", json.dumps(LIST)),
        ("bank.jsonl", "\n\n".join(json.dumps(row) for row in LIST) + "\n"),
        ("bank.jsonl", "\r\n".join(json.dumps(row) for row in LIST)),
        ("bank.yaml", json.dumps(LIST, ensure_ascii=False)),
        ("bank.yaml", yaml.safe_dump(LIST, allow_unicode=True)),
        ("bank.json", "\ufeff" + json.dumps(LIST)),
    ],
)
def test_teachers_every_notation_gives_the_same_cards(folder, name, text):
    made = bank(folder, text, name)
    assert told(made) == []
    assert list(made.cards()) == [
        EffectCard("ink", folder / "ink.safetensors", "turn it into ink \U0001f58b", ""),
        EffectCard("wool", folder / "wool.safetensors", "make it of wool", "", scale=0.5),
    ]


GOOD = '{"id": "ink", "effect_prompt": "ink it", "lora_path": "ink.safetensors"'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[\n{'id': 1}]", ["2: not JSON: Expecting property name enclosed in double quotes (column 2)"]),
        (f"[\n{GOOD}}}\n", ["3: not JSON: Expecting ',' delimiter (column 1)"]),
        (f"{GOOD}}}\n{GOOD}}}", ["2: not JSON: Extra data (column 1); one object a line is JSONL, whose file ends in"]),
        (f"{GOOD}}}", ['1: a bank is a list of teachers, each a mapping that begins `[{"name": ...`']),
        ("[]", ["1: a bank is a list"]),
        ("[\n3,\nnull]", ["2: a teacher is a mapping", "3: a teacher is a mapping"]),
        (f'[{GOOD}, "scale": NaN}}]', ["1: not JSON that can be read: NaN is no number"]),
        (f'[{GOOD},\n "id": "x"}}]', ["2: the key id stands here twice"]),
        (f'[{GOOD},\n "name": "x"}}]', ["2: name is the same key as id, which stands here already"]),
        (f'[{GOOD},\n "scale": 1, "weight": 1}}]', ["2: weight is the same key as scale"]),
        (f'[{GOOD}}},\n{GOOD.replace("ink it", "x").replace("id", "name")}}}]', ["2: the name 'ink' stands in line 1"]),
        (f'[{GOOD},\n\n"caption": true}}]', ["3: caption must be text, but JSON reads 'true' as true or false"]),
        (f'[{GOOD},\n"caption": 1e3}}]', ["2: caption must be text, but JSON reads '1e3' as a number"]),
        (f'[{GOOD},\n"trigger": null}}]', ["2: trigger must be text, but JSON reads 'null' as nothing"]),
        (f'[{GOOD},\n"caption": "\\ud800 x"}}]', ["2: caption holds half a character"]),
        (f"[{GOOD.replace('ink', 'oil paint', 1)}}}]", ["1: name 'oil paint' may hold only letters"]),
        ("[" * 100_000, [" nested too deeply"]),
        ("", [" the manifest is empty"]),
    ],
)  # fmt: skip
def test_teachers_a_mistake_in_json_is_told_at_its_line(folder, text, said):
    found = told(bank(folder, text))
    assert len(found) == len(said), found
    assert all(sentence.startswith(start) for sentence, start in zip(found, said, strict=True)), found


def test_teachers_a_broken_line_of_jsonl_does_not_hide_the_others(folder):
    made = bank(folder, f'{GOOD}}}\nnonsense\n{GOOD.replace("ink", "blot", 1)}, "zzz": 1}}\n', "b.jsonl")
    first, second = told(made)
    assert first.startswith("2: not JSON: Expecting value (column 1)")
    assert second.startswith("3: unknown key 'zzz'")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def plain(node):
    """A node back as Python's values, by the tags alone."""
    if isinstance(node, yaml.SequenceNode):
        return [plain(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {plain(key): plain(value) for key, value in node.value}
    kinds = {"str": str, "int": int, "float": float, "bool": lambda word: word == "true", "null": lambda word: None}
    return kinds[node.tag.rsplit(":", 1)[-1]](node.value)


@settings(max_examples=60, deadline=None)
@given(values, st.sampled_from([None, 2, "\t"]), st.booleans())
def test_teachers_json_nodes_say_what_json_says(value, indent, ascii_only):
    problems = Problems(Path("x.json"))
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    node = json_root(text, problems)
    assert problems.found == []
    assert plain(node) == value


def test_teachers_every_node_of_json_knows_its_line():
    node = json_root('[\n {"a":\n  1},\n\n 2]', Problems(Path("x.json")))
    assert isinstance(node, yaml.SequenceNode)
    mapping, two = node.value
    ((key, value),) = mapping.value
    assert [n.start_mark.line for n in (node, mapping, key, value, two)] == [0, 1, 1, 2, 4]
