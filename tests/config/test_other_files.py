"""Files that a recipe names: how a mistake in them is told, what is repeated of one that is no recipe, circles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clora.config import RecipeError, load_recipe

SECRET = "root:x:0:0:the administrator:/root:/bin/bash\n" * 200
FOREIGN = {
    "text": SECRET,
    "one line": "s3cret " * 2_000,
    "keys": "".join(f"s3cret_{i}_{'x' * 80}: 1\n" for i in range(100)),
    "list": "- s3cret\n" * 100,
    "JSON": '{"s3cret": [' + "1, " * 500 + "1]}",
    "anchors": "a: &" + "s3cret" * 500 + " 1\n",
    "tag": "a: !" + "s3cret" * 500 + " 1\n",
    "undefined tag": "a: !" + "s3cret" * 500 + "!x 1\n",
    "escapes": 'a: "\\e[2J\\u202e' + "s3cret" * 100 + '"\n',
    "directive": "%" + "s3cret" * 100 + "\n--- a\n",
}


def told(load, text: str = "", **how) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(text, **how)
    return str(caught.value).split("\n")


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize(
    ("how", "way"),
    [
        ({"extends": "link.yaml"}, "r.yaml:1:10 -> "),
        ({"with_files": ["link.yaml"]}, "r.yaml --with -> "),
        ({"text": "serve: {plus: link.yaml}"}, "r.yaml:2:15 -> "),
    ],
    ids=["extends", "with", "plus"],
)
def test_little_is_repeated_of_a_file_that_is_no_recipe(load, write, tmp_path, content, how, way) -> None:
    (tmp_path / "secret").write_text(content)
    (tmp_path / "work" / "link.yaml").symlink_to(tmp_path / "secret")
    lines = told(load, **how)
    assert lines[0].startswith(f"{way}link.yaml:")
    for line in lines:
        assert line.isprintable()
        assert len(line) <= 400
        assert line.count("s3cret") <= 10  # 60 characters
        assert line.count("root") <= 4
    assert len(lines) <= 41


@pytest.mark.parametrize("content", [b"\x7fELF\x00\x01\xff" * 50, b"\x89PNG\r\n\x1a\n", b"PK\x03\x04\xff"])
def test_a_file_that_is_no_text(load, tmp_path, content: bytes) -> None:
    (tmp_path / "work" / "b.yaml").write_bytes(content)
    (line,) = told(load, extends="b.yaml")
    assert line.startswith("r.yaml:1:10 -> b.yaml:")
    assert line.endswith("is not UTF-8 text")


def test_a_pipe_a_folder_and_a_file_that_may_not_be_read(load, tmp_path) -> None:
    os.mkfifo(tmp_path / "work" / "pipe.yaml")
    assert told(load, extends="pipe.yaml") == [
        "r.yaml:1:10: cannot read pipe.yaml: it is no file but a device or a pipe"
    ]
    assert told(load, extends="/dev/zero") == [
        "r.yaml:1:10: cannot read /dev/zero: it is no file but a device or a pipe"
    ]
    assert told(load, extends=".") == ["r.yaml:1:10: cannot read .: Is a directory"]
    assert told(load, with_files=["zzzzzz.yml"]) == [
        "r.yaml --with -> zzzzzz.yml: cannot be read: No such file or directory"
    ]
    (tmp_path / "work" / "loop.yaml").symlink_to("loop.yaml")
    (line,) = told(load, extends="loop.yaml")
    assert line.startswith("r.yaml:1:10: cannot read loop.yaml: Too many levels of symbolic links")


def test_a_file_without_end_is_read_to_its_limit(load) -> None:
    assert told(load, with_files=["/dev/zero"]) == [
        "r.yaml --with -> /dev/zero: is larger than 1000000 bytes, which no recipe is"
    ]


def test_the_way_is_told_before_a_file_s_first_mistake_alone(load, write) -> None:
    write("extends: right.yaml\ntrain: {steps: a, lr: b, pack: c}\n", "low.yaml")
    write("extends: low.yaml\nstudent: {rank: d}\n", "mid.yaml")
    write("evaluate: {images: e}\n", "w.yaml")
    found = told(load, "seed: f", extends="mid.yaml", with_files=["w.yaml"], sets=["device=g"])
    assert [line.split(": ")[0] for line in found] == [
        "--set device",
        "r.yaml:1:10 -> mid.yaml:1:10 -> low.yaml:2:16",
        "low.yaml:2:23",
        "low.yaml:2:32",
        "r.yaml:1:10 -> mid.yaml:2:17",
        "r.yaml:2:7",
        "r.yaml --with -> w.yaml:1:20",
    ]


def test_a_long_way_is_told_by_its_ends(load, write) -> None:
    for i in range(9):
        write(f"extends: p{i + 1}.yaml\n", f"p{i}.yaml")
    write("extends: right.yaml\ntrain: {steps: a}\n", "p9.yaml")
    (line,) = told(load, extends="p0.yaml")
    assert line.startswith("r.yaml:1:10 -> ... (8 files) -> p8.yaml:1:10 -> p9.yaml:2:16: train.steps: ")


def test_a_mistake_that_shows_late_names_the_way_too(load, write) -> None:
    write("simulations: {backward: {tau_max: 200}}\n", "w.yaml")
    assert told(load, with_files=["w.yaml"])[0].startswith(
        "r.yaml --with -> w.yaml:1:15: simulations.backward: no step"
    )
    loaded = load(with_files=["w.yaml"], sets=["simulations.backward.tau_max=700"])
    assert loaded.mark_of("train").way() == "r.yaml:1:10 -> "


def test_twenty_thousand_mistakes_are_counted_and_forty_told(load, write) -> None:
    lines = told(load, "".join(f"stepz_{i}: 1\n" for i in range(15_000)))
    assert len(lines) == 41
    assert lines[0].startswith("r.yaml:2:1: unknown key 'stepz_0'; known: ")
    assert lines[-1] == "r.yaml:42:1: 14,960 more mistakes from here on"


@pytest.mark.slow
@pytest.mark.parametrize(
    "section", ["losses: {{{}}}", "metrics: {{{}}}", "critic: {{losses: {{{}}}}}"], ids=["losses", "metrics", "critic"]
)
def test_thousands_of_unknown_components_are_looked_up_in_bounded_work(load, monkeypatch, section: str) -> None:
    from clora.plugin_system import catalogue as catalogue_module

    asked: list[str] = []
    monkeypatch.setattr(catalogue_module, "nearest", lambda word, words: asked.append(word))
    lines = told(load, section.format(", ".join(f"l{i}: plane_{i}" for i in range(5_000))))
    assert len(lines) == 41
    assert len(set(asked)) == 40


def test_a_recipe_that_adds_itself(load) -> None:
    message = "serve.plus: recipes add one another in a circle: r.yaml -> r.yaml"
    assert told(load, "serve: {plus: r.yaml}") == [f"r.yaml:2:15: {message}"]
    assert told(load, "", sets=["serve.plus=r.yaml"]) == [f"--set serve.plus: {message}"]


def test_recipes_that_add_one_another(load, write) -> None:
    write("extends: right.yaml\nserve: {plus: r.yaml}\n", "b.yaml")
    assert told(load, "serve: {plus: b.yaml}") == [
        "r.yaml:2:15 -> b.yaml:2:15: serve.plus: recipes add one another in a circle: r.yaml -> b.yaml -> r.yaml"
    ]


def test_a_circle_through_extends(load, write) -> None:
    write("extends: right.yaml\nserve: {plus: r.yaml}\n", "low.yaml")
    assert told(load, "", extends="low.yaml") == [
        "r.yaml:1:10 -> low.yaml:2:15: serve.plus: recipes add one another in a circle: r.yaml -> r.yaml"
    ]
    write("extends: r.yaml\n", "child.yaml")
    (line,) = told(load, "serve: {plus: child.yaml}")
    assert line == (
        "r.yaml:2:15 -> child.yaml:1:10 -> r.yaml:2:15: serve.plus: recipes add one another in a circle: "
        "child.yaml -> child.yaml"
    )


def test_a_circle_through_a_link(load, write) -> None:
    Path("same.yaml").symlink_to("r.yaml")
    assert "in a circle: r.yaml -> same.yaml" in told(load, "serve: {plus: same.yaml}")[0]


def test_too_many_recipes_that_add_one_another(load, write) -> None:
    for i in range(6):
        write(f"extends: right.yaml\nserve: {{plus: p{i + 1}.yaml}}\n", f"p{i}.yaml")
    write("extends: right.yaml\n", "p6.yaml")
    (line,) = told(load, "serve: {plus: p0.yaml}")
    assert line.startswith(
        "r.yaml:2:15 -> p0.yaml:2:15 -> p1.yaml:2:15 -> p2.yaml:2:15: serve.plus: more than 4 recipes"
    )


def test_the_mistakes_of_an_added_recipe_are_told_with_the_recipe_s_own(load, write) -> None:
    write("extends: right.yaml\ntrain: {steps: a, stepz: 1}\n", "b.yaml")
    assert [line.split(": ")[0] for line in told(load, "serve: {plus: b.yaml}\nseed: x")] == [
        "r.yaml:2:15 -> b.yaml:2:16",
        "b.yaml:2:19",
        "r.yaml:3:7",
    ]


def test_an_added_recipe_has_this_one_s_seed_and_may_be_left_unread(load, catalogue, write) -> None:
    write("extends: right.yaml\n", "b.yaml")
    plus = load("serve: {plus: b.yaml}\nseed: 7").plus
    assert plus is not None
    assert (plus.recipe.name, plus.recipe.seed, plus.plus) == ("b", 7, None)
    write("train: {steps: a}\n", "b.yaml")
    assert load_recipe("r.yaml", (), (), catalogue, plus=False).plus is None


def test_an_added_recipe_may_be_added_to(load, write) -> None:
    write("extends: right.yaml\n", "c.yaml")
    write("extends: right.yaml\nserve: {plus: c.yaml}\n", "b.yaml")
    loaded = load("serve: {plus: b.yaml}")
    assert loaded.plus is not None
    assert loaded.plus.plus is not None
