"""Words on the command line that nobody means: refused in one line by every command, with nothing imported for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clora import cli

RECIPE = str(Path(__file__).parents[2] / "recipes/quickstart.yaml")
HALF = os.fsdecode(b"caf\xe9")  # what Python makes of an argument that is not UTF-8
LONG = "x" * 300
DEEP = "/".join(["d" * 200] * 30)

#: a command with a place for the hostile word
PLACES = [
    ["run", "{}"],
    ["run", RECIPE, "--with", "{}"],
    ["run", RECIPE, "--set", "{}"],
    ["validate", "{}"],
    ["show", "{}"],
    ["prepare", "{}"],
    ["caption", "{}"],
    ["inspect", "{}"],
    ["inspect", "x.safetensors", "--backbone", "{}"],
    ["inspect", "x.safetensors", "--recipe", "{}"],
    ["sample", "{}", "--effect", "clay", "--image", "x.png"],
    ["evaluate", "{}"],
    ["extend", "{}", "--bank", "bank.yaml"],
    ["export", "{}"],
    ["compare", "{}"],
]


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that must refuse its words says on stderr."""
    try:
        code = cli.main(words)
    except SystemExit as stop:  # argparse's own refusal
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2, (words, out, err)
    assert "Traceback" not in out + err
    assert all(letter.isprintable() or letter == "\n" for letter in out + err), (words, err)
    return err or out  # `inspect` tells of a file that cannot be used in its report


@pytest.mark.parametrize("place", PLACES, ids=" ".join)
@pytest.mark.parametrize("word", [HALF, "a\0b", LONG, DEEP, "\x1b[31m", "y" * 200_000], ids=lambda word: repr(word[:8]))
def test_every_command_refuses_a_word_that_is_no_path_in_few_words(place, word, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    err = told([part.replace("{}", word) for part in place], capsys)
    assert all(len(line) < 1500 for line in err.splitlines()), err[:3000]
    assert err.count("\n") <= 5
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sample", "r", "--image", "x.png", "--seed", "9" * 5000], "expected a whole number from 0 to"),
        (["sample", "r", "--image", "x.png", "--seed", "-1"], "expected a whole number from 0 to"),
        (["sample", "r", "--image", "x.png", "--seed", "1.5"], "expected a whole number from 0 to"),
        (["sample", "r", "--image", "x.png", "--seed", "\u0663\u06f3x"], "expected a whole number from 0 to"),
        (["sample", "r", "--image", "x.png", "--instruction", "z" * 10_001], "10,001 characters; at most"),
        (["sample", "r", "--image", "x.png", "--instruction", "  "], "--instruction '  ' is empty"),
        (["extend", "r", "--bank", "b", "--updates-each", "0"], "expected a whole number from 1 to 1,000,000"),
        (["extend", "r", "--bank", "b", "--updates-each", "1" + "0" * 30], "expected a whole number from 1 to"),
        (["extend", "r", "--bank", "b", "--replay", "nan"], "expected a number from 0 to 1, found 'nan'"),
        (["extend", "r", "--bank", "b", "--replay", "1e400"], "expected a number from 0 to 1, found '1e400'"),
        (["extend", "r", "--bank", "b", "--replay", "-0.1"], "expected a number from 0 to 1, found '-0.1'"),
        (["compare", "r", HALF], "RUN: the path 'caf\\udce9' holds half a character"),
        (["run", "a\0b"], "RECIPE: the path 'a\\x00b' holds a NUL character"),
        (["inspect", "r", "--backbone", HALF], "word 4 of the command line is no text in UTF-8: 'caf\\udce9'"),
        (["compare", "r", "--by", "a\0b"], "word 4 of the command line holds a NUL: 'a\\x00b'"),
    ],
)
def test_numbers_and_texts_have_bounds(words, sentence, capsys):
    err = told(words, capsys)
    assert sentence in err
    assert len(err) < 1500


def test_a_path_that_the_system_refuses_is_told_with_its_reason(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    assert "loop" in told(["inspect", "loop/x.safetensors"], capsys)
    assert "RUN: the path 'xxx" in told(["evaluate", LONG], capsys)
    assert "has a part of 300 bytes; at most 255 make a name" in told(["sample", "r", "--image", LONG], capsys)
