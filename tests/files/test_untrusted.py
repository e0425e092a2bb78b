"""JSON that anybody may have written: refused with a plain sentence that does not repeat it."""

from __future__ import annotations

import json
import time

import pytest

from clora.errors import CloraError
from clora.files.untrusted_json import integer_of, number_of, parse_json, read_json, read_map, read_text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is no JSON: Expecting value (line 1, column 1)"),
        ("root:x:0:0", "is no JSON: Expecting value (line 1, column 1)"),
        ('{"a": NaN}', "is no JSON that can be read: NaN is no number"),
        ('{"a": -Infinity}', "is no JSON that can be read: -Infinity is no number"),
        ('{"a": 1e999}', "is no JSON that can be read: a number beyond the range of floats"),
        ("1" * 5000, "is no JSON that can be read: an integer of 5,000 digits; at most 20 mean anything here"),
        ("[" * 100_000, "is nested deeper than 64 levels"),
        ('{"a":' * 65 + "1" + "}" * 65, "is nested deeper than 64 levels"),
    ],
)
def test_what_is_no_plain_json_is_refused_without_its_content(text, sentence):
    with pytest.raises(CloraError) as caught:
        parse_json(text, "here")
    assert str(caught.value) == f"here: {sentence}"


def test_brackets_in_texts_are_no_nesting():
    tree = {"a": "[" * 500 + '\\" {', "b": [1, 2.5, "\u00e4"]}
    assert parse_json(json.dumps(tree), "here") == tree
    assert parse_json("[" * 64 + "]" * 64, "here") is not None


def test_a_megabyte_of_brackets_costs_one_pass():
    started = time.process_time()
    with pytest.raises(CloraError, match="no JSON"):
        parse_json("[]" * 1_000_000, "here")
    assert time.process_time() - started < 10  # counted once: a quadratic pass would take hours


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\xfe", "is no text in UTF-8"),
        (b"[1]", "is no JSON map but a list"),
        (b"null", "is no JSON map but null"),
        (b'"' + b"x" * 100 + b'"', f"is no JSON map but the text '{'x' * 60}' (40 more characters)"),
        (b" " * 5000, "is larger than the 4,096 bytes that are read of such a file"),
    ],
)
def test_files_are_bounded_and_named(tmp_path, content, sentence):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(CloraError) as caught:
        read_map(path, 4096)
    assert str(caught.value) == f"{path}: {sentence}"


def test_what_is_no_file_is_told(tmp_path):
    with pytest.raises(CloraError, match="there is no such file"):
        read_json(tmp_path / "none.json")
    with pytest.raises(CloraError, match="is no file"):
        read_text(tmp_path)
    with pytest.raises(CloraError, match="cannot be read: embedded null"):
        read_text(tmp_path / "a\x00b")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "must be a whole number, found null"),
        ([1], "must be a whole number, found a list"),
        (True, "must be a whole number, found true"),
        (3.5, "must be a whole number, found the number 3.5"),
        ("x" * 300, f"must be a whole number, found the text '{'x' * 60}' (240 more characters)"),
        (10**12, "must be between 1 and 4096, found 1000000000000"),
        (0, "must be between 1 and 4096, found 0"),
    ],
)
def test_a_field_of_another_type_or_range_is_named(value, sentence):
    with pytest.raises(CloraError) as caught:
        integer_of({"layers": value}, "layers", "m/config.json", 1, 4096)
    assert str(caught.value) == f"m/config.json: layers {sentence}"


def test_a_field_within_its_bounds_is_read():
    assert integer_of({"layers": 60}, "layers", "here", 1, 4096) == 60
    assert integer_of({}, "layers", "here", 1, 4096, 7) == 7
    assert number_of({"eps": 1e-6}, "eps", "here", 0, 1) == 1e-6
    with pytest.raises(CloraError, match="eps must be a number, found null"):
        number_of({}, "eps", "here", 0, 1)
