"""Values and keys that nobody meant, at every kind of key: told at their place, cut short, never a traceback."""

from __future__ import annotations

import pytest

from clora.config import RecipeError, load_recipe

pytestmark = pytest.mark.slow  # many short tests, which take seconds together

#: where a value may stand, by the kind of the key; {} is the value
PLACES = {
    "text": "router: {{use: fixed, effect: {}}}",
    "path": "dataset: {{folder: {}}}",
    "integer": "train: {{steps: {}}}",
    "number": "train: {{lr: {}}}",
    "boolean": "train: {{pack: {}}}",
    "literal": "train: {{schedule: {}}}",
    "literal or integer": "router: {{use: fixed, effect: a, either: {}}}",
    "list": "train: {{betas: {}}}",
    "in a list of texts": "effects: [{}]",
    "in a list of integers": "router: {{use: fixed, effect: a, many: [{}]}}",
    "mapping": "train: {}",
    "in a mapping": "router: {{use: fixed, effect: a, words: {{b: {}}}}}",
    "anything": "router: {{use: fixed, effect: a, anything: {}}}",
    "in anything": "router: {{use: fixed, effect: a, anything: [{{b: {}}}]}}",
    "component": "router: {}",
    "use": "router: {{use: {}}}",
    "named component": "losses: {{third: {}}}",
    "simulation": "losses: {{second: {{simulation: {}}}}}",
    "name": "name: {}",
    "title": "title: {}",
    "run": "start: {{run: {}}}",
    "plus": "serve: {{plus: {}}}",
    "parent": "extends: {}",
}
HOSTILE = {
    "NUL": r'"a\0b"',
    "lone surrogate": r'"a\ud800b"',
    "brackets": "[" * 300,
    "closed brackets": "[" * 300 + "]" * 300,
    "braces": "{a: " * 300,
    "5,000 digits": "9" * 5_000,
    "10^60": "1" + "0" * 60,
    "underscores": "1" + "_" * 100 + "0",
    "a fraction of 5,000 digits": "0." + "1" * 5_000,
    "beyond floats": "1e400",
    "a character beyond Unicode": r'"\UFFFFFFFF"',
    "a text of 20,000": "a" * 20_000,
    "a tag": "!" + "x" * 5_000 + " a",
    "an alias": "*" + "x" * 5_000,
}


def lines_of(load, text: str, **how) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(text, **how)
    lines = str(caught.value).split("\n")
    for line in lines:
        assert len(line) <= 600
        assert line.isprintable()
    return lines


@pytest.mark.parametrize("word", HOSTILE.values(), ids=HOSTILE)
def test_a_value_that_nobody_meant_is_refused_at_its_place_for_every_kind_of_key(load, word: str) -> None:
    for kind, place in PLACES.items():
        lines = lines_of(load, place.format(word), extends="right.yaml" if kind != "parent" else None)
        assert any(line.startswith(("r.yaml:1:", "r.yaml:2:")) for line in lines), (kind, lines)


def test_a_hundred_thousand_brackets(load) -> None:
    for word in ("[" * 100_000, "[" * 50_000 + "]" * 50_000, "{a: " * 25_000, "- " * 50_000, "[\n" * 50_000):
        for how in ({"text": f"effects:\n  {word}"}, {"sets": [f"effects={word}"]}):
            (line,) = lines_of(load, how.get("text", ""), sets=how.get("sets", ()))
            assert "nested deeper than 40 levels" in line


@pytest.mark.parametrize("word", HOSTILE.values(), ids=HOSTILE)
def test_the_same_on_the_command_line(load, word: str) -> None:
    for key in (
        "router.effect",
        "dataset.folder",
        "train.steps",
        "train.lr",
        "effects",
        "name",
        "serve.plus",
        "losses.a",
    ):
        sets = [f"{key}={word}"] if key != "router.effect" else ["router=fixed", f"{key}={word}"]
        lines = lines_of(load, "", sets=sets)
        assert lines[0].startswith(f"--set {key}: ") or lines[0].startswith("--set losses.a"), lines


KEYS = {
    "NUL": r'"a\0b"',
    "lone surrogate": r'"a\ud800b"',
    "long": "a" * 200,
    "longer than YAML's own limit": "? " + "a" * 5_000 + "\n",
    "direction marks": '"a\u202eb"',
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize(
    "place",
    ["{}: 1", "train:\n  {}: 1", "losses:\n  {}: plain", "router:\n  {}: 1"],
    ids=["top", "in", "named", "part"],
)
def test_a_key_that_nobody_meant(load, key: str, place: str) -> None:
    if key.startswith("?"):
        indent = place.split("{}")[0].rpartition("\n")[2]
        key += indent
    lines = lines_of(load, place.format(key))
    assert lines[0].startswith(("r.yaml:2:", "r.yaml:3:"))


@pytest.mark.parametrize("key", [r'"a\0b"', r'"a\ud800b"', "a" * 101], ids=["NUL", "surrogate", "long"])
def test_a_key_where_every_key_is_free(load, key: str) -> None:
    for place in ("words: {{{}: 1}}", "anything: {{{}: 1}}", "anything: [{{{}: 1}}]"):
        (line,) = lines_of(load, "router:\n  use: fixed\n  effect: a\n  " + place.format(key))
        assert line.startswith("r.yaml:5:")
        assert ": the key '" in line


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("a\0b=1", r"--set a\x00b: the key 'a\x00b' holds a NUL character"),
        ("a\udcffb=1", r"--set a\udcffb: the key 'a\udcffb' holds half a character"),
        ("train.steps=1\udcff", "--set train.steps: not YAML: special characters are not allowed"),
        ("train.steps=1\0", "--set train.steps: not YAML: special characters are not allowed"),
        ("x" * 5_000 + "=1", f"--set {'x' * 60}...: the key '{'x' * 60}' (4,940 more characters) has 5,000 characters"),
        ("x" * 5_000, f"--set {'x' * 60}...: expected key=value"),
        (".".join("a" * 100_000) + "=1", "names 100,000 keys inside one another; a recipe is at most 40 deep"),
        ("train=" + " " * 1_000_001, "--set train: is larger than 1,000,000 bytes"),
        ("effects=[" + "x, " * 30_000 + "]", "--set effects: more than 20000 values"),
        (
            "effects=[&a [x, x], &b [*a, *a], " + ", ".join(["*b"] * 20_000) + "]",
            "--set effects: more than 20000 values",
        ),
        ("effects=%YAML 1." + "9" * 5_000 + "\n--- a", "--set effects: not YAML: a number here is larger than YAML"),
    ],
    ids=range(11),
)
def test_hostile_assignments(load, assignment: str, sentence: str) -> None:
    line = lines_of(load, "", sets=[assignment])[0]
    assert sentence in line


def test_too_many_assignments_and_files(load) -> None:
    assert lines_of(load, "", sets=["seed=1"] * 2_000) == ["--set: 2,000 are given; at most 1,000 are read"]
    assert lines_of(load, "", with_files=["right.yaml"] * 20) == ["--with: 20 are given; at most 16 are read"]


PATHS = {
    "a/" + "b" * 256: "has a part of 256 bytes; at most 255 make a name",
    "é" * 128: "has a part of 256 bytes; at most 255 make a name",
    "a/" * 2_500: "is longer than 4,095 bytes",
    "~nobody-of-this-name/a": "cannot be looked up: RuntimeError: Could not determine home directory",
}


@pytest.mark.parametrize("path", PATHS, ids=["part", "letters", "whole", "home"])
@pytest.mark.parametrize("place", ["dataset: {{folder: {}}}", "start: {{run: {}}}", "serve: {{plus: {}}}"])
def test_paths_that_no_file_system_takes(load, path: str, place: str) -> None:
    (line,) = lines_of(load, place.format(path))
    assert line.startswith("r.yaml:2:")
    assert PATHS[path] in line


@pytest.mark.parametrize("path", list(PATHS)[:3], ids=["part", "letters", "whole"])
def test_such_a_path_of_a_recipe(load, catalogue, path: str) -> None:
    (line,) = lines_of(load, "", extends=path)
    assert line.startswith("r.yaml:1:10: extends: the path '")
    assert line.endswith(PATHS[path])
    (line,) = lines_of(load, "", with_files=[path])
    assert line.startswith("r.yaml --with -> ")
    assert line.endswith(PATHS[path])
    for hostile in (path, "a\0.yaml", "a\udcff.yaml"):
        with pytest.raises(RecipeError, match=r"cannot be read: its path (has a part|is longer|holds)"):
            load_recipe(hostile, (), (), catalogue)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a/b", "holds /, which no folder's name may"),
        ("..", "begins with a dot"),
        (".hidden", "begins with a dot"),
        ('"a "', "begins or ends with a space"),
        (r"a\b", r"holds \, which no folder's name may"),
        ('"a:b"', "holds :, which no folder's name may"),
        (r'"a\nb"', "holds a character that cannot be printed"),
        (r'"a\u202eb"', "holds a character that cannot be printed"),
        ("a" * 101, "is longer than 100 bytes"),
        ("é" * 51, "is longer than 100 bytes"),
    ],
)
def test_a_name_that_makes_no_folder(load, name: str, sentence: str) -> None:
    (line,) = lines_of(load, f"name: {name}")
    assert line.startswith("r.yaml:2:7: name: ")
    assert sentence in line


@pytest.mark.parametrize("name", ["mine", "a b", '"3"', "été-2.1_x", "a" * 100, "効果", "-x"])
def test_a_name_that_does(load, name: str) -> None:
    assert load(f"name: {name}").recipe.name == name.strip('"')


@pytest.mark.parametrize("stem", [".hidden", "a" * 120, "a:b", "a\tb"])
def test_a_file_whose_name_makes_no_folder(catalogue, write, stem: str) -> None:
    path = write("extends: right.yaml\n", f"{stem}.yaml")
    with pytest.raises(RecipeError, match=r"the run is named by the file, but .*; give it another by `name:`$"):
        load_recipe(path, (), (), catalogue)
    assert load_recipe(path, (), ["name=mine"], catalogue).recipe.name == "mine"


@pytest.mark.parametrize("title", [r'"two\nlines"', r'"\e[2J"', r'"\u202e"', "a" * 201])
def test_a_title_that_is_no_line(load, title: str) -> None:
    (line,) = lines_of(load, f"title: {title}")
    assert line.startswith("r.yaml:2:8: title: ")


def test_a_component_s_own_name_is_bounded(load) -> None:
    (line,) = lines_of(load, f"losses: {{{'a' * 65}: plain}}")
    assert line.endswith("in losses is longer than the 64 letters of a name")
