"""The schema of recipes: what is right passes, what is wrong does not, and an editor has a sentence to show."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from clora import cli
from clora.config.key_docs import key_docs
from clora.config.schema import Student, Train
from clora.plugin_system.discovery import discover
from clora.plugin_system.json_schema import recipe_schema

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
SCHEMA = ROOT / "recipes/recipe.schema.json"


@cache
def validator() -> Draft202012Validator:
    return Draft202012Validator(recipe_schema(discover()))


def problems(text: str) -> list[str]:
    """What the schema says against a recipe's text."""
    return [error.message for error in validator().iter_errors(_numbers(yaml.safe_load(text)))]


def _numbers(value: Any) -> Any:
    """`3e-3` is a number to YAML 1.2 and to clora; PyYAML takes it for a text."""
    if isinstance(value, dict):
        return {key: _numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_numbers(each) for each in value]
    return float(value) if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?e-?\d+", value) else value


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(recipe_schema(discover()))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_passes_and_names_it(path: Path) -> None:
    text = path.read_text()
    assert problems(text) == []
    up = "../" if path.parent.name == "worlds" else ""
    assert f"# yaml-language-server: $schema={up}recipe.schema.json" in text.splitlines()


@pytest.mark.parametrize(
    "text",
    [
        "train: {step: 3}",
        "train: {steps: many}",
        "train: {steps: -1}",
        "train: {betas: [0.9, 1.0]}",
        "train: {betas: [0.9]}",
        "router: {use: pdsr, p_switch: 1.5}",
        "router: pdrs",
        "router: {use: aop}",
        "losses: {ts_dmd: {use: dmd, tau_mni: 500}}",
        "losses: {ts_dmd: {tau_mni: 500}}",
        "student: {ema: 1.0}",
        "effect: [thermal]",
        "critic: {losses: {a: nothing}}",
        "warm_start: {router: {p_swich: 1}}",
        "serve: {adapter: pupil}",
    ],
)
def test_a_mistake_does_not_pass(text: str) -> None:
    assert problems(text)


@pytest.mark.parametrize(
    "text",
    [
        "router: pdsr",
        "router: {use: clora:pdsr, hold_steps: 2}",
        "router: {use: elsewhere:mine, anything: 3}",
        "router: elsewhere:mine",
        "losses: {ts_dmd: null, bs_dmd: {weight: 0}}",
        "warm_start: null",
        "train: {lr: null, betas: [0.0, 0.99]}",
        "student: {shift: null, ema: 0.5}",
        "effects: [thermal, solarise]",
    ],
)
def test_what_a_recipe_may_say_passes(text: str) -> None:
    assert problems(text) == []


def test_keys_have_the_sentences_of_their_fields() -> None:
    assert key_docs(Train)["steps"].startswith("up to a million; 0 exports what it starts from")
    assert key_docs(Student)["ema"].startswith("decay of the moving average that is exported")
    schema = recipe_schema(discover())
    student = schema["properties"]["student"]["anyOf"][0]
    assert student["properties"]["ema"]["description"] == key_docs(Student)["ema"]
    assert student["description"].startswith("The adapter that is trained")


def test_the_shipped_file_is_what_the_command_writes(tmp_path: Path) -> None:
    """`clora schema --out recipes/recipe.schema.json` writes it anew."""
    assert cli.main(["schema", "--out", str(tmp_path / "made.json")]) == 0
    assert json.loads((tmp_path / "made.json").read_text()) == json.loads(SCHEMA.read_text())


def test_a_broken_plugin_is_left_out(install) -> None:
    install("a-house", {"bad": "import no_such_package"})
    schema = recipe_schema(discover())
    assert schema["$defs"]["router"]["anyOf"][0] == {"enum": []}
