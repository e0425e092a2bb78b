"""The teachers' LoRA files of a plan: which they are, what is wrong with them, what is doubtful; each is read once."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from attrs import frozen

from clora.contracts.backbone import HasLocalWeights
from clora.contracts.method import ListsLoraFiles
from clora.errors import QUOTED, escaped, shown
from clora.lora_io.base_weights import base_weights
from clora.lora_io.check import layouts_of
from clora.lora_io.teacher import judge
from clora.planning.components import Finding

if TYPE_CHECKING:
    from pathlib import Path

    from clora.config.schema import Recipe
    from clora.contracts.method import Teachers
    from clora.lora_io.scales import StrengthFrom

MOST_OF_A_FILE = 4  # mistakes told of one teacher's file


def banks_of(recipe: Recipe) -> dict[str, Teachers]:
    """The recipe's own bank and those that an extension adds, by their places."""
    added = {} if recipe.start is None else recipe.start.teachers
    return {"teachers": recipe.teachers, **{f"start.teachers.{name}": bank for name, bank in added.items()}}


@frozen
class TeacherFile:
    """A LoRA file in use: its place in the recipe, its effect and, as far as its bank has no mistake, its strength."""

    place: str
    effect: str
    path: Path
    scale: float = 1.0
    strength: StrengthFrom = None


def lora_files(recipe: Recipe, wrong: Collection[str]) -> list[TeacherFile]:
    """The LoRA files of the effects in use, as far as a bank at one of the `wrong` places tells them."""
    found: list[TeacherFile] = []
    for place, bank in banks_of(recipe).items():
        if place not in wrong:
            found += [TeacherFile(place, c.name, c.lora, c.scale, c.strength) for c in bank.cards()]
        elif isinstance(bank, ListsLoraFiles):
            found += [TeacherFile(place, name, file) for name, file in bank.lora_files()]
    return [each for each in found if recipe.effects is None or each.effect in recipe.effects]


def layouts_code(recipe: Recipe) -> dict[str, str]:
    """What the run depends on as on its components: the registered LoRA layouts that its teachers' files are read by.

    {lora_layouts.DISTRIBUTION:NAME: distribution, version, hash of the source}
    """
    shapes = recipe.backbone.shapes()
    layouts = (layout for file in lora_files(recipe, ()) for layout in layouts_of(file.path, shapes))
    return {f"lora_layouts.{each.distribution}:{each.name}": each.code for each in layouts}


def file_findings(recipe: Recipe, files: Iterable[TeacherFile], data: bool) -> tuple[list[Finding], list[Finding]]:
    """What is wrong with teachers' files for this backbone, and what is doubtful about them; each file is read once."""
    shapes = recipe.backbone.shapes()
    local = recipe.backbone.local_weights() if data and isinstance(recipe.backbone, HasLocalWeights) else None
    base = base_weights(local, shapes)
    problems: list[Finding] = []
    doubts: list[Finding] = []
    for file in files:
        found = judge(file.path, shapes, base, scale=file.scale, strength=file.strength, data=data)
        told = found.problems
        if len(told) > MOST_OF_A_FILE:  # a file of two formats has one for each of a thousand factors
            more = f"{len(told) - MOST_OF_A_FILE} more; `clora inspect` with --modules tells them all"
            told = (*told[:MOST_OF_A_FILE], f"{shown(file.path)}: {more}")
        effect = escaped(file.effect[:QUOTED])
        problems += [(file.place, f"{effect}: {sentence}") for sentence in told]
        doubts += [(file.place, f"{effect}: {sentence}") for sentence in found.warnings]
    return problems, doubts
