"""Links out of the folders that the recipe names: refused by name, and nothing of what they lead to is repeated."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clora_pictures.dataset import PicturesDataset
from clora_pictures.listings import Pair
from clora_teachers.bank import Bank
from PIL import Image

SECRET = "root:x:0:0:the secret"
TEACHER = "- name: ink\n  lora: ink.safetensors\n  teacher_prompt: ink it\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of data beside one that is none of it: a secret text, a list, a picture and a LoRA."""
    out = tmp_path / "out"
    for folder in (out / "source", tmp_path / "data"):
        folder.mkdir(parents=True)
    (out / "secret").write_text(f"{SECRET}\n" * 100)
    (out / "list.jsonl").write_text('{"source": "a.png"}\n')
    (out / "ink.safetensors").write_bytes(b"")
    for number, path in enumerate((out / "a.png", out / "source/a.png", tmp_path / "data/own.png")):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
    return tmp_path / "data"


def link(data: Path, name: str, target: str) -> Path:
    path = data / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(data.parent / "out" / target)
    return path


def written(data: Path, name: str, text: str) -> Path:
    path = data / name
    path.write_text(text)
    return path


def effects(place: Any) -> Callable[[bool], list[str]]:
    return lambda follow: list(PicturesDataset(effects=place, follow_links=follow, test_share=0).check())


def general(place: Any) -> Callable[[bool], list[str]]:
    return lambda follow: list(PicturesDataset(general=place, follow_links=follow, test_share=0).check())


def bank(path: Path, **keys: Path) -> Callable[[bool], list[str]]:
    return lambda follow: list(Bank(path, follow_links=follow, **keys).check())


def of_all(data: Path, name: str, target: str) -> Path:
    """A folder of all effects, one of them a link."""
    (data / "all/wool").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(data / "all/wool/a.png")
    link(data, f"all/{name}", target)
    return data / "all"


#: what is linked -> (what is read, a part of the sentence, what the sentence is once links are followed)
CASES: dict[str, tuple[Callable[[Path], Callable[[bool], list[str]]], str, str]] = {
    "a picture of a list": (
        lambda d: effects({"ink": written(link(d, "a.png", "a.png").parent, "l.jsonl", '{"source": "a.png"}')}),
        "l.jsonl:1: source 'a.png' leads out of the file's folder by a link",
        "",
    ),
    "a picture in a linked folder": (
        lambda d: effects({"ink": written(link(d, "in", ".").parent, "l.jsonl", '{"source": "in/a.png"}')}),
        "l.jsonl:1: source 'in/a.png' leads out of the file's folder by a link",
        "",
    ),
    "a picture of a folder": (
        lambda d: effects({"ink": link(d, "f/a.png", "a.png").parent}),
        "f: 'a.png' leads out of the file's folder by a link",
        "",
    ),
    "metadata.csv": (
        lambda d: effects({"ink": link(d, "metadata.csv", "secret").parent}),
        "data: 'metadata.csv' is a link that leads out of the folder",
        "metadata.csv:2: 'source' is missing",
    ),
    "metadata.json": (
        lambda d: effects({"ink": link(d, "metadata.json", "secret").parent}),
        "data: 'metadata.json' is a link that leads out of the folder",
        "metadata.json:1: expected one list [...] of objects, found 'root:x:0:0:the secre'",
    ),
    "metadata.jsonl of all effects": (
        lambda d: effects(link(d, "metadata.jsonl", "secret").parent),
        "data: 'metadata.jsonl' is a link that leads out of the folder",
        "metadata.jsonl:1:1: not JSON: Expecting value",
    ),
    "metadata.csv of a split": (
        lambda d: effects(link(d, "train/metadata.csv", "secret").parent.parent),
        "'metadata.csv' is a link that leads out of the folder",
        "metadata.csv:2: 'source' is missing",
    ),
    "a folder of sources": (
        lambda d: effects({"ink": link(d, "e/source", "source").parent}),
        "e: 'source' is a link that leads out of the folder",
        "",
    ),
    "a split's folder": (
        lambda d: effects({"ink": link(d, "e/train", "source").parent}),
        "e: 'train' is a link that leads out of the folder",
        "",
    ),
    "an effect's folder": (
        lambda d: effects(of_all(d, "ink", "source")),
        "all: 'ink' is a link that leads out of the folder",
        "",
    ),
    "a caption": (
        lambda d: general(link(d, "own.txt", "secret").parent),
        "own.txt is a link that leads out of its folder",
        "",
    ),
    "a LoRA": (
        lambda d: bank(written(link(d, "ink.safetensors", "ink.safetensors").parent, "b.yaml", TEACHER)),
        "b.yaml:2: lora 'ink.safetensors' is a link that leads out of its folder",
        "",
    ),
    "a LoRA in the LoRA folder": (
        lambda d: bank(
            written(d, "b.yaml", TEACHER), lora_folder=link(d, "loras/ink.safetensors", "ink.safetensors").parent
        ),
        "b.yaml:2: lora 'ink.safetensors' is a link that leads out of its folder",
        "",
    ),
    "a picture of a pair": (
        lambda d: bank(
            written(
                link(d, "x.png", "a.png").parent, "b.yaml", f"{TEACHER}  pairs: [[own.png, x.png]]\n"
            ).rename(d / "c.yaml"),
            lora_folder=d.parent / "out",
        ),
        "c.yaml:4: picture 'x.png' is a link that leads out of its folder",
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_a_link_out_is_refused_by_name_unless_the_recipe_follows_links(data, kind):
    made, sentence, followed = CASES[kind]
    check = made(data)
    found = check(False)
    assert any(sentence in line for line in found), found
    assert not any("x:0:0" in line or "out/" in line for line in found)
    assert any("`follow_links: true` of the " in line for line in found)
    found = check(True)
    if followed:
        assert any(followed in line for line in found), found
        assert all(line.count(SECRET) <= 1 for line in found)  # quoted short, of a hundred lines
    else:
        assert found == []


def test_followed_links_have_pictures_too(data):
    link(data, "f/a.png", "a.png")
    list_ = written(link(data, "b.png", "source/a.png").parent, "l.jsonl", '{"source": "b.png"}')
    dataset = PicturesDataset(effects={"ink": data / "f", "wool": list_}, follow_links=True, test_share=0)
    names = (*dataset.sources("ink", "train"), *dataset.sources("wool", "train"))
    assert names == ("f/a.png", "b.png")
    assert dataset.images(names).shape == (2, 3, 4, 4)


def test_what_the_recipe_itself_names_may_be_a_link(data):
    out = data.parent / "out"
    folder = link(data, "pictures", "source")
    list_ = link(data, "own.jsonl", "list.jsonl")  # paths are relative to the link's folder
    Image.new("RGB", (4, 4)).save(data / "a.png")
    for place in (folder, list_, Pair(folder)):
        dataset = PicturesDataset(effects={"ink": place}, test_share=0)
        assert list(dataset.check()) == []
        assert dataset.sources("ink", "train") == ("a.png",)
    (out / "b.yaml").write_text(TEACHER)
    (data / "ink.safetensors").write_bytes(b"")
    assert Bank(link(data, "b.yaml", "b.yaml")).cards()[0].lora == data / "ink.safetensors"
    assert Bank(written(data, "c.yaml", TEACHER), lora_folder=link(data, "loras", ".")).lora_files()


@pytest.mark.parametrize("kind", ["datasets--a--b", "models--a--b"])
def test_the_hugging_face_caches_own_links_need_no_key(data, kind):
    snapshot = data / kind / "snapshots/0123"
    (snapshot / "train").mkdir(parents=True)
    blobs = data / kind / "blobs"
    blobs.mkdir()
    Image.new("RGB", (4, 4)).save(blobs / "1", "PNG")
    (blobs / "2").write_text("file_name\na.png\n")
    (blobs / "3").write_text(TEACHER)
    (blobs / "4").write_bytes(b"")
    for name, blob in {"metadata.csv": 2, "a.png": 1, "b.yaml": 3, "ink.safetensors": 4}.items():
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    for name, blob in {"metadata.csv": 2, "a.png": 1}.items():
        (snapshot / "train" / name).symlink_to(f"../../../blobs/{blob}")
    for place in ({"ink": snapshot}, {"ink": snapshot / "train"}):
        dataset = PicturesDataset(effects=place, test_share=0)
        assert list(dataset.check()) == []
        assert dataset.images(dataset.sources("ink", "train")).shape == (1, 3, 4, 4)
    assert list(Bank(snapshot / "b.yaml").check()) == []
    (blobs / "5").symlink_to(data.parent / "out/secret")
    (snapshot / "test").mkdir()
    (snapshot / "test/metadata.csv").symlink_to("../../../blobs/5")
    (sentence,) = PicturesDataset(effects={"ink": snapshot / "test"}).check()
    assert "'metadata.csv' is a link that leads out of the folder" in sentence


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda path: os.mkfifo(path), "is no file but a named pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "is no file but a device"),
        (lambda path: path.mkdir(), "is a folder"),
    ],
)
@pytest.mark.parametrize("name", ["b.yaml", "l.jsonl", "l.json", "l.csv", "p.png", "p.txt", "c.yaml"])
def test_pipes_devices_and_folders_are_told_and_not_waited_for(data, made, words, name):
    made(data / name)
    if name == "b.yaml":
        found = list(Bank(data / name).check())
    elif name == "c.yaml":
        (data / "ink.safetensors").write_bytes(b"")
        found = list(Bank(written(data, "b.yaml", TEACHER), captions=data / name).check())
    elif name == "p.png":
        found = list(PicturesDataset(effects={"ink": written(data, "l.jsonl", '{"source": "p.png"}')}).check())
    elif name == "p.txt":
        (data / "own.png").rename(data / "p.png")
        found = list(PicturesDataset(general=data).check())
    elif words == "is a folder":  # a folder of that name is a folder of pictures
        found = [words]
    else:
        found = list(PicturesDataset(effects={"ink": data / name}).check())
    assert any(words in line or "leads out" in line for line in found), found
