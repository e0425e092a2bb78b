"""Folders as people have them: pairs of one name, captions, imagefolder, one folder for every effect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clora_pictures import folders, listings
from clora_pictures.dataset import PicturesDataset
from clora_pictures.listings import Pair
from PIL import Image

from clora.api import GeneralItem


def pictures(folder: Path, *names: str, grey: int = 0) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), grey).save(folder / name)
    return folder


def made(effects=None, general=None) -> PicturesDataset:
    return PicturesDataset(effects=effects, general=general, test_share=0)


def told(folder: Path, effects=None, general=None) -> list[str]:
    return [sentence.replace(f"{folder}/", "") for sentence in made(effects, general).check()]


@pytest.mark.parametrize("source", ["source", "control"])
def test_folder_pairs_go_by_their_names_without_ending(tmp_path, source):
    pictures(tmp_path / "ink" / source, "a.png", "deep/b.PNG", "c.jpg", grey=10)
    pictures(tmp_path / "ink/target", "a.jpg", "deep/b.png", grey=20)
    (tmp_path / "ink/target/a.txt").write_text("ink it")
    (tmp_path / "ink" / source / ".DS_Store").write_bytes(b"\0")
    dataset = made({"ink": tmp_path / "ink"})
    assert list(dataset.check()) == []
    assert dataset.sources("ink", "train") == (f"{source}/a.png", f"{source}/c.jpg", f"{source}/deep/b.PNG")
    assert [tuple(path.relative_to(tmp_path / "ink").as_posix() for path in pair) for pair in dataset.pairs("ink")] == [
        (f"{source}/a.png", "target/a.jpg"),
        (f"{source}/deep/b.PNG", "target/deep/b.png"),
    ]
    assert dataset.images(dataset.sources("ink", "train")).shape == (3, 3, 4, 4)


def test_two_folders_anywhere_are_a_pair(tmp_path):
    pictures(tmp_path / "photos", "a.png")
    pictures(tmp_path / "wool/done", "a.webp")
    dataset = made({"wool": Pair(tmp_path / "photos", tmp_path / "wool/done"), "ink": Pair(tmp_path / "photos")})
    assert list(dataset.check()) == []
    assert dataset.sources("wool", "train") == dataset.sources("ink", "train") == ("photos/a.png",)
    assert dataset.pairs("wool") == ((tmp_path / "photos/a.png", tmp_path / "wool/done/a.webp"),)
    assert dataset.pairs("ink") == ()


def test_folder_mistakes_are_told_all_at_once(tmp_path):
    pictures(tmp_path / "ink/source", "Cat.png", "b.png", "b.jpg", "wide.png")
    pictures(tmp_path / "ink/target", "cat.png", "zzz.png")
    (tmp_path / "ink/source/words.png").write_text("these are words")
    (tmp_path / "ink/source/phone.heic").write_bytes(b"\0")
    assert told(tmp_path, {"ink": tmp_path / "ink"}) == [
        "ink/source: 'phone.heic' is of a kind that is not read; save it as PNG or JPEG",
        "ink/source: 'b.jpg' and 'b.png' have one name; keep one of them",
        "ink/source: source ink/source/words.png is not a picture that can be read",
        "ink/target: 'cat.png' has no source of that name in ink/source; did you mean 'Cat.png'?",
        "ink/target: 'zzz.png' has no source of that name in ink/source",
    ]
    with pytest.raises(ValueError, match=r"zzz\.png' has no source"):
        made({"ink": tmp_path / "ink"}).sources("ink", "train")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("target/a.png",), "x: has a folder 'target', but no 'source'; one folder holds the sources"),
        (("source/a.png", "control/a.png"), "x: has a folder 'source' and 'control'; one folder holds the sources"),
        (
            ("before/a.png", "after/a.png"),
            "x: what its folders are is not said (after, before); write {source: ..., target: ...}",
        ),
        ((), "x: has no pictures"),
    ],
)
def test_a_folder_that_does_not_say_what_it_is(tmp_path, names, sentence):
    (tmp_path / "x").mkdir()
    pictures(tmp_path / "x", *names)
    assert told(tmp_path, {"ink": tmp_path / "x"}) == [sentence]


def test_what_is_no_folder(tmp_path):
    assert told(tmp_path, {"ink": tmp_path / "none"}) == ["none: there is no such file"]
    assert told(tmp_path, {"ink": Pair(tmp_path / "none")}) == ["none: there is no such folder"]


def test_links_out_of_a_folder_are_told(tmp_path):
    pictures(tmp_path / "secret", "s.png")
    pictures(tmp_path / "x", "a.png")
    (tmp_path / "x/b.png").symlink_to("../secret/s.png")
    (tmp_path / "x/sub").symlink_to("../secret")
    assert told(tmp_path, {"ink": Pair(tmp_path / "x")}) == [
        "x: 'sub' is a linked folder; name the folder itself",
        "x: 'b.png' leads out of the file's folder by a link; `follow_links: true` of the dataset follows it",
    ]


def test_accents_pair_whatever_their_unicode_form(tmp_path):
    pictures(tmp_path / "x/source", "caf\u00e9.png")
    pictures(tmp_path / "x/target", "cafe\u0301.png")
    assert len(made({"ink": tmp_path / "x"}).pairs("ink")) == 1


def test_a_folder_with_too_many_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "MAX_FILES", 2)
    pictures(tmp_path / "x", "a.png", "b.png", "c.png")
    assert told(tmp_path, {"ink": tmp_path / "x"}) == ["x: has more than 2 pictures"]


def test_a_folder_with_captions_is_a_general_stream(tmp_path):
    pictures(tmp_path / "g", "a.png", "b.jpg")
    (tmp_path / "g/a.txt").write_bytes(b"\xef\xbb\xbfblur it,\r\n softly \n")
    (tmp_path / "g/b.txt").write_text("日本")
    pictures(tmp_path / "g/_latent_cache")
    dataset = made(general=tmp_path / "g")
    assert list(dataset.check()) == []
    assert dataset.general("train") == (GeneralItem("a.png", "blur it, softly"), GeneralItem("b.jpg", "日本"))
    (tmp_path / "g/a.txt").write_text("sharpen it")
    assert dataset.general("train")[0].instruction == "sharpen it"


def test_captions_lie_beside_the_target_or_the_source(tmp_path):
    pictures(tmp_path / "g/control", "a.png", "b.png", "c.png")
    pictures(tmp_path / "g/target", "a.jpg", "b.png", "c.png")
    for name in ("control/a", "target/b", "control/c", "target/c"):
        (tmp_path / f"g/{name}.txt").write_text("turn it")
    dataset = made(general=tmp_path / "g")
    assert [item.instruction for item in dataset.general("train")] == ["turn it"] * 3
    (tmp_path / "g/control/c.txt").write_text("turn it over")
    assert told(tmp_path, general=tmp_path / "g") == [
        "g/control: g/control/c.txt and g/target/c.txt differ; keep one of them"
    ]


def test_captions_with_mistakes(tmp_path):
    pictures(tmp_path / "g", "a.png", "b.png", "c.png", "d.png", "e.png")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "g/b.txt").write_text(" \n")
    (tmp_path / "g/c.txt").write_bytes(b"caf\xe9")
    (tmp_path / "g/d.txt").write_text("x" * 100_000)
    (tmp_path / "g/e.txt").symlink_to("../secret")
    assert told(tmp_path, general=tmp_path / "g") == [
        "g: 'a.png': its instruction is missing; write what it is to become into a.txt",
        "g: 'b.png': its instruction is empty; write what it is to become into b.txt",
        "g: g/c.txt is not UTF-8",
        "g: g/d.txt is larger than 64 KB; an instruction is a sentence or a few",
        "g: g/e.txt is a link that leads out of its folder; `follow_links: true` of the dataset follows it",
    ]


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_an_imagefolder(tmp_path, ending):
    folder = pictures(tmp_path / "x", "img/1.png", "img/2.png")
    row = {"file_name": "img/2.png", "original_image_file_name": "img/1.png", "edit_prompt": "ink it", "seed": "3"}
    text = json.dumps(row) if ending == "jsonl" else ",".join(row) + "\n" + ",".join(row.values())
    (folder / f"metadata.{ending}").write_text(text)
    dataset = made({"ink": folder}, general=folder)
    assert list(dataset.check()) == []
    assert dataset.pairs("ink") == ((folder / "img/1.png", folder / "img/2.png"),)
    assert dataset.general("train") == (GeneralItem("img/1.png", "ink it"),)
    (folder / "metadata.json").write_text("[]")
    assert told(tmp_path, {"ink": folder}) == [f"x: has metadata.{ending} and metadata.json; keep one of them"]


def test_an_imagefolder_of_two_splits(tmp_path):
    for split in ("train", "test"):
        pictures(tmp_path / "x" / split, f"{split}.png")
        (tmp_path / "x" / split / "metadata.jsonl").write_text(f'{{"file_name": "{split}.png", "effect": "ink"}}')
    for effects in ({"ink": tmp_path / "x"}, tmp_path / "x"):
        dataset = made(effects)
        assert list(dataset.check()) == []
        assert dataset.sources("ink", "train") == ("train/train.png",)
        assert dataset.sources("ink", "test") == ("test/test.png",)
    (tmp_path / "x/test/metadata.jsonl").write_text('{"file_name": "test.png", "split": "train"}')
    assert told(tmp_path, {"ink": tmp_path / "x"}) == [
        "x/test/metadata.jsonl:1: split is 'train', but the folder is 'test'"
    ]


def test_a_folder_of_all_effects(tmp_path):
    pictures(tmp_path / "all", "ink/source/a.png", "ink/target/a.png", "wool/a.png")
    dataset = made(tmp_path / "all")
    assert list(dataset.check()) == []
    assert dataset.sources("ink", "train") == ("ink/source/a.png",)
    assert dataset.sources("wool", "train") == ("wool/a.png",)
    with pytest.raises(ValueError, match=r"all has no line of the effect 'wolo'; did you mean 'wool'\?"):
        dataset.sources("wolo", "train")
    (sentence,) = told(tmp_path, tmp_path / "all/ink")
    assert sentence == "all/ink: is one effect's folder; write `effects: {the effect's name: this folder}`"


def test_effects_in_places_of_different_kinds(tmp_path):
    pictures(tmp_path / "wool", "a.png", grey=20)
    pictures(tmp_path / "lists", "a.png", grey=10)
    (tmp_path / "lists/ink.jsonl").write_text('{"source": "a.png"}\n')
    dataset = made({"ink": tmp_path / "lists/ink.jsonl", "wool": tmp_path / "wool"})
    names = [*dataset.sources("ink", "train"), *dataset.sources("wool", "train")]
    assert names == ["lists/a.png", "wool/a.png"]
    assert ((dataset.images(names)[:, 0, 0, 0] + 1) * 127.5).round().tolist() == [10, 20]
    with pytest.raises(ValueError, match=r"`effects` has no line of the effect 'inc'; did you mean 'ink'\?"):
        dataset.sources("inc", "train")


def test_a_changed_folder_is_read_again(tmp_path):
    dataset = made({"ink": pictures(tmp_path / "x", "a.png")})
    assert len(dataset.sources("ink", "train")) == 1
    before = listings._read.cache_info().misses
    assert len(dataset.sources("ink", "train")) == 1
    assert listings._read.cache_info().misses == before
    pictures(tmp_path / "x", "b.png")
    assert len(dataset.sources("ink", "train")) == 2
