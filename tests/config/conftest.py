"""Tiny components from a plugin of their own, and a recipe that is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from clora.config import LoadedRecipe, RecipeError, load_recipe
from clora.plugin_system.discovery import Catalogue, discover

PARTS = """
    from __future__ import annotations
    from pathlib import Path
    from typing import Any, Literal, Mapping, Optional, Sequence
    from attrs import field, frozen
    from attrs.validators import and_, ge, gt, in_, le, matches_re
    from clora.api import Component, Stream, hookimpl

    HERE = Path(__file__).parent

    @frozen
    class Bank:
        folder: Path = HERE / "bank"
        relative: Path = Path("cache")

    @frozen
    class Switch:
        p_switch: float = field(default=0.5, validator=and_(ge(0.0), le(1.0)))
        hold_steps: int = 1
        _cache: int = 0

    @frozen
    class Fixed:
        effect: str
        scale: float | None = 2.0
        many: tuple[int, ...] = ()
        pair: tuple[float, float] = (0.0, 1.0)
        words: dict[str, int] = field(factory=dict)
        either: int | Literal["auto"] = "auto"
        anything: Any = None
        names: Sequence[str] = ()
        old: Optional[list[int]] = None
        inner: Bank = Bank()
        code: str = field(default="x", validator=matches_re("[a-z]+"))
        tensor: complex = 1j
        made_: float = field(default=1.0, alias="make", validator=gt(0.0))

        def make(self): return self.made_

    @frozen
    class Target:
        tau_min: float = field(default=0.0, validator=ge(0))
        tau_max: float = field(default=750.0, validator=gt(0))

        @tau_max.validator
        def _above(self, attribute, value):
            if value <= self.tau_min:
                raise ValueError(f"no noise level lies between {self.tau_min} and {value}")

        def check_schedule(self, schedule):
            if not any(1000 * sigma < self.tau_max for sigma in schedule.sigmas):
                yield f"no step of the schedule lies below tau_max {self.tau_max}"

    @frozen
    class Unready:
        def check_schedule(self, schedule):
            raise KeyError("sigma")

    @frozen
    class Plain:
        streams: tuple[Stream, ...] = ("effect",)
        weight: float = 1.0

    @frozen
    class Matching(Plain):
        simulation: str = "backward"

        def needs_critic(self) -> bool:
            return True

    @frozen
    class Picky:
        def __attrs_post_init__(self):
            raise ValueError("never content")

    @frozen
    class Vague:
        x: Nowhere = 1

    @hookimpl
    def clora_backbones(): return [Component("tiny", Bank), Component("little", Bank)]
    @hookimpl
    def clora_datasets(): return [Component("tiny", Bank)]
    @hookimpl
    def clora_teachers(): return [Component("bank", Bank), Component("picky", Picky), Component("vague", Vague)]
    @hookimpl
    def clora_routers(): return [Component("switch", Switch), Component("fixed", Fixed)]
    @hookimpl
    def clora_prompts(): return [Component("own", Plain), Component("shared", Plain)]
    @hookimpl
    def clora_simulations(): return [Component("target", Target), Component("unready", Unready)]
    @hookimpl
    def clora_losses(): return [Component("plain", Plain), Component("matching", Matching)]
    @hookimpl
    def clora_kernels(): return [Component("eager", Plain)]
"""

RIGHT = """\
backbone: tiny
dataset: {use: tiny}
teachers: bank
router: {use: switch, p_switch: 0.25}
prompts: own
simulations:
  backward: {use: target, tau_max: 800}
losses:
  first: {use: plain}
  second: {use: matching, simulation: backward}
critic:
  losses:
    follow: plain
train: {steps: 10}
"""

Write = Callable[..., Path]
Load = Callable[..., LoadedRecipe]
Wrong = Callable[..., list[str]]


@pytest.fixture
def catalogue(install) -> Catalogue:
    install("tiny-house", {"parts": PARTS})
    return discover()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a recipe into the working directory, which is a fresh folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def file(text: str, name: str = "r.yaml") -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
        return path

    file(RIGHT, "right.yaml")
    return file


@pytest.fixture
def load(catalogue: Catalogue, write: Write) -> Load:
    """Loads `text` as r.yaml, laid on the right recipe unless it says otherwise."""

    def from_text(
        text: str = "", sets=(), with_files=(), extends: str | None = "right.yaml", world: str | None = None
    ) -> LoadedRecipe:
        line = f"extends: {extends}\n" if extends else ""
        return load_recipe(write(line + dedent(text)), with_files, sets, catalogue, world=world)

    return from_text


@pytest.fixture
def wrong(load: Load) -> Wrong:
    """The lines of the error that a recipe gives, without the file's name where it is r.yaml."""

    def lines(text: str = "", **options) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            load(text, **options)
        return [line.removeprefix("r.yaml:") for line in str(caught.value).splitlines()]

    return lines
