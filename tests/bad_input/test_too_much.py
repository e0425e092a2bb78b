"""Lists, banks, captions and folders that are too much: refused with the limit, and never quadratic.

What is twice as large costs at most a little more than twice the calls. What C code does in one call is not counted,
so that every input is large enough to take minutes if that were quadratic, and the suite would be seen to hang.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from clora_pictures.dataset import PicturesDataset
from clora_teachers.bank import Bank
from PIL import Image

from clora.api import CaptionsError, read_captions

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

#: what a message may have at most, whatever the file holds
LONGEST = 700


def calls_of(work: Callable[[], object]) -> int:
    """How often Python functions and functions in C are called meanwhile."""
    count = 0

    def counted(frame: object, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def told_by_captions(path: Path) -> list[str]:
    try:
        read_captions(path)
    except CaptionsError as error:
        return str(error).splitlines()
    return []


def each(text: str, before: str = "", after: str = "") -> Callable[[int], str]:
    """The text so many times, the number of each in place of `#`."""
    return lambda count: before + "".join(text.replace("#", str(i)) for i in range(count)) + after


GOOD = '{"id": "ink", "effect_prompt": "ink it", "lora_path": "ink.safetensors"'
SOURCE = '{"source": "a.png"}'
#: what the file is: its name, its text for a size, and a size
GROWING = {
    "a bank in YAML": ("b.yaml", each("- name: e#\n  lora: x\n"), 1000),
    "good teachers": ("b.yaml", each("- name: e#\n  lora: ink.safetensors\n  teacher_prompt: p\n"), 300),
    "one key for ever": ("b.yaml", each("  name: a\n", "- name: a\n"), 5000),
    "unknown keys": ("b.json", each(', "k#": 1', f"[{GOOD}", "}]"), 5000),
    "a bank of numbers": ("b.json", each("3,", "[", "3]"), 8000),
    "a bank of line ends": ("b.json", each("\n", "[", "3]"), 200_000),
    "a bank in lines": ("b.jsonl", each(f"{GOOD}}}\n"), 300),
    "a bank of broken lines": ("b.jsonl", each("x\n"), 50_000),
    "missing files": ("b.yaml", each("- name: e#\n  lora: x#.safetensors\n  teacher_prompt: p\n"), 200),
    "a captions file": ("c.yaml", each("e#: words of it\n"), 1000),
    "one caption for ever": ("c.yaml", each("a: words\n"), 2000),
    "a caption of unknown keys": ("c.yaml", each("  k#: x\n", "a:\n"), 1000),
    "a list in lines": ("l.jsonl", each(f"{SOURCE}\n"), 300),
    "a line of one key": ("l.jsonl", each('"k": 1, ', "{", '"source": "a.png"}'), 50_000),
    "a line of keys twice": ("l.jsonl", each('"k#": 1, "k#": 1, ', "{", '"s": 1}'), 20_000),
    "a line of unknown keys": ("l.jsonl", each('"k#": 1, ', "{", '"s": 1}'), 20_000),
    "lines of unknown keys": ("l.jsonl", each('{"sorce": "a.png", "kk": 1}\n'), 300),
    "a list of missing pictures": ("l.jsonl", each('{"source": "x#.png"}\n'), 300),
    "a JSON list": ("l.json", each(f"{SOURCE},\n", "[", f"{SOURCE}]"), 300),
    "a JSON list of space": ("l.json", each(" \n", "[", f"{SOURCE}]"), 200_000),
    "a CSV": ("l.csv", each("a.png\n", "source\n"), 300),
    "a CSV of columns": ("l.csv", each("k#,", "", "source\na.png"), 50_000),
    "a CSV of one column": ("l.csv", each("source,", "", "source\na.png"), 50_000),
    "a long path": ("l.jsonl", each("a/", '{"source": "', '"}'), 100_000),
}


def told(folder: Path, name: str, text: str) -> list[str]:
    """What is said of a file by whoever reads it."""
    path = folder / name
    path.write_text(text)
    if name.startswith("b."):
        return list(Bank(path).check())
    if name.startswith("c."):
        return told_by_captions(path)
    return list(PicturesDataset(effects={"ink": path}, test_share=0).check())


@pytest.fixture
def session(tmp_path: Path) -> Path:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "ink.safetensors").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("kind", GROWING)
def test_twice_the_size_is_no_more_than_twice_the_work(session, kind):
    name, made, size = GROWING[kind]
    found: list[list[str]] = []
    told(session, name, made(4))  # imports and caches
    once, twice = (calls_of(lambda n=n: found.append(told(session, name, made(n)))) for n in (size, 2 * size))
    assert twice < 2.5 * once + 2000, f"{once} calls, then {twice}"
    assert all(len(lines) <= 52 for lines in found)
    assert all(len(line) < LONGEST and line.isprintable() for lines in found for line in lines)


@pytest.mark.parametrize("kind", ["effects in one list", "a folder for each", "a place for each"])
def test_twice_as_many_effects_are_no_more_than_twice_the_work(tmp_path, kind):
    def asked(count: int) -> None:
        root = tmp_path / f"{kind} {count}"
        root.mkdir()
        Image.new("RGB", (4, 4)).save(root / "a.png")
        if kind == "effects in one list":
            lines = (f'{{"source": "a.png", "effect": "e{i}", "split": "train"}}\n' for i in range(count))
            (root / "l.jsonl").write_text("".join(lines))
            dataset = PicturesDataset(effects=root / "l.jsonl")
        else:
            for i in range(count):
                (root / f"all/e{i}").mkdir(parents=True)
                os.link(root / "a.png", root / f"all/e{i}/a.png")
            each = {f"e{i}": root / f"all/e{i}" for i in range(count)}
            dataset = PicturesDataset(effects=root / "all" if kind == "a folder for each" else each)

        def work() -> None:
            for i in range(count):
                assert len(dataset.sources(f"e{i}", "train")) == 1
            if kind == "effects in one list":
                dataset.images(["a.png"] * count)

        counts.append(calls_of(work))

    counts: list[int] = []
    asked(100)
    asked(200)
    assert counts[1] < 2.5 * counts[0], counts


def test_pairs_of_folders_that_do_not_meet_cost_no_more_than_twice(tmp_path):
    counts = []
    for count in (300, 600):
        for side in ("source", "target"):
            (tmp_path / f"{count}/{side}").mkdir(parents=True)
            for i in range(count):
                (tmp_path / f"{count}/{side}/{side}{i}.png").write_bytes(b"x")
        dataset = PicturesDataset(effects={"ink": tmp_path / f"{count}"})
        counts.append(calls_of(lambda dataset=dataset: list(dataset.check())))
    assert counts[1] < 2.5 * counts[0] + 2000, counts


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("b.yaml", "- " * 100 + "x", ": nested too deeply: more than 64 levels"),
        ("b.yaml", "- x\n" * 4001, ": has more than 4,000 values and keys; `size_limit` of the bank raises that"),
        ("b.yaml", "#" * (4 << 20) + "#", ": the manifest is larger than 4 MB; `size_limit` of the bank raises that"),
        ("b.json", f"[{','.join('3' * 4001)}]", ": has more than 4,000 values and keys; `size_limit` of the bank"),
        ("b.jsonl", '{"a": [1, 2, 3]}\n' * 800, ": has more than 4,000 values and keys; `size_limit` of the"),
        ("b.json", "[" * 1500, ": nested too deeply: more than 64 levels"),
        ("b.json", f'[{{"scale": {"9" * 5000}}}]', ":1: not JSON that can be read: a number of 5,000 digits"),
        ("b.yaml", f"- name: x\n  scale: {'9' * 5000}", ":2: scale must be a number other than 0, not '9999"),
        ("b.yaml", f"- name: {'x' * 300}", ":1: name has 300 characters; at most 100 are read"),
        ("b.yaml", f"- teacher_prompt: {'x' * 1_000_000}", ":1: teacher_prompt has 1,000,000 characters; "),
        ("b.json", '[{"caption": "a\\u0000b"}]', ":1: caption holds a control character, \\x00"),
        ("b.json", '[\n{"caption": "a\\u001b[2Jb"}]', ":2: caption holds a control character, \\x1b"),
        ("b.json", '[{"caption": "a\\u202eb"}]', ":1: caption holds a character that turns the direction of "),
        ("b.json", '[{"caption": "a\\ud800b"}]', ":1: caption holds half a character (a lone surrogate)"),
        ("b.yaml", f"- pairs: [{'[a, b], ' * 1001}]", ":1: pairs has 1,001 pairs; at most 1,000 are read"),
        ("c.yaml", "#" * (4 << 20) + "#", ": the captions file is larger than 4 MB; the bank's manifest"),
        ("c.yaml", f"a: &a [{'x, ' * 99}]\nb: &b [{'*a, ' * 99}]\nc: [{'*b, ' * 99}]", ":3: has more than 200,000"),
        ("c.yaml", f"{'x' * 300}: words", ":1: the effect's name '" + "x" * 60 + "' (240 more characters) has 300"),
        ("c.yaml", f"a: {'x' * 20_000}", ":1: a: its caption has 20,000 characters; at most 10,000 are read"),
        ("c.yaml", 'a:\n  caption: "\\e[2J"', ":2: a: caption holds a control character, \\x1b"),
        ("c.yaml", '"a\\u202e": words', ":1: the effect's name 'a\\u202e' holds a character that turns the direction"),
        ("l.jsonl", f'{{"source": "a.png", "k": {"[" * 100_000}', ":1: not JSON that can be read: nested too deeply"),
        ("l.jsonl", f'{{"source": "a.png", "k": {"9" * 5000}}}', ":1: not JSON that can be read: a number of too many"),
        ("l.jsonl", "x" * (3 << 20), ":1: the line is longer than 1 MB"),
        ("l.jsonl", '{"source": "a.png", "instruction": "a\\u0007"}', ":1: instruction holds a control character"),
        ("l.jsonl", json.dumps({"source": "a.png", "effect": "x" * 300}), ":1: effect has 300 characters; at most 100"),
        ("l.jsonl", json.dumps({"source": "a.png", "instruction": "x" * 20_000}), ":1: instruction has 20,000 "),
        ("l.json", '[{"source": "a.png", "k": "' + "x" * (2 << 20) + '"}]', ":1: the object is longer than 1 MB; what"),
        ("l.json", '[{"source": "a.png", "k": ' + "[" * 100 + "]" * 100 + "}]", ":1: not JSON that can be read: "),
        ("l.json", '["' + "x" * (2 << 20) + '"]', ":1: the object is longer than 1 MB; what follows was not read"),
        ("l.csv", "source\n" + "x" * 200_000, ":2: not CSV: field larger than field limit (131072)"),
        ("l.csv", 'source\n"' + "x" * (2 << 20) + '"', ":2: the line is longer than 1 MB"),
        ("l.csv", "source\n" + '"\n","\n",' * 700_000, "not CSV: a row is longer than 2 MB"),
        ("l.csv", ",".join(f"k{i}" for i in range(1001)), ":1: has 1,001 columns; at most 1,000 are read"),
    ],
)  # fmt: skip
def test_what_is_too_much_is_refused_with_the_limit(session, monkeypatch, name, text, sentence):
    monkeypatch.setattr("clora_teachers.manifest.NODES_A_MEGABYTE", 1000)
    found = told(session, name, text)
    assert any(sentence in line for line in found), [line[:300] for line in found]
    assert all(len(line) < LONGEST and line.isprintable() for line in found)
    assert len(found) <= 52


def test_limits_are_raised_by_the_recipes_key(session, monkeypatch):
    monkeypatch.setattr("clora_teachers.manifest.NODES_A_MEGABYTE", 500)
    (session / "b.yaml").write_text("- x\n" * 2001)
    (first, *_) = Bank(session / "b.yaml", size_limit=5).check()
    assert first == f"{session}/b.yaml:1: a teacher is a mapping with the keys name, lora, teacher_prompt"
    path = session / "l.jsonl"
    path.write_bytes(b'{"source": "a.png"}\n' + b" \n" * (1 << 19) + b"\n")
    assert list(PicturesDataset(effects={"ink": path}, size_limit=1).check()) == [
        f"{path}: is larger than 1 MB; `size_limit` of the dataset raises that"
    ]
    assert list(PicturesDataset(effects={"ink": path}, size_limit=2, test_share=0).check()) == []


def test_a_list_of_very_many_lines_is_refused(session, monkeypatch):
    monkeypatch.setattr("clora_pictures.rows.MAX_ROWS", 10)
    assert told(session, "l.jsonl", '{"source": "a.png"}\n' * 10) == []
    assert told(session, "l.jsonl", '{"source": "a.png"}\n' * 15) == [
        f"{session}/l.jsonl:11: has more than 10 lines; split it: `effects` takes a list for each effect"
    ]


def test_folders_inside_one_another_and_names_without_end_are_refused(tmp_path, monkeypatch):
    deep = tmp_path / "x" / "/".join("d" * 60)
    deep.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "x/a.png")
    Image.new("RGB", (4, 4)).save(deep / "b.png")
    from clora_pictures import folders
    from clora_pictures.listings import Pair

    dataset = PicturesDataset(effects={"ink": Pair(tmp_path / "x")}, test_share=0)
    assert list(dataset.check()) == [f"{tmp_path}/x: has more than 40 folders inside one another"]
    monkeypatch.setattr(folders, "MAX_NAMES", 30)
    assert list(dataset.check())[-1].endswith("more than 40 folders inside one another")
    for number in range(31):
        (tmp_path / f"x/{number}.log").write_bytes(b"")
    assert f"{tmp_path}/x: has more than 30 names" in list(dataset.check())
