"""What needs no numbers imports nothing heavy: a mistake is told within a second, not after torch and its like."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "diffusers", "peft", "transformers", "accelerate", "numpy", "triton", "requests")
#: carries out commands one after the other: of each the exit code, stderr, and what heavy packages it has brought
PROGRAM = f"""
import contextlib, io, json, sys
from clora.cli import main
there = set()
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(words)
    heavy = [name for name in {HEAVY!r} if name in sys.modules and name not in there]
    there.update(heavy)
    print(json.dumps([code, err.getvalue(), heavy]))
"""
WORLD = ["--world", "recipes/worlds/qwen_image_edit.yaml"]


Told: TypeAlias = "tuple[int, str, list[str]]"


def told(commands: Sequence[Sequence[str]]) -> list[Told]:
    """Exit code, stderr and the heavy packages of each command, all of them in one new process."""
    words = [sys.executable, "-c", PROGRAM, json.dumps(commands)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


LOOKS = (
    ("plugins",),
    ("plugins", "--json"),
    ("show", "recipes/collection.yaml"),
    ("show", "recipes/quickstart.yaml", "--set", "kernels={use: triton}"),
    ("show", "recipes/collection.yaml", *WORLD),
)


@pytest.fixture(scope="module")
def looks() -> dict[tuple[str, ...], Told]:
    return dict(zip(LOOKS, told(LOOKS), strict=True))


@pytest.mark.parametrize("words", LOOKS)
def test_what_is_only_looked_at_needs_nothing_heavy(looks, words):
    assert looks[words] == (0, "", [])


MISTAKES = {
    "train.step=3": "unknown key 'step' in train; did you mean 'steps'?",
    "losses.ts_dmd.use=dmdd": "losses has no component 'dmdd'; did you mean 'dmd'?",
    "backbone={use: emoji, weigths: x}": "did you mean 'weights'?",
    "train.steps=many": "train.steps",
    "router.p_switch=3": "router.p_switch must be",
    "losses.ts_dmd.simulation=targets": "asks for simulation 'targets'",
}


@pytest.fixture(scope="module", params=["validate", "run", "prepare", "show"])
def mistakes(request: pytest.FixtureRequest) -> dict[str, Told]:
    """What a command says to each setting."""
    commands = [(request.param, "recipes/collection.yaml", "--set", setting) for setting in MISTAKES]
    return dict(zip(MISTAKES, told(commands), strict=True))


@pytest.mark.parametrize(("setting", "sentence"), MISTAKES.items())
def test_a_mistake_in_a_recipes_words_is_told_before_anything_heavy_is_imported(mistakes, setting, sentence):
    code, err, heavy = mistakes[setting]
    assert (code, heavy) == (2, [])
    assert sentence in err
