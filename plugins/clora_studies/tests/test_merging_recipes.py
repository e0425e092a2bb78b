"""A recipe that merges the bank: its keys, what is refused before anything is loaded, and what a merger may give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from attrs import frozen

from clora.adapters.answers import factors_problem
from clora.cli import main
from clora.testing.conformance import problems_of

RECIPE = str(Path(__file__).parents[3] / "recipes/merge_svd.yaml")
SHAPES = {"to_q": (4, 3)}
A, B = torch.ones(2, 4), torch.ones(3, 2)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["serve.merge=null"], "serve: `adapter: merge` needs `merge: {use: NAME}`, the way to merge"),
        (["serve.merge.use=pefd"], "merge has no component 'pefd'; did you mean 'peft'?"),
        (["serve.merge.methd=cat"], "unknown key 'methd' in serve.merge; did you mean 'method'?"),
        (["serve.merge.method=tie"], "serve.merge.method"),
        (["serve.merge.rank=0"], "serve.merge.rank must be between 1 and 16,384"),
        (["serve.merge.rank=4096"], "serve.merge: rank: 4096 is more than any linear of this backbone can have"),
        (["serve.merge.density=0"], "serve.merge.density must be between 0.001 and 1, found 0.0"),
    ],
)
def test_a_mistake_in_it_is_told_before_anything_is_merged(settings, sentence, capsys) -> None:
    assert main(["validate", RECIPE, *(part for text in settings for part in ("--set", text))]) == 2
    assert sentence in capsys.readouterr().err


def test_its_recipe_is_valid(capsys) -> None:
    assert main(["validate", RECIPE]) == 0


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ({"to_q": (A, B, 1.0)}, None),
        (None, "merged to None; expected a mapping of linear to (A, B, scale) with one linear or more"),
        ({}, "merged to dict {}; expected a mapping"),
        ({"to_k": (A, B, 1.0)}, "gave factors of 'to_k', which is no linear of this base"),
        ({"to_q": (A, B)}, "expected (A, B, scale)"),
        ({"to_q": (B, A, 1.0)}, "A [3, 2] and B [2, 4]; expected [r, 4] and [3, r] with r of 1 or more"),
        ({"to_q": (A[:0], B[:, :0], 1.0)}, "expected [r, 4] and [3, r] with r of 1 or more"),
        ({"to_q": (A[:1], B, 1.0)}, "A [1, 4] and B [3, 2]; expected [r, 4] and [3, r]"),
        ({"to_q": (A.int(), B, 1.0)}, "as A a tensor [2, 4] of torch.int32; expected a matrix of floats"),
        ({"to_q": (A, "B", 1.0)}, "as B str 'B'; expected a matrix of floats"),
        ({"to_q": (A, B * float("nan"), 1.0)}, "as B a matrix with NaN or infinity in it"),
        ({"to_q": (A, B, torch.ones(()))}, "the scale a tensor [] of torch.float32; expected a float"),
    ],
)
def test_what_is_no_lora_for_the_base_is_told(made, problem) -> None:
    found = factors_problem(made, SHAPES)
    assert found == problem if problem is None else problem in str(found)


@frozen
class Merger:
    """A merger that breaks one rule."""

    how: str

    def shape_problems(self, shapes):
        return ["too narrow"] if self.how == "narrow" else []

    def merge(self, teachers, shapes, seed):
        first = dict(teachers[0])
        if self.how == "draws":
            return {name: (torch.rand_like(a), b, scale) for name, (a, b, scale) in first.items()}
        if self.how == "changes":
            for a, _, _ in first.values():
                a.zero_()
        if self.how == "raises":
            raise ValueError("no such sign")
        return None if self.how == "nothing" else first


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("well", None),
        ("narrow", "too narrow"),
        ("draws", "the same teachers and seed gave two LoRAs"),
        ("changes", "it changed a teacher's factors"),
        ("raises", "serve.merge: ValueError: no such sign at test_merging_recipes.py:"),
        ("nothing", "it merged to None; expected a mapping"),
    ],
)
def test_conformance_finds_each_fault_of_a_merger(how: str, problem: str | None) -> None:
    found = problems_of("merge", Merger(how), checks_imports=False)
    assert len(found) == (problem is not None)
    assert problem is None or problem in found[0]
