"""Broken exporters and reporters, who write what a run leaves, are caught by the checks for authors."""

from __future__ import annotations

import os

import pytest
import torch
from attrs import frozen

from clora.testing.conformance import problems_of


@frozen
class Files:
    """An exporter that breaks one rule."""

    how: str = "well"

    def export(self, lora):
        if self.how == "changes" and lora.path.exists():
            lora.path.write_bytes(b"mine")
        if self.how == "reads":
            return {"size.txt": str(lora.path.stat().st_size)}
        if self.how == "names" and lora.path.exists():
            return {"late.txt": "x"}
        return {"a.txt": os.urandom(8) if self.how == "draws" else "a", **({"../b": ""} if self.how == "out" else {})}

    def illustrate(self, lora, evaluated):
        if self.how == "spoils":
            next(iter(evaluated.samples.values())).result.zero_()
        return {"b.txt": os.urandom(8) if self.how == "later" else "b"}


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("changes", "it changed the LoRA"),
        ("reads", "exporters: FileNotFoundError: "),
        ("names", "its export gives other names once the LoRA is there"),
        ("draws", "its export gives other files each time"),
        ("out", "its export gave a file named '../b', which lies outside the export's folder"),
        ("later", "its illustrate gives other files each time"),
        ("spoils", "it changed the pictures"),
    ],
)
def test_an_exporter_that_breaks_a_rule_is_caught(how: str, sentence: str) -> None:
    assert any(sentence in problem for problem in problems_of("exporters", Files(how), checks_imports=False))
    assert problems_of("exporters", Files(), checks_imports=False) == []


@frozen
class Tells:
    """A reporter that breaks one rule."""

    how: str = "well"
    file: str = "told.txt"

    def files(self):
        return {"path": ["../told.txt"], "two": [self.file, "b.txt"]}.get(self.how, [self.file])

    def report(self, run):
        if self.how == "numbers":
            return {self.file: f"{run.measured.values['distance']}"}
        if self.how == "changes" and run.effects:
            run.effects[0].pictures.rows["student"].zero_()
        word = {"draws": str(torch.rand(())), "raw": run.title}.get(self.how, "well")
        return {self.file: word}


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("path", "is no name for a file in the run's folder"),
        ("two", "of the run example it gave no 'b.txt', which its files() name"),
        ("numbers", "reporters: KeyError: 'distance' at test_conformance_of_files.py:"),
        ("changes", "it changed the pictures"),
        ("draws", "the same run gave other contents the second time"),
        ("raw", "that UTF-8 cannot hold"),
    ],
)
def test_a_reporter_that_breaks_a_rule_is_caught(how: str, sentence: str) -> None:
    found = problems_of("reporters", Tells(how), checks_imports=False)
    assert any(sentence in problem for problem in found), found
    assert problems_of("reporters", Tells(), checks_imports=False) == []
