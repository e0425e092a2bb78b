"""Every mistake of a JSONL file at its line, and what good lines become."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clora_pictures import clora_datasets, lines
from clora_pictures.dataset import PicturesDataset
from clora_pictures.rows import Asked, read_list
from PIL import Image

from clora.api import Checked, GeneralItem, HasPairs, Truth, quoted

GOOD = {"source": "a.png", "effect": "ink"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png", "../secret.png"):
        Image.new("RGB", (4, 4)).save(data / name)
    return data


def write(folder: Path, *rows: object, name: str = "effects.jsonl") -> Path:
    """A JSONL file; texts and bytes are lines as they are."""
    raw = [row if isinstance(row, bytes) else row.encode() if isinstance(row, str) else None for row in rows]
    path = folder / name
    path.write_bytes(
        b"".join((json.dumps(row).encode() if r is None else r) + b"\n" for row, r in zip(rows, raw, strict=True))
    )
    return path


def told(folder: Path, *rows: object, general: bool = False, **keys: bool) -> list[str]:
    """The sentences of `check` without the path; asking for the pictures raises the same where lines are wrong."""
    path = write(folder, *rows)
    dataset = PicturesDataset(general=path, **keys) if general else PicturesDataset(effects=path, **keys)
    found = list(dataset.check())
    assert not any("\n" in sentence for sentence in found)
    return [sentence.removeprefix(f"{path}:") for sentence in found]


def test_pictures_registers_itself():
    assert [(c.name, c.load()) for c in clora_datasets()] == [("pictures", PicturesDataset), ("jsonl", PicturesDataset)]
    dataset = PicturesDataset(effects=Path("x.jsonl"))
    assert isinstance(dataset, Checked)
    assert isinstance(dataset, HasPairs)
    assert not isinstance(dataset, Truth)


def test_pictures_needs_one_of_the_files():
    with pytest.raises(ValueError, match="give it `effects`, `general` or both"):
        PicturesDataset()


@pytest.mark.parametrize(("key", "value"), [("size", 0), ("size", 8001), ("test_share", 1.0), ("test_share", -0.1)])
def test_pictures_bounds(key, value):
    with pytest.raises(ValueError, match=key):
        PicturesDataset(effects=Path("x"), **{key: value})


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"source": "a.png" "effect": "ink"}', "1:20: not JSON: Expecting ',' delimiter"),
        ('{"source": "a.png', "1:12: not JSON: Unterminated string starting at"),
        ("[1]", "1: expected an object such as {...}, found a list"),
        ("null", "1: expected an object such as {...}, found null"),
        ("[" * 100_000, "1: not JSON that can be read: nested too deeply"),
        ("1" * 5000, "1: not JSON that can be read: a number of too many digits"),
        (b'{"source": "\xff"}', "1:13: not UTF-8: byte 0xff"),
        ('{"source": "a.png", "source": "b.png", "effect": "ink"}', "1: the key 'source' stands here twice"),
        (GOOD | {"efect": 1}, "1: unknown key 'efect'; did you mean 'effect'?"),
        (GOOD | {"zzz": 1}, "1: unknown key 'zzz'; known: source, effect, target, instruction, split"),
        (GOOD | {"image": "a.png"}, "1: 'source' and 'image' both name the source; give one of them"),
        ({"source": "a.png"}, "1: 'effect' is missing"),
        (GOOD | {"effect": 3}, "1: effect must be text, found the number 3"),
        (GOOD | {"effect": None}, "1: effect must be text, found null"),
        (GOOD | {"effect": ["ink"]}, "1: effect must be text, found a list"),
        (GOOD | {"effect": {}}, "1: effect must be text, found a map"),
        (GOOD | {"effect": " "}, "1: effect is empty"),
        (GOOD | {"instruction": ""}, "1: instruction is empty"),
        (GOOD | {"split": "tets"}, "1: split is 'tets'; it must be 'train' or 'test'"),
        (GOOD | {"effect": "\ud800"}, "1: effect holds half a character (a lone surrogate): '\\ud800'"),
        (GOOD | {"source": "c.png"}, "1: source 'c.png': there is no such picture"),
        (GOOD | {"source": "a.jpg"}, "1: source 'a.jpg': there is no such picture; did you mean 'a.png'?"),
        (GOOD | {"source": "sub"}, "1: source 'sub' is a folder"),
        (GOOD | {"target": "no/c.png"}, "1: target 'no/c.png': there is no such picture"),
        (GOOD | {"source": "a\0.png"}, "1: source 'a\\x00.png' is no usable path"),
    ],
)
def test_pictures_one_mistake_in_a_line_of_effects(folder, line, sentence):
    assert told(folder, line) == [sentence]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"source": "a.png"}, "1: 'instruction' is missing"),
        ({"instruction": "blur it"}, "1: 'source' is missing"),
        ({"image": 1, "instruction": "blur it"}, "1: image must be text, found the number 1"),
        (
            {"image": "a.png", "source": "a.png", "instruction": "x"},
            "1: 'image' and 'source' both name the source; give one of them",
        ),
        (
            {"source": "a.png", "instruction": "x", "effect": "ink"},
            "1: unknown key 'effect'; known: source, instruction, target, split",
        ),
    ],
)
def test_pictures_one_mistake_in_a_line_of_general(folder, line, sentence):
    assert told(folder, line, general=True) == [sentence]


@pytest.mark.parametrize(
    "way", ["../secret.png", "sub/../../secret.png", "{absolute}", "link.png", "linked/secret.png"]
)
def test_pictures_outside_the_folder_are_refused(folder, way):
    (folder / "link.png").symlink_to("../secret.png")
    (folder / "linked").symlink_to("..")
    way = way.replace("{absolute}", str(folder.parent / "secret.png"))
    (sentence,) = told(folder, GOOD | {"source": way})
    rest = "put the pictures beside the file or below it"
    if "link" in way:
        rest = "`follow_links: true` of the dataset follows it"
        assert told(folder, GOOD | {"source": way}, follow_links=True) == []
    by_link = " by a link" if "link" in way else ""
    assert sentence == f"1: source {quoted(way)} leads out of the file's folder{by_link}; {rest}"


def test_pictures_paths_inside_the_folder_are_one_name_each(folder):
    (folder / "link.png").symlink_to("sub/b.png")
    ways = ("sub/b.png", "./sub//b.png", "sub/../sub/b.png", str(folder / "sub/b.png"), "link.png")
    path = write(folder, *(GOOD | {"source": way, "split": "train"} for way in ways))
    assert [row.below for row in read_list(path, Asked("effects")).rows] == ["sub/b.png"] * len(ways)
    assert list(PicturesDataset(effects=path).sources("ink", "train")) == ["sub/b.png"]


def test_pictures_a_loop_of_links_is_told(folder):
    (folder / "one.png").symlink_to("two.png")
    (folder / "two.png").symlink_to("one.png")
    (sentence,) = told(folder, GOOD | {"source": "one.png"})
    assert sentence.startswith("1: source 'one.png'")


def test_pictures_all_mistakes_at_once_in_the_order_of_lines(folder):
    found = told(folder, {"source": "c.png", "effect": "ink"}, "", "{", {"source": "../secret.png", "efect": ""}, GOOD)
    assert found == [
        "1: source 'c.png': there is no such picture",
        "3:2: not JSON: Expecting property name enclosed in double quotes",
        "4: unknown key 'efect'; did you mean 'effect'?",
        "4: 'effect' is missing",
        "4: source '../secret.png' leads out of the file's folder; put the pictures beside the file or below it",
    ]


def test_pictures_asking_a_file_with_mistakes_raises_them(folder):
    path = write(folder, GOOD, {"source": "a.png"})
    with pytest.raises(ValueError, match=r"effects\.jsonl:2: 'effect' is missing"):
        PicturesDataset(effects=path).sources("ink", "train")
    with pytest.raises(ValueError, match=r"effects\.jsonl:1: 'instruction' is missing"):
        PicturesDataset(general=write(folder, {"source": "a.png"})).general("train")


@pytest.mark.parametrize("content", [b"", b"\n \n\r\n", b"\xef\xbb\xbf"])
def test_pictures_an_empty_file(folder, content):
    path = folder / "x.jsonl"
    path.write_bytes(content)
    assert list(PicturesDataset(effects=path).check()) == [f"{path}: is empty"]


def test_pictures_no_file_and_a_folder(folder):
    assert list(PicturesDataset(effects=folder / "no.jsonl").check()) == [
        f"{folder / 'no.jsonl'}: there is no such file"
    ]
    (sentence,) = PicturesDataset(general=folder / "none").check()
    assert sentence == f"{folder / 'none'}: there is no such file"


def test_pictures_a_line_too_long_does_not_hide_the_next(folder, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 64)
    assert told(folder, GOOD, {"source": "x" * 300, "effect": "ink"}, {"source": "a.png"}) == [
        "2: the line is longer than 0 MB",
        "3: 'effect' is missing",
    ]


def test_pictures_a_line_of_more_than_a_megabyte(folder):
    assert told(folder, GOOD | {"instruction": "x" * (1 << 20)}) == ["1: the line is longer than 1 MB"]


def test_pictures_a_file_too_large(folder):
    path = folder / "x.jsonl"
    with path.open("wb") as file:
        file.truncate((256 << 20) + 1)  # sparse: takes no room
    assert list(PicturesDataset(effects=path).check()) == [
        f"{path}: is larger than 256 MB; `size_limit` of the dataset raises that"
    ]


def test_pictures_many_mistakes_are_counted(folder):
    effects = write(folder, *[{"source": "a.png"}] * 30, *[GOOD | {"source": "c.png"}] * 30)
    general = write(folder, *["{"] * 70, name="general.jsonl")
    found = list(PicturesDataset(effects=effects, general=general).check())
    assert len(found) == 51
    assert found[29].endswith(":30: 'effect' is missing")
    assert found[49].startswith(f"{effects}:50: source 'c.png'")
    assert found[50] == "... and 80 more"
    found = list(PicturesDataset(general=general).check())
    assert (len(found), found[-1]) == (51, "... and 20 more")


def test_pictures_a_changed_file_is_read_again(folder):
    path = write(folder, {"source": "a.png"})
    assert list(PicturesDataset(effects=path).check())
    write(folder, GOOD)
    assert not list(PicturesDataset(effects=path).check())


def test_pictures_good_lines(folder):
    effects = write(
        folder,
        b"\xef\xbb\xbf" + json.dumps(GOOD | {"split": "train", "target": "sub/b.png"}).encode() + b"\r",
        "",
        {"source": "sub/b.png", "effect": " ink ", "split": "test", "instruction": "ink it"},
        {"source": "a.png", "effect": "wool", "split": "train"},
    )
    general = write(
        folder,
        {"image": "a.png", "instruction": "blur it", "split": "train"},
        {"source": "a.png", "instruction": "turn it", "split": "train"},
        {"source": "sub/b.png", "instruction": "日本", "split": "test"},
        name="general.jsonl",
    )
    dataset = PicturesDataset(effects=effects, general=general)
    assert list(dataset.check()) == []
    assert list(dataset.sources("ink", "train")) == ["a.png"]
    assert list(dataset.sources("ink", "test")) == ["sub/b.png"]
    assert list(dataset.sources("wool", "test")) == []
    assert list(dataset.general("train")) == [GeneralItem("a.png", "blur it"), GeneralItem("a.png", "turn it")]
    assert list(dataset.general("test")) == [GeneralItem("sub/b.png", "日本")]
    with pytest.raises(ValueError, match=r"no line of the effect 'wol'; did you mean 'wool'\?"):
        dataset.sources("wol", "train")
    with pytest.raises(ValueError, match=r"no line of the effect 'zz'; it has ink, wool"):
        dataset.sources("zz", "train")
    with pytest.raises(ValueError, match="has no `effects` file, has no line of the effect 'ink'"):
        PicturesDataset(general=general).sources("ink", "train")
    assert list(PicturesDataset(effects=effects).general("train")) == []


def test_pictures_the_split_depends_on_the_name_alone(folder):
    names = [f"sub/{i}.png" for i in range(400)]
    effects = write(folder, *({"source": name, "effect": "ink"} for name in names))
    general = write(folder, *({"image": name, "instruction": "x"} for name in reversed(names)), name="general.jsonl")
    dataset = PicturesDataset(effects=effects, general=general)
    test = set(dataset.sources("ink", "test"))
    assert test == {item.source for item in dataset.general("test")}
    assert test | set(dataset.sources("ink", "train")) == set(names)
    assert 40 < len(test) < 120
    assert {"sub/6.png", "sub/13.png"} <= test  # for ever: a run from another machine must not train on its test lines
    assert not PicturesDataset(effects=effects, test_share=0.0).sources("ink", "test")
    assert test < set(PicturesDataset(effects=effects, test_share=0.5).sources("ink", "test"))


def test_pictures_of_a_few_one_is_for_tests(folder):
    """At a share of 0.01 chance keeps none of these four for tests."""
    lines = [{"source": f"sub/{i}.png", "effect": "ink"} for i in range(4)]
    few = PicturesDataset(effects=write(folder, *lines), test_share=0.01)
    (test,) = few.sources("ink", "test")
    assert {test, *few.sources("ink", "train")} == {line["source"] for line in lines}
    assert len(few.sources("ink", "train")) == 3
    again = PicturesDataset(effects=write(folder, *reversed(lines), lines[0]), test_share=0.01)
    assert again.sources("ink", "test") == (test,)
    told = [line | {"split": "train"} for line in lines]
    assert PicturesDataset(effects=write(folder, *told), test_share=0.01).sources("ink", "test") == ()
    assert PicturesDataset(effects=write(folder, lines[0]), test_share=0.01).sources("ink", "test") == ()
    mixed = PicturesDataset(effects=write(folder, *lines[:3], lines[3] | {"split": "test"}), test_share=0.01)
    assert mixed.sources("ink", "test") == ("sub/3.png",)
