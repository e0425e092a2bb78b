"""The names of other trainers' lists, in JSONL, CSV and JSON: what they mean here, and what is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clora_pictures.dataset import PicturesDataset
from PIL import Image

from clora.api import GeneralItem

OURS = {"source": "a.png", "target": "b.png", "instruction": "ink it"}
MUSUBI = {"control_path": "a.png", "image_path": "b.png", "caption": "ink it"}
DIFFSYNTH = {"edit_image": ["a.png"], "image": "b.png", "prompt": "ink it"}
SAME = [
    OURS,
    {"image": "a.png", "target": "b.png", "instruction": "ink it"},
    {"image": "a.png", "target": "b.png", "prompt": "ink it"},
    MUSUBI,
    {"control_path_0": "a.png", "image_path": "b.png", "caption": "ink it"},
    DIFFSYNTH,
    DIFFSYNTH | {"edit_image": "a.png"},
    {"kontext_images": "a.png", "image": "b.png", "prompt": "ink it"},
    {"original_image_file_name": "a.png", "file_name": "b.png", "edit_prompt": "ink it"},
    {"file_name": "b.png", "source": "a.png", "text": "ink it"},
    {"file_name": "a.png", "target": "b.png", "text": "ink it"},
    {"input_image_file_name": "a.png", "edited_image_file_name": "b.png", "edit_prompt": "ink it"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    return tmp_path


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def told(path: Path, general: bool = False) -> list[str]:
    dataset = PicturesDataset(general=path) if general else PicturesDataset(effects={"ink": path}, test_share=0)
    return [sentence.removeprefix(f"{path}:") for sentence in dataset.check()]


@pytest.mark.parametrize("line", SAME, ids=lambda line: "-".join(line))
def test_a_line_of_every_trainer_means_the_same(folder, line):
    path = write(folder / "list.jsonl", line)
    assert told(path) == []
    dataset = PicturesDataset(effects={"ink": path}, general=path, test_share=0)
    assert dataset.sources("ink", "train") == ("a.png",)
    assert dataset.pairs("ink") == ((folder / "a.png", folder / "b.png"),)
    assert dataset.general("train") == (GeneralItem("a.png", "ink it"),)


@pytest.mark.parametrize(
    "line",
    [
        {"source": "a.png"},
        {"image": "a.png"},
        {"file_name": "a.png"},
        {"control_path": "a.png"},
        {"edit_image": "a.png"},
        {"image": "a.png", "instruction": "ink it"},
    ],
    ids=lambda line: "-".join(line),
)
def test_a_line_of_a_source_alone(folder, line):
    path = write(folder / "list.jsonl", line)
    assert told(path) == []
    dataset = PicturesDataset(effects={"ink": path}, test_share=0)
    assert (dataset.sources("ink", "train"), dataset.pairs("ink")) == (("a.png",), ())


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            {"image": "a.png", "prompt": "ink it"},
            "1: 'image' beside 'prompt' is the source in our lists and the target in DiffSynth-Studio's; "
            "write 'source', or give its source as 'edit_image'",
        ),
        (
            {"image_path": "b.png", "caption": "ink it"},
            "1: 'source' is missing; 'image_path' is the target (musubi-tuner), its source is 'control_path'",
        ),
        (MUSUBI | {"control_path_1": "b.png"}, "1: 'control_path_1' is one more source; a line has one"),
        (DIFFSYNTH | {"edit_image": ["a.png", "b.png"]}, "1: edit_image lists 2 values; one is read"),
        (DIFFSYNTH | {"edit_image": []}, "1: edit_image must be text, found a list"),
        (DIFFSYNTH | {"edit_image": [3]}, "1: edit_image must be text, found the number 3"),
        (DIFFSYNTH | {"target": "b.png"}, "1: 'image' and 'target' both name the target; give one of them"),
        (OURS | {"caption": "x"}, "1: 'instruction' and 'caption' both name the instruction; give one of them"),
        (OURS | {"edit_image": "a.png"}, "1: 'source' and 'edit_image' both name the source; give one of them"),
        (OURS | {"effect": "wool"}, "1: effect is 'wool', but the recipe has this list for 'ink'"),
        ({"contol_path": "a.png", "source": "a.png"}, "1: unknown key 'contol_path'; did you mean 'control_path'?"),
        ({"control_path": "../a.png"}, "1: control_path '../a.png' leads out of the file's folder; "),
        ({"control_path": "c.png"}, "1: source 'c.png': there is no such picture"),
    ],
)
def test_what_is_ambiguous_or_twofold_is_told(folder, line, sentence):
    (found,) = told(write(folder / "list.jsonl", line))
    assert found.startswith(sentence)


def test_a_metadata_list_may_say_more_than_is_read(folder):
    more = {"seed": 3, "width": 4, "original_prompt": "a cat", "target": None}
    path = write(folder / "metadata.jsonl", {"file_name": "a.png"} | more, more)
    assert told(path) == ["2: 'source' is missing; the line has 'seed', 'width', 'original_prompt'"]
    assert len(told(write(folder / "list.jsonl", {"file_name": "a.png"} | more))) == 4


def test_a_csv_is_read_by_its_header(folder):
    path = folder / "metadata.csv"
    path.write_bytes(
        b"\xef\xbb\xbfimage,prompt,edit_image,\r\n"
        b'b.png,"ink, and more ""ink""",a.png,7\r\n\r\nb.png,,a.png,8\r\n'
    )  # fmt: skip
    assert told(path) == []
    assert told(path, general=True) == ["4: 'instruction' is missing; the line has 'image', 'edit_image'"]
    path.write_bytes(path.read_bytes().replace(b"b.png,,", b"b.png,x,"))
    dataset = PicturesDataset(general=path, test_share=0)
    assert [item.instruction for item in dataset.general("train")] == ['ink, and more "ink"', "x"]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("source,effect\na.png\na.png,ink,x\n", ["2: has 1 cells, the header 2", "3: has 3 cells, the header 2"]),
        ("source,source\na.png,a.png\n", ["1: the column 'source' stands here twice"]),
        ('source,text\na.png,"ink\n', ["2: not CSV: unexpected end of data"]),
        ("source;text\na.png;ink\n", ["2: 'source' is missing; the line has 'source;text'"]),
        ("", [" is empty"]),
        ("source\na.png\nc.png\n../a.png\n", ["3: source 'c.png': there is no such picture", "4: source '../a.png' "]),
    ],
)
def test_a_csv_with_mistakes(folder, text, sentences):
    path = folder / "list.csv"
    path.write_text(text)
    for found, sentence in zip(told(path), sentences, strict=True):
        assert found.startswith(sentence)


def test_a_csv_that_is_not_utf8(folder):
    (folder / "list.csv").write_bytes(b"source,text\na.png,ink\na.png,caf\xe9\n")
    assert told(folder / "list.csv") == ["3:10: not UTF-8: byte 0xe9"]


def test_a_json_list_is_read_with_its_lines(folder):
    path = folder / "metadata.json"
    path.write_text(json.dumps([DIFFSYNTH, MUSUBI], indent=2))
    assert told(path) == []
    assert len(PicturesDataset(effects={"ink": path}, test_share=0).pairs("ink")) == 1
    path.write_text('[\n{"edit_image": "a.png"},\n\n{"edit_image": "c.png"}, 3,\n{"source": 1}]')
    assert told(path) == [
        "4: expected an object such as {...}, found the number 3",
        "4: source 'c.png': there is no such picture",
        "5: source must be text, found the number 1",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"source": "a.png"}\n{"source": "b.png"}\n', "1: expected one list [...] of objects, found "),
        ("", "1: expected one list [...] of objects, found nothing"),
        ('[{"source": "a.png"}\n{"source": "b.png"}]', "2:1: not JSON: Expecting ',' delimiter"),
        ('[{"source": "a.png"},\n]', "2:1: not JSON: a comma before the list's end"),
        ('[{"source": "a.png"}', "1:21: not JSON: Expecting ',' delimiter"),
        ('[\n{"source": }]', "2:12: not JSON: Expecting value"),
        ('[{"source": "a.png"}]\n]', "2: more stands behind the list"),
        ('[{"source": "a.png", "source": "a.png"}]', "1: the key 'source' stands here twice"),
        ("[" * 100_000, "1: not JSON that can be read: nested too deeply"),
    ],
)
def test_a_json_list_with_a_mistake(folder, text, sentence):
    (folder / "list.json").write_text(text)
    (found,) = told(folder / "list.json")
    assert found.startswith(sentence)


def test_the_same_picture_in_both_splits_is_told(folder):
    line = {"source": "a.png"}
    path = write(folder / "list.jsonl", line | {"split": "train"}, line | {"split": "test"}, line | {"split": "train"})
    assert told(path) == ["2: 'a.png' is a test picture here, a train one in line 1; give both lines the same split"]
    assert told(write(path, line | {"split": "test"}, line)) == [
        "2: 'a.png' is a train picture here, a test one in line 1; give both lines the same split"
    ]


def test_lines_that_stand_twice_count_once(folder):
    path = write(folder / "list.jsonl", OURS, OURS, OURS | {"target": "a.png"})
    assert told(path) == []
    dataset = PicturesDataset(effects={"ink": path}, general=path, test_share=0)
    assert dataset.sources("ink", "train") == ("a.png",)
    assert dataset.general("train") == (GeneralItem("a.png", "ink it"),)
    assert [target.name for _, target in dataset.pairs("ink")] == ["b.png", "a.png"]


def test_names_of_other_letters_and_accents_are_told(folder):
    Image.new("RGB", (4, 4)).save(folder / "IMG_1.PNG")
    Image.new("RGB", (4, 4)).save(folder / "cafe\u0301.png")  # as a Mac writes it
    Image.new("RGB", (4, 4)).save(folder / "日本 #1.png")
    path = write(folder / "l.jsonl", *({"source": name} for name in ("img_1.png", "caf\u00e9.png", "日本 #1.png")))
    first, second = told(path)
    assert first == "1: source 'img_1.png': there is no such picture; did you mean 'IMG_1.PNG'?"
    assert second.endswith("is there, its accents in another Unicode form: rename one of them")


@pytest.mark.parametrize("way", ["sub\\c.png", "data/sub/c.png", "C:\\data\\sub\\c.png"])
def test_a_way_from_elsewhere_to_a_picture_that_is_there(folder, way):
    (folder / "sub").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "sub/c.png")
    assert told(write(folder / "list.jsonl", {"source": way})) == [
        f"1: source {way!r}: there is no such picture; 'sub/c.png' is there: "
        "paths are relative to the list's folder, their parts separated by /"
    ]
