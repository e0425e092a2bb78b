"""What messages repeat of foreign text: one line, bounded, nothing that steers a terminal."""

from __future__ import annotations

import time

import pytest

from clora.errors import CloraError, escaped, hint, nearest, printable, quoted, reason, shown


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("clay", "'clay'"),
        ("it's", '"it\'s"'),
        ("a 'b' \"c\"", "'a \\'b\\' \"c\"'"),
        ("x" * 60, f"'{'x' * 60}'"),
        ("x" * 8061, f"'{'x' * 60}' (8,001 more characters)"),
        ("a\nb\x00\x1b[31m", "'a\\nb\\x00\\x1b[31m'"),
        ("abc\u202edef\u2066", "'abc\\u202edef\\u2066'"),
        ("half \ud800", "'half \\ud800'"),
        ("line\u2028and\u0085", "'line\\u2028and\\x85'"),
        ("Käse 猫 é", "'Käse 猫 é'"),
        (3.5, "3.5"),
        (10**60, f"1{'0' * 59} (1 more characters)"),
        ("a\\b", "'a\\\\b'"),
        (["a\nb"], "['a\\nb']"),
    ],
)
def test_foreign_text_is_quoted_short_and_on_one_line(value, expected):
    assert quoted(value) == expected


def test_an_integer_that_python_refuses_to_write_is_told_by_its_size():
    assert quoted(10**6000) == "an integer of about 6,000 digits"


def test_a_library_s_sentence_is_its_first_line_cut():
    assert reason(ValueError("\n  first\x07 line \nroot:x:0:0\n")) == "first\\x07 line"
    assert reason(ValueError("")) == "ValueError"
    assert reason("y" * 1000) == "y" * 160 + "..."


def test_a_long_path_is_shown_by_its_end():
    assert shown("a/b.png") == "a/b.png"
    assert shown("a/\x1b]0;b.png") == "a/\\x1b]0;b.png"
    assert shown("d/" * 1000 + "b.png") == "..." + ("d/" * 1000 + "b.png")[-400:]


def test_nothing_near_a_word_of_a_megabyte_is_looked_for():
    started = time.process_time()
    assert nearest("x" * 1_000_000, ["clay", "x" * 90]) is None
    assert time.process_time() - started < 1
    known = [f"effect{i:03d}" for i in range(180)]
    assert hint("zzzzzz", known).endswith("effect021 and 158 more")


def test_an_error_is_for_people():
    assert CloraError("x").exit_code == 2
    assert escaped("a\tb") == "a\\tb"


def test_what_is_printed_has_no_control_characters_and_no_endless_line():
    assert printable("a\n\x1b[2Jb\n" + "z" * 3000) == "a\n\\x1b[2Jb\n" + "z" * 2000 + "..."
