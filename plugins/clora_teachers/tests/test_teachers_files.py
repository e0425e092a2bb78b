"""What a manifest points to: LoRAs in one big folder elsewhere, pairs of pictures, and captions in their own file."""

from __future__ import annotations

from pathlib import Path

import pytest
from clora_teachers.bank import Bank
from PIL import Image

TEACHER = "- name: {name}\n  lora: {lora}\n  teacher_prompt: do it\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two folders beside one another: `bank` with a manifest's own files, `loras` with many."""
    for name in ("bank", "loras/deep", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("bank/own", "bank/both", "loras/both", "loras/ink", "loras/deep/wool", "elsewhere/x"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    for name in ("a", "b", "c", "d"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"bank/{name}.png")
    (tmp_path / "bank/text.png").write_text("no picture")
    Image.new("RGB", (8, 8)).save(tmp_path / "elsewhere/p.png")
    return tmp_path


def made(folder: Path, text: str, **keys) -> Bank:
    (folder / "bank/bank.yaml").write_text(text)
    return Bank(folder / "bank/bank.yaml", **keys)


def told(bank: Bank) -> list[str]:
    return [sentence.removeprefix(f"{bank.manifest}:") for sentence in bank.check()]


@pytest.mark.parametrize(
    ("lora", "found"),
    [
        ("own.safetensors", "bank/own"),
        ("both.safetensors", "bank/both"),  # the manifest's own folder comes first
        ("ink.safetensors", "loras/ink"),
        ("deep/wool.safetensors", "loras/deep/wool"),
        ("{folder}/loras/ink.safetensors", "loras/ink"),
        ("../loras/ink.safetensors", "loras/ink"),
    ],
)
def test_teachers_loras_may_lie_in_the_recipes_folder(folder, lora, found):
    bank = made(folder, TEACHER.format(name="x", lora=lora.format(folder=folder)), lora_folder=folder / "loras")
    assert told(bank) == []
    assert bank.cards()[0].lora == folder / f"{found}.safetensors"


@pytest.mark.parametrize("lora", ["../elsewhere/x.safetensors", "{folder}/elsewhere/x.safetensors", "link.safetensors"])
def test_teachers_a_path_out_of_both_folders_is_refused(folder, lora):
    (folder / "loras/link.safetensors").symlink_to(folder / "elsewhere/x.safetensors")
    bank = made(folder, TEACHER.format(name="x", lora=lora.format(folder=folder)), lora_folder=folder / "loras")
    (sentence,) = told(bank)
    linked = lora == "link.safetensors"  # ... of a file beside the manifest it could be the name
    words = (
        "is a link that leads out of its folder" if linked else "leads out of the manifest's folder and of lora_folder"
    )
    assert words in sentence
    with pytest.raises(ValueError, match="lora"):
        bank.cards()


def test_teachers_without_lora_folder_the_message_names_the_key(folder):
    (sentence,) = told(made(folder, TEACHER.format(name="x", lora="../loras/ink.safetensors")))
    assert "`lora_folder` of the bank" in sentence


def test_teachers_a_missing_file_is_looked_for_in_both_folders(folder):
    (sentence,) = told(made(folder, TEACHER.format(name="x", lora="inc.safetensors"), lora_folder=folder / "loras"))
    assert sentence == "2: lora 'inc.safetensors': there is no such file; did you mean ink.safetensors?"
    bank = made(folder, TEACHER.format(name="x", lora="own.safetensors"), lora_folder=folder / "lora")
    assert list(bank.check()) == [f"lora_folder {folder / 'lora'} is no folder"]


def test_teachers_pairs_in_both_notations(folder):
    pairs = (
        "  pairs:\n  - [a.png, b.png]\n  - {before: c.png, after: ../bank/d.png}\n  - {after: a.png, before: d.png}\n"
    )
    bank = made(folder, TEACHER.format(name="x", lora="own.safetensors") + pairs)
    assert told(bank) == []
    here = folder / "bank"
    ends = ("ab", "cd", "da")
    assert bank.cards()[0].pairs == tuple((here / f"{b}.png", here / f"{a}.png") for b, a in ends)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ("[]", "pairs must be a list of [before, after] pictures, not an empty list"),
        ("a.png", "pairs must be a list of [before, after] pictures, not 'a.png'"),
        ("[a.png, b.png]", "pairs must be a list of [before, after] pictures; one pair is written [[before, after]]"),
        ("[[a.png]]", "a pair is [before, after], or a mapping with the keys before and after"),
        ("[[a.png, b.png, c.png]]", "a pair is"),
        ("[{before: a.png, before: b.png}]", "a pair is"),
        ("[{before: a.png, after: b.png, x: c.png}]", "a pair is"),
        ("[{before: a.png, aftr: b.png}]", "a pair is"),
        ("[[a.png, 3]]", "a picture's path must be text, but YAML reads '3' as a number"),
        ("[[a.png, [b.png]]]", "a picture's path must be text, not a list"),
        ("[[a.png, a.png]]", "before and after of a pair are the same picture, a.png"),
        ("[[a.png, aa.png]]", "picture 'aa.png': there is no such file; did you mean a.png?"),
        ("[[a.png, ../elsewhere/p.png]]", "picture '../elsewhere/p.png' leads out of the manifest's folder"),
        ("[[a.png, text.png]]", "picture 'text.png' is not a picture that can be read"),
        ('[[a.png, "b\\0.png"]]', "picture 'b\\x00.png' is no usable path"),
    ],
)
def test_teachers_a_mistake_in_pairs(folder, pairs, said):
    bank = made(folder, TEACHER.format(name="x", lora="own.safetensors") + f"  pairs: {pairs}\n", lora_folder=folder)
    (sentence,) = told(bank)
    assert sentence.startswith(f"4: {said}"), sentence


TWO = TEACHER.format(name="ink", lora="own.safetensors") + "  caption: the manifest's\n"
TWO += TEACHER.format(name="wool", lora="both.safetensors")


def test_teachers_the_manifests_caption_wins_over_the_files(folder):
    file = folder / "captions.yaml"
    bank = made(folder, TWO, captions=file)
    assert (told(bank), [card.caption for card in bank.cards()]) == ([], ["the manifest's", ""])
    file.write_text("ink: the file's\nwool:\n  caption: >-\n    of\n    wool\nothers: of another bank\n")
    assert (told(bank), [card.caption for card in bank.cards()]) == ([], ["the manifest's", "of wool"])


def test_teachers_mistakes_in_the_captions_file_are_the_banks(folder):
    file = folder / "captions.yaml"
    file.write_text("wool: ''\nink: [a]\n")
    bank = made(folder, TWO, captions=file)
    assert list(bank.check()) == [f"{file}:1: wool: its caption is empty", f"{file}:2: ink: its caption must be text"]
    with pytest.raises(ValueError, match="is empty"):
        bank.cards()
    file.write_text("\nwol: of wool\n")
    assert list(bank.check()) == [f"{file}:2: the bank has no effect 'wol'; did you mean 'wool'?"]
