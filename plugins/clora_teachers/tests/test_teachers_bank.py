"""The bank: cards from a good manifest, and every mistake of a bad one at its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from clora_teachers import clora_teachers
from clora_teachers.bank import Bank

from clora.api import Checked, EffectCard

GOOD = """\
- name: ink
  lora: ink.safetensors
  teacher_prompt: turn it into ink
  caption: redraw it in ink
- name: wool
  lora: sub/wool.safetensors
  teacher_prompt: make it of wool
  caption: rebuild it from wool
  scale: 0.5
  trigger: <wool_1>
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bank = tmp_path / "bank"
    (bank / "sub").mkdir(parents=True)
    for name in ("ink.safetensors", "sub/wool.safetensors", "old.pt"):
        (bank / name).write_bytes(b"")
    (tmp_path / "secret.safetensors").write_bytes(b"")
    return bank


def write(folder: Path, text: str | bytes) -> Bank:
    path = folder / "bank.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Bank(path)


def problems(folder: Path, text: str | bytes) -> list[str]:
    """The bank's sentences without the path; `cards()` says the same."""
    bank = write(folder, text)
    found = list(bank.check())
    with pytest.raises(ValueError, match=r".") as error:
        bank.cards()
    assert str(error.value) == "\n".join(found)
    assert all(sentence.startswith(f"{bank.manifest}:") for sentence in found)
    assert not any("\n" in sentence for sentence in found)
    return [sentence.removeprefix(f"{bank.manifest}:") for sentence in found]


def entry(**changes: str | None) -> str:
    keys = {"name": "ink", "lora": "ink.safetensors", "teacher_prompt": "ink it", "caption": "redraw it"} | changes
    return "- " + "\n  ".join(f"{key}: {value}" for key, value in keys.items() if value is not None) + "\n"


def test_teachers_bank_registers_itself():
    assert [(c.name, c.load()) for c in clora_teachers()] == [("bank", Bank)]
    assert isinstance(Bank(Path("x.yaml")), Checked)


def test_teachers_cards_of_a_good_manifest(folder):
    bank = write(folder, GOOD)
    assert list(bank.check()) == []
    assert list(bank.cards()) == [
        EffectCard("ink", folder / "ink.safetensors", "turn it into ink", "redraw it in ink"),
        EffectCard(
            "wool",
            folder / "sub/wool.safetensors",
            "make it of wool",
            "rebuild it from wool",
            scale=0.5,
            trigger="<wool_1>",
        ),
    ]


def test_teachers_scale_of_the_bank_multiplies_each_teachers(folder):
    assert [card.scale for card in Bank(write(folder, GOOD).manifest, scale=2.0).cards()] == [2.0, 1.0]
    with pytest.raises(ValueError, match="scale"):
        Bank(Path("x"), scale=0)


def test_teachers_a_relative_manifest_gives_whole_paths(folder, monkeypatch):
    write(folder, GOOD)
    monkeypatch.chdir(folder)
    assert all(card.lora.is_absolute() for card in Bank(Path("bank.yaml")).cards())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher_prompt": None}, "1: this teacher lacks teacher_prompt"),
        ({"capton": "x", "caption": None}, "4: unknown key 'capton'; did you mean 'caption'?"),
        ({"lora_pth": "x"}, "5: unknown key 'lora_pth'; did you mean 'lora_path'?"),
        ({"id": "x"}, "5: id is the same key as name, which stands here already"),
        (
            {"zzz": "1"},
            "5: unknown key 'zzz'; a teacher's keys are name, lora, teacher_prompt, caption, scale, strength, trigger",
        ),
        ({"[a]": "1"}, "5: a key must be a word; a teacher's keys are"),
        ({"caption": "''"}, "4: caption is empty"),
        ({"caption": "no"}, "4: caption must be text, but YAML reads 'no' as true or false; put it in quotes"),
        ({"name": "3"}, "1: name must be text, but YAML reads '3' as a number; put it in quotes"),
        ({"caption": "~"}, "4: caption must be text, but YAML reads '~' as nothing"),
        ({"caption": "[a, b]"}, "4: caption must be text, not a list"),
        ({"caption": "!!python/object:os.system x"}, "4: caption must be text, but YAML reads 'x' as a tag:yaml.org"),
        (
            {"name": "a/b"},
            "1: name 'a/b' may hold only letters, digits, _ and -, and must not begin with -; 'a_b' would do",
        ),
        ({"name": "'-'"}, "1: name '-' may hold only letters, digits, _ and -, and must not begin with -"),
        ({"name": "a.b"}, "1: name 'a.b' may hold only letters"),
        ({"name": "Student"}, "1: name 'Student' is reserved for clora's own adapters; 'Student_effect' would do"),
        ({"scale": "strong"}, "5: scale must be a number other than 0, not 'strong'"),
        ({"scale": "true"}, "5: scale must be a number other than 0, not 'true'"),
        ({"scale": "0"}, "5: scale must be a number"),
        ({"scale": ".nan"}, "5: scale must be a number"),
        ({"scale": "inf"}, "5: scale must be a number"),
        ({"scale": "{a: 1}"}, "5: scale must be a number other than 0, not a mapping"),
        (
            {"strength": "trained"},
            "5: strength must be file, header, or a number from 1e-06 to 1e+06, or its negative; not",
        ),
        ({"strength": "1e300"}, "5: strength must be file, header, or a number from 1e-06"),
        ({"strength": "1e-9"}, "5: strength must be file, header, or a number from 1e-06"),
        ({"strength": ".nan"}, "5: strength must be file, header, or a number from 1e-06"),
        ({"strength": "9" * 5000}, "5: strength must be file, header, or a number from 1e-06"),
        ({"strength": "[file]"}, "5: strength must be file, header, or a number from 1e-06"),
        (
            {"lora": "inkk.safetensors"},
            "2: lora 'inkk.safetensors': there is no such file; did you mean ink.safetensors?",
        ),
        ({"lora": "old.pt"}, "2: lora 'old.pt' is no .safetensors file"),
        ({"lora": "sub"}, "2: lora 'sub' is no .safetensors file"),
        ({"lora": "../secret.safetensors"}, "2: lora '../secret.safetensors' leads out of the manifest's folder"),
        ({"lora": "sub/../../secret.safetensors"}, "2: lora 'sub/../../secret.safetensors' leads out"),
        ({"lora": "/etc/x.safetensors"}, "2: lora '/etc/x.safetensors' leads out"),
        ({"caption": '"\\ud800 half"'}, "4: not YAML: found invalid Unicode character escape code"),
        ({"lora": '"a\\0.safetensors"'}, "2: lora 'a\\x00.safetensors' is no usable path"),
    ],
)
def test_teachers_one_mistake_is_one_sentence_at_its_line(folder, changes, said):
    found = problems(folder, entry(**changes))
    assert any(sentence.startswith(said) for sentence in found), found
    assert len(found) == 1


def test_teachers_scale_in_exponent_form_is_a_number(folder):
    assert write(folder, entry(scale="5e-1")).cards()[0].scale == 0.5


def test_teachers_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(folder):
    (folder / "out.safetensors").symlink_to(folder.parent / "secret.safetensors")
    (folder / "in.safetensors").symlink_to(folder / "ink.safetensors")
    (found,) = problems(folder, entry(lora="out.safetensors"))
    assert "leads out" in found
    assert write(folder, entry(lora="in.safetensors")).cards()[0].lora == folder / "ink.safetensors"


def test_teachers_a_loop_of_links_is_refused(folder):
    (folder / "loop.safetensors").symlink_to(folder / "loop.safetensors")
    (found,) = problems(folder, entry(lora="loop.safetensors"))
    assert "loop.safetensors" in found


def test_teachers_names_and_triggers_that_stand_twice(folder):
    text = entry(trigger="zap") + entry(name="INK", trigger="<x>") + entry(name="b", trigger="Zap")
    assert problems(folder, text) == [
        "6: the name 'INK' stands in line 1 already",
        "15: the trigger 'Zap' stands in line 5 already",
    ]


def test_teachers_all_mistakes_are_told_at_once(folder):
    text = "- 3\n" + entry(lora="gone.safetensors", scale="x") + entry(name="a b", teacher_prompt=None)
    assert [sentence.split(":")[0] for sentence in problems(folder, text)] == ["1", "3", "6", "7", "7"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", " the manifest is empty"),
        ("# nothing", " the manifest is empty"),
        ("a: 1", "1: a bank is a list"),
        ("[]", "1: a bank is a list"),
        ("- name: x\n  lora: [", "2: not YAML"),
        ("- name: x\n   bad: y: z", "2: not YAML"),
        ("- &a x\n- *b", "2: not YAML"),
        (b"\xff\xfe\xff", " the manifest is not text"),
        ("- a\x07", " not YAML"),
        ("[" * 50_000, " nested too deeply"),
        (entry() + "  caption: again\n", "5: the key caption stands here twice"),
    ],
)
def test_teachers_a_manifest_that_is_no_list(folder, text, said):
    (found,) = problems(folder, text)
    assert found.startswith(said)


def test_teachers_a_manifest_that_is_missing_or_huge(folder, tmp_path):
    bank = Bank(tmp_path / "no.yaml")
    assert list(bank.check()) == [f"{tmp_path / 'no.yaml'}: there is no such manifest"]
    assert problems(folder, "#" * ((4 << 20) + 1)) == [
        " the manifest is larger than 4 MB; `size_limit` of the bank raises that"
    ]


def test_teachers_aliases_are_not_multiplied(folder):
    # ten levels of ten aliases: 10^10 items if anything expanded them
    lines = ["- &a0 [x]"] + [f"- &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 11)]
    assert problems(folder, "\n".join(lines)) == [
        " has more than 200,000 values and keys (what aliases repeat is counted each time); `size_limit` of the bank "
        "raises that"
    ]
    assert len(problems(folder, "\n".join(lines[:5]))) == 5  # ten thousand items are few


def test_teachers_strength_says_whose_word_counts(folder):
    for said, strength in (("file", "file"), ("header", "header"), ("0.03125", 0.03125), ("-1e-1", -0.1)):
        (card,) = write(folder, entry(strength=said)).cards()
        assert (card.strength, card.scale) == (strength, 1.0)
    assert write(folder, entry()).cards()[0].strength is None
