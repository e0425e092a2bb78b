"""The resolved recipe: origins, YAML that loads again, and a digest of what matters."""

from __future__ import annotations

import pytest
import yaml

from clora.config import load_recipe

HARD = """
title: 'a "title": with #, é and 😀'
effects: [no, "3", "", "1e-4", null_, "null", " a", "a b", ~x, 2024-01-01]
router:
  use: fixed
  effect: "line\\nbreak,\\ttab"
  scale: null
  words: {"a.b": 1, "3": 2}
  anything: {a: [1, "no", null, 1e-7], "b c": {}}
  inner: {folder: here}
train: {lr: 1e-7}
losses: {first: null}
"""


def test_the_resolved_yaml_loads_to_the_same_digest_anywhere(load, catalogue, write) -> None:
    loaded = load(HARD)
    for text in (loaded.resolved_yaml(), loaded.show()):
        again = load_recipe(write(text, "elsewhere/deep/again.yaml"), (), (), catalogue)
        assert again.digest == loaded.digest
        assert again.recipe == loaded.recipe


def test_the_resolved_yaml_means_the_same_to_other_readers(load) -> None:
    loaded = load(HARD)
    read = yaml.safe_load(loaded.resolved_yaml())
    assert read["effects"] == list(loaded.recipe.effects or ())
    assert read["train"]["lr"] == 1e-7
    assert read["router"]["effect"] == "line\nbreak,\ttab"
    assert read["title"] == loaded.recipe.title


def test_show_gives_every_values_origin(load, write) -> None:
    write("dataset: {folder: x}\n", "worlds/w.yaml")
    loaded = load("router: {hold_steps: 4}", with_files=["worlds/w.yaml"], sets=["train.lr=1e-3"])
    lines = [line.split("  # ") for line in loaded.show().splitlines() if "  # " in line]
    origins = {text.strip().split(":")[0]: origin for text, origin in lines}
    assert origins["p_switch"] == "right.yaml:4"
    assert origins["hold_steps"] == "r.yaml:2"
    assert origins["lr"] == "--set train.lr"
    assert origins["weight_decay"] == "default"
    assert any(text.strip().startswith("folder: /") and origin == "worlds/w.yaml:1" for text, origin in lines)
    short = [line.index("  # ") for line in loaded.show().splitlines() if "  # " in line and "folder" not in line]
    assert len(set(short)) == 1


def test_a_default_path_is_shown_but_not_written_down(load) -> None:
    loaded = load()
    assert "bank  # default" in loaded.show().replace("   ", "")
    assert "folder" not in loaded.resolved_yaml()


def test_origins_and_marks_by_path(load) -> None:
    loaded = load("train:\n  steps: 3\n")
    assert str(loaded.origins["train.steps"]) == "r.yaml:3:10"
    assert loaded.origins["train.lr"] is None
    assert str(loaded.mark_of("train.steps")) == "r.yaml:3:10"
    assert str(loaded.mark_of("train.lr")) == "r.yaml:2:1"
    assert str(loaded.mark_of("losses.second")) == "right.yaml:10:3"
    assert str(loaded.mark_of("evaluate.images")) == "r.yaml:1:1"
    assert str(loaded.mark_of("")) == "r.yaml:1:1"


@pytest.mark.parametrize(
    "text",
    [
        "title: other",
        "name: other",
        "train: {lr: 0.0001}",
        "student: {alpha: 128}",
        "losses: {second: {use: matching}, first: plain}",
        "metrics: {}",
        "effects: null",
    ],
)
def test_the_digest_does_not_change_with(load, text: str) -> None:
    assert load(text).digest == load().digest


@pytest.mark.parametrize(
    "text",
    ["seed: 1", "effects: [a]", "losses: {first: null}", "teachers: {folder: b}", "prompts: shared", "kernels: eager"],
)
def test_the_digest_changes_with(load, text: str) -> None:
    assert load(text).digest != load().digest
