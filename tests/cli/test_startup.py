"""What needs no numbers imports nothing heavy: a mistake is told within a second, not after torch and its like."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "diffusers", "peft", "transformers", "accelerate", "numpy", "triton", "requests")
PROGRAM = f"""
import contextlib, io, json, sys
from clora.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
    code = main(sys.argv[1:])
print(json.dumps([code, err.getvalue(), [name for name in {HEAVY!r} if name in sys.modules]]))
"""
WORLD = ["--world", "recipes/worlds/qwen_image_edit.yaml"]


def told(*words: str) -> tuple[int, str, list[str]]:
    """Exit code, stderr and the heavy packages of one command in a process of its own."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    code, err, heavy = json.loads(done.stdout)
    return code, err, heavy


@pytest.mark.parametrize(
    "words",
    [
        ["plugins"],
        ["plugins", "--json"],
        ["show", "recipes/collection.yaml"],
        ["show", "recipes/quickstart.yaml", "--set", "kernels={use: triton}"],
        ["show", "recipes/collection.yaml", *WORLD],
    ],
)
def test_what_is_only_looked_at_needs_nothing_heavy(words):
    assert told(*words) == (0, "", [])


@pytest.mark.parametrize("command", ["validate", "run", "prepare", "show"])
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["train.step=3"], "unknown key 'step' in train; did you mean 'steps'?"),
        (["losses.ts_dmd.use=dmdd"], "losses has no component 'dmdd'; did you mean 'dmd'?"),
        (["backbone={use: emoji, weigths: x}"], "did you mean 'weights'?"),
        (["train.steps=many"], "train.steps"),
        (["router.p_switch=3"], "router.p_switch must be"),
        (["losses.ts_dmd.simulation=targets"], "asks for simulation 'targets'"),
    ],
)
def test_a_mistake_in_a_recipes_words_is_told_before_anything_heavy_is_imported(command, settings, sentence):
    sets = [part for text in settings for part in ("--set", text)]
    code, err, heavy = told(command, "recipes/collection.yaml", *sets)
    assert (code, heavy) == (2, [])
    assert sentence in err
